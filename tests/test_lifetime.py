"""After a state is closed nothing answers any more; a state opened by path travels between processes."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.states import legacy_pair, write_state
from vmsavedstate import InvalidArgumentError, SavedState, VmSavedStateError

GVA, GPA = 0xFFFFFFFF80100700, 0x100700


def calls(state: SavedState) -> dict[str, Callable[[], Any]]:
    """Every call that reads or translates, on every view."""
    vp, memory = state.processors[0], state.memory
    found: dict[str, Callable[[], Any]] = {
        "screen": lambda: state.screen, "summary": state.summary, "verify": state.verify, "lock": state.lock,
        "check_memory": state.check_memory, "pickle": lambda: pickle.dumps(state),
        "pages": lambda: memory.pages([0x100]), "raw": lambda: memory.read_raw(0, 4),
        "raw_offset": lambda: memory.raw_offset(GPA),
    }  # fmt: skip
    physical = {"": memory, "cached ": memory.cached(2), "overlaid ": memory.overlaid([(GPA, b"x")])}
    for name, view in physical.items():
        found |= common(f"{name}memory", view, GPA)
    spaces = {
        "vp": vp, "space": vp.space, "forced": vp.address_space(root=0x1000),
        "overlaid space": vp.address_space(memory=physical["overlaid "]),
    }  # fmt: skip
    for name, space in spaces.items():
        found |= common(name, space, GVA)
        found |= translating(name, space)
    return found


def translating(name: str, space: Any) -> dict[str, Callable[[], Any]]:
    return {
        f"{name}.translate": lambda: space.translate(GVA),
        f"{name}.walk": lambda: space.walk(GVA),
        f"{name}.translate_many": lambda: space.translate_many([GVA]),
        f"{name}.mappings": lambda: list(space.mappings()),
        f"{name}.reverse": lambda: list(space.reverse(GPA)),
    }


def common(name: str, view: Any, address: int) -> dict[str, Callable[[], Any]]:
    return {
        f"{name}.read": lambda: view.read(address, 8),
        f"{name}.read many": lambda: view.read(address, 0x2000, fill=0),
        f"{name}.read nothing": lambda: view.read(address, 0),
        f"{name}.read_into": lambda: view.read_into(address, bytearray(8)),
        f"{name}.is_valid": lambda: view.is_valid(address),
        f"{name}.gaps": lambda: list(view.gaps(address, 8)),
        f"{name}.require": lambda: view.require(address, 8),
        f"{name}.find": lambda: list(view.find(b"SAMPLE", address, address + 0x1000)),
        f"{name}.blocks": lambda: list(view.blocks(address, address + 8)),
    }


@pytest.mark.parametrize("warm", [True, False])
def test_every_call_says_that_the_state_is_closed(sample_guest: Path, warm: bool) -> None:
    with vmsavedstate.open(sample_guest) as state:
        every = calls(state)
        for call in every.values() if warm else ():
            call()
            call()
    silent = []
    for name, call in every.items():
        try:
            call()
        except VmSavedStateError as error:
            assert "closed" in str(error), name
        else:
            silent.append(name)
    assert silent == []
    assert len(every) > 60


def test_bound_methods_kept_before_say_so_too(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        vp = state.processors[0]
        kept = [vp.translate, vp.space.translate]
        kept += [vp.translate]  # the thin method has replaced itself
        assert {call(GVA) for call in kept} == {GPA}
        reads = [vp.read, vp.space.read, state.memory.read]
    for call in kept:
        with pytest.raises(VmSavedStateError, match="closed"):
            call(GVA)
    for read in reads:
        with pytest.raises(VmSavedStateError, match="closed"):
            read(GPA, 4)


def test_what_needs_no_file_still_answers(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        pass
    state.close()
    assert state.format == "vmrs" and len(state.processors) == 2 and state.memory.size


def other_process(data: bytes) -> tuple[int, bytes, bool]:
    with pickle.loads(data) as state:
        return state.processors[0].registers.rip, state.memory.read(GPA, 12), state.memory.strict


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_opened_by_path_travels(sample_guest: Path, strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample_guest.parent)
    with vmsavedstate.open(sample_guest.name, strict=strict) as state:
        state.memory.read(0, 1 << 19)
        data = pickle.dumps(state)
        assert len(data) < 1 << 20
        expected = (state.processors[0].registers.rip, b"VMSAVEDSTATE", strict)
    monkeypatch.chdir("/")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(other_process, (data,)) == expected


def test_options_travel(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    moved = vsv_path.rename(tmp_path / "elsewhere.vsv")
    with vmsavedstate.open(bin_path, moved) as state, pickle.loads(pickle.dumps(state)) as again:
        assert again.files == state.files
    from formats.qemu_elf.test_qemu_elf import dump

    path = dump(tmp_path / "x.elf")
    with vmsavedstate.open(path, registers={0: {"efer": 0xD01}}) as state, pickle.loads(pickle.dumps(state)) as again:
        assert again.processors[0].registers.efer == 0xD01


def test_a_state_opened_from_an_object_says_why_it_cannot(tmp_path: Path, sample_guest: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    for opened in (
        vmsavedstate.open(io.BytesIO(sample_guest.read_bytes())),
        vmsavedstate.open(bin_path, io.BytesIO(vsv_path.read_bytes())),
    ):
        with opened as state, pytest.raises(InvalidArgumentError, match="opened from a file object"):
            pickle.dumps(state)


def test_a_file_that_is_gone_on_the_other_side(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    with vmsavedstate.open(path) as state:
        data = pickle.dumps(state)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)
