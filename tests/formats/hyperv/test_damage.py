"""Damage to single values of a saved state: an error or a finding that says what is lost."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support import partition as p
from support.container import (
    ARRAY,
    INT,
    NODE,
    Container,
    key_entry,
    key_table,
    node_data,
    pointer,
    prefixed,
)
from support.states import BLOCK, numbered_pages, write_state
from vmsavedstate.errors import (
    CorruptFileError,
    ScreenError,
)

SCREEN = "/savedstate/configuration/_ba8735ef-e3a9-4f1b-badd-dbf3a5909915_/VideoMonitor"


@pytest.mark.parametrize("name", ["type", "VmwpVersion"])
def test_a_lost_optional_key_does_not_stop_the_rest(tmp_path: Path, name: str) -> None:
    """Section 11: error when read, neighbours usable."""
    path = write_state(tmp_path / "x.vmrs", extra=[(f"/savedstate/{name}", "string", "x" * 3000)])
    with vmsavedstate.open_store(path) as store:
        entry = store[f"/savedstate/{name}"]
        place, at = entry.offset, entry.value_offset
    raw = bytearray(path.read_bytes())
    where = raw.index(struct.pack("<IQ", 6000, at), place)
    raw[where : where + 12] = struct.pack("<IQ", 6000, 1 << 40)
    path.write_bytes(raw)
    with vmsavedstate.open(path) as state:
        assert state.memory.read(0, 1) == b"\0"
        assert (state.saved_state_type, state.writer_version) == (None, None)
        assert any("outside of the file" in item.message for item in state.findings)


def test_a_second_metadata_value_that_is_lost(tmp_path: Path) -> None:
    blob = p.simple_blob()
    leaves = [("a", blob), ("RamMemoryBlock0", p.metadata(256))]
    container = Container([bytes(0x2000)], [blob, numbered_pages(0)])
    blob_at, block_at = container.places()[1]
    entries = [key_entry(NODE, "savedstate", node_data(9), sequence=1)]
    saved = (1, 10)
    entries.append(key_entry(NODE, "savedVM", node_data(2), parent=saved, sequence=1))
    inner = (1, 10 + len(entries[0]))
    entries += [
        key_entry(ARRAY, "partition_state", pointer(len(blob), blob_at), parent=inner, flags=1),
        key_entry(INT, "VmVersion", struct.pack("<q", 0x0A00), parent=saved, sequence=2),
        key_entry(ARRAY, "RamMemoryBlock0", prefixed(leaves[1][1]), parent=saved, sequence=3),
        key_entry(ARRAY, "RamMemoryBlock1", pointer(48, 1 << 40), parent=saved, sequence=4, flags=1),
        key_entry(ARRAY, "RamBlock0", pointer(BLOCK, block_at), parent=saved, sequence=5, flags=1),
        key_entry(ARRAY, "RamBlock0", prefixed(b"another"), parent=saved, sequence=6),
    ]
    container.key_tables = [key_table(1, entries, size=0x2000)]
    with vmsavedstate.open(container.write(tmp_path / "x.vmrs")) as state:
        assert [(item.start_page, item.page_count) for item in state.memory.chunks] == [(0, 256)]
        found = [item.message for item in state.findings]
        assert any("its memory is lost" in text for text in found)
        assert any("a second key /savedstate/RamBlock0, the first one counts" in text for text in found)
        assert state.memory.read(0, 8) == struct.pack("<Q", 0xA5A5_0000_0000)


def test_a_lost_screen_is_an_error_of_the_screen_alone(tmp_path: Path) -> None:
    extra: list[tuple[str, str, Any]] = [
        (f"{SCREEN}/State", "array", bytes(2048)),
        (f"{SCREEN}/Screen", "array", bytes(2048)),
    ]
    path = write_state(tmp_path / "x.vmrs", extra=extra)
    with vmsavedstate.open_store(path) as store:
        at = store[f"{SCREEN}/State"].value_offset
    raw = path.read_bytes().replace(struct.pack("<IQ", 2048, at), struct.pack("<IQ", 2048, 1 << 40))
    path.write_bytes(raw)
    with vmsavedstate.open(path) as state, pytest.raises(ScreenError, match="outside of the file"):
        _ = state.screen


def test_a_damaged_container_is_not_called_a_production_checkpoint(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 0x100000 - 0x2000])
    with pytest.raises(CorruptFileError, match="damaged") as caught:
        vmsavedstate.open(path)
    assert caught.value.hresult == 0x80070570
    assert "production" not in str(caught.value)


def test_impossible_levels_are_damage(tmp_path: Path) -> None:
    row = p.vp_indices([0]) + p.vp(0) + p.vp_vtl(200) + p.general(1) + p.segments(cpl=9) + p.epilog()
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=p.envelope(p.prolog() + row))) as state:
        found = [item.message for item in state.findings]
        assert any("trust level that cannot be" in text for text in found)
        assert any("privilege level that cannot be" in text for text in found)


def test_sizes_of_the_last_item(tmp_path: Path) -> None:
    stream = p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(9) + p.epilog()
    last = struct.pack("<4s4sII", b"METI", b"tSvH", 64, 5)
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=p.envelope(stream, last_item=last))) as state:
        assert ["last item" in item.message for item in state.findings] == [True]
        assert state.processors[0].registers.rax == 9


def test_a_truncated_file_is_called_truncated(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata(512)], blocks={0: bytes(BLOCK), 1: bytes(BLOCK)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFileError, match=r"truncated: . of its . objects lie behind its end"):
        vmsavedstate.open(path)


def test_a_processor_without_general_registers_is_told(tmp_path: Path) -> None:
    blob = p.envelope(p.prolog() + p.vp_indices([7]) + p.vp(7) + p.control() + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        (finding,) = state.findings
        assert "index 7 has no general registers" in finding.message


def test_ranges_that_share_stored_pages(tmp_path: Path) -> None:
    ranges = [p.metadata(256), p.metadata(128, gpa=0x1000, backing=64)]
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=ranges)) as state:
        assert ["same stored pages" in item.message for item in state.findings] == [True]
        assert state.memory.size == 384 * 4096
