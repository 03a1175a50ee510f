"""The legacy container and the pair of files (format specification, section 8)."""

from __future__ import annotations

import shutil
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmsavedstate
from support.partition import metadata, simple_blob
from support.states import legacy_file, legacy_pair, numbered_pages
from vmsavedstate.errors import CompanionError, CorruptFileError, FormatError, SourceError, VmSavedStateError


@pytest.mark.parametrize("which", [0, 1])
def test_opens_from_either_file(tmp_path: Path, which: int) -> None:
    pair = legacy_pair(tmp_path, blocks=2)
    with vmsavedstate.open(pair[which], strict=True) as state:
        assert state.format == "bin+vsv"
        assert set(state.files) == {str(path) for path in pair}
        assert state.vm_version == 0x0500
        assert state.writer_version == "6.3.9600"
        assert state.processors[0].registers.rcx == 2
        assert state.memory.size == 2 << 20
        assert state.memory.read(0x101000, 8) == struct.pack("<Q", 0xA5A5_0000_0101)
        assert state.findings == ()


def test_companion_elsewhere(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    moved = tmp_path / "other"
    moved.mkdir()
    renamed = Path(shutil.move(vsv_path, moved / "state.data"))
    with vmsavedstate.open(bin_path, companion=renamed, strict=True) as state:
        assert state.memory.size == 1 << 20
    with vmsavedstate.open(renamed, companion=bin_path, strict=True) as state:
        assert state.memory.size == 1 << 20


def test_capital_extensions(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    upper = [path.rename(path.with_suffix(path.suffix.upper())) for path in (bin_path, vsv_path)]
    for path in upper:
        with vmsavedstate.open(path, strict=True) as state:
            assert state.memory.size == 1 << 20


@pytest.mark.parametrize("which", [0, 1])
def test_missing_companion(tmp_path: Path, which: int) -> None:
    pair = legacy_pair(tmp_path)
    pair[1 - which].unlink()
    with pytest.raises(CompanionError, match="other half") as caught:
        vmsavedstate.open(pair[which])
    assert str(pair[1 - which]) in str(caught.value), "it says where it looked"
    assert caught.value.remedy


def test_missing_companion_that_was_named(tmp_path: Path) -> None:
    bin_path, _ = legacy_pair(tmp_path)
    with pytest.raises(SourceError) as caught:
        vmsavedstate.open(bin_path, companion=tmp_path / "none.vsv")
    assert caught.value.hresult == 0x80070002


def test_foreign_companions(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path, blocks=1)
    other_bin, other_vsv = legacy_pair(tmp_path, blocks=3, name="larger")
    with pytest.raises(CompanionError, match=r"do not belong together.*needs 3 memory blocks, there are 1"):
        vmsavedstate.open(bin_path, companion=other_vsv)
    with pytest.raises(CompanionError, match="do not belong together"):
        vmsavedstate.open(other_bin, companion=vsv_path)
    with pytest.raises(CompanionError, match="no saved state"):
        vmsavedstate.open(bin_path, companion=other_bin)
    with pytest.raises(CompanionError, match="no memory"):
        vmsavedstate.open(vsv_path, companion=other_vsv)
    with pytest.raises(CompanionError, match="own companion"):
        vmsavedstate.open(bin_path, companion=bin_path)


def test_companion_of_another_version(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    raw = bytearray(vsv_path.read_bytes())
    struct.pack_into("<I", raw, 4, 0x0400)
    vsv_path.write_bytes(raw)
    with pytest.raises(CompanionError, match="versions differ"):
        vmsavedstate.open(bin_path)


def test_companion_that_is_no_such_file(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    vsv_path.write_bytes(b"not one of these")
    with pytest.raises(CompanionError, match=r"not a \.bin or \.vsv"):
        vmsavedstate.open(bin_path)


@pytest.mark.parametrize("content", [b"\0" * 5000, b"MZ" * 3000])
def test_older_bin_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "old.bin"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="Server 2008") as caught:
        vmsavedstate.open(path)
    assert caught.value.offset == 0


def test_values_of_every_kind(tmp_path: Path) -> None:
    _, vsv_path = legacy_pair(tmp_path)
    with vmsavedstate.open_store(vsv_path) as store:
        assert store["/savedVM/topology/low_mmio_gap_mb"].value == 128
        assert store["/configuration/flag"].value is True
        assert store["/configuration/tiny"].value == b"\1\0\2\0"
        assert store["/configuration/empty"].value == b""
        assert store["/savedstate/VmwpVersion"].value == "6.3.9600"
        assert store["/RamMemoryBlock/0"].value == metadata(256)
        assert not store["/configuration/tiny"].external
        assert store["/RamMemoryBlock/0"].external
        assert store.findings == ()
        assert {entry.type for entry in store.walk()} == {"array", "uint", "bool", "string", "node"}


def test_a_modern_version_in_this_container_is_only_its_number(tmp_path: Path) -> None:
    path = tmp_path / "x.vsv"
    path.write_bytes(legacy_file({"/savedVM/partition_state": (1, simple_blob())}, version=0x0500))
    (tmp_path / "x.bin").write_bytes(legacy_file({"RamBlock/0/": (1, numbered_pages(0))}))
    with pytest.raises(VmSavedStateError, match="no guest memory"):  # there is no metadata
        vmsavedstate.open(path)


@pytest.mark.parametrize("length", [4, 39, 40, 0x1000, 0x1010])
def test_truncated(tmp_path: Path, length: int) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    vsv_path.write_bytes(vsv_path.read_bytes()[:length])
    with pytest.raises((CorruptFileError, CompanionError)) as caught:
        vmsavedstate.open(bin_path)
    assert "vm.vsv" in str(caught.value)


@given(st.data())
@settings(max_examples=150)
def test_any_damage(tmp_path: Path, data: st.DataObject) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    victim = data.draw(st.sampled_from([bin_path, vsv_path]))
    raw = bytearray(victim.read_bytes())
    index_at = struct.unpack_from("<Q", raw, 16)[0]
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, 40) | st.integers(index_at, index_at + 200) | st.integers(0, len(raw) - 1))
        raw[at % len(raw)] = data.draw(st.integers(0, 255))
    victim.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    for strict in (True, False):
        with suppress(VmSavedStateError), vmsavedstate.open(bin_path, strict=strict) as state:
            state.memory.read(0, state.memory.size and 4096, fill=0)
            state.check_memory()
            assert state.store is not None
            for entry in state.store.walk():
                with suppress(VmSavedStateError):
                    _ = entry.value
