"""The bundled sample against what QEMU said about the same frozen machine (examples/sample-guest.json)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.structure_check import StructureCheck
from vmsavedstate import SavedState


@pytest.fixture
def truth(sample_guest: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(sample_guest.with_suffix(".json").read_text())
    return content


@pytest.fixture
def state(sample_guest: Path) -> Iterator[SavedState]:
    with vmsavedstate.open(sample_guest, strict=True) as opened:
        yield opened


def test_it_is_small_and_sound(sample_guest: Path, state: SavedState) -> None:
    assert sample_guest.stat().st_size < 2_000_000
    state.check_memory()
    assert state.findings == ()
    assert StructureCheck(sample_guest.read_bytes()).check_saved_state() == []


def test_registers_as_qemu_shows_them(state: SavedState, truth: dict[str, Any]) -> None:
    for vp, text in zip(state.processors, truth["registers"], strict=True):
        seen = dict(re.findall(r"\b(R\w{1,2}|CR\d|EFER|DR\d)\s*=([0-9a-f]+)", text))
        seen["RFLAGS"] = seen.pop("RFL")
        assert len(seen) >= 28
        for name, number in seen.items():
            assert vp.registers[name.lower()] == int(number, 16), name
        for name, base in re.findall(r"^(ES|CS|SS|DS|FS|GS|TR)\s*=\w+ (\w+)", text, re.MULTILINE):
            segment: Any = vp.registers[name.lower()]
            assert segment.base == int(base, 16)
        for number, high, low in re.findall(r"XMM(\d+)=(\w{16}) (\w{16})", text):
            assert vp.registers[f"xmm{int(number)}"] == int(high + low, 16)
        assert vp.cpl == int(re.findall(r"CPL=(\d)", text)[0])


def test_processors(state: SavedState) -> None:
    first, second = state.processors
    assert (first.architecture.name, first.paging_mode.name, first.paging_levels, first.cpl) == ("X64", "LONG", 4, 0)
    assert (second.architecture.name, second.paging_mode.name, second.paging_levels, second.cpl) == (
        "X64",
        "LONG",
        4,
        3,
    )
    assert first.registers.rax == 0x1111_1111_1111_1111
    assert first.registers.xmm7.to_bytes(16, "little") == b"xmm7 holds this."


def test_memory_is_what_qemu_had(state: SavedState, truth: dict[str, Any]) -> None:
    assert [{"start": hex(item.start), "size": item.size} for item in state.memory.chunks] == truth["chunks"]
    whole = state.memory.read_raw(0, state.memory.size)
    assert hashlib.sha256(whole).hexdigest() == truth["memory_sha256"]
    assert state.memory.read(0x100000, 0x1000).count(b"VMSAVEDSTATE SAMPLE GUEST") == 1


def test_screen_is_what_qemu_showed(state: SavedState, truth: dict[str, Any]) -> None:
    screen = state.screen
    assert screen is not None
    assert (screen.width, screen.height) == (640, 400)
    assert hashlib.sha256(screen.rgb).hexdigest() == truth["screen_sha256"]
