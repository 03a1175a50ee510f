"""Errors and findings as objects, and the corners a reviewer looked into."""

from __future__ import annotations

import copy
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support import partition as p
from support.container import (
    ARRAY,
    BOOL,
    INT,
    NODE,
    STRING,
    UINT,
    Container,
    key_entry,
    key_table,
    node_data,
    pointer,
    prefixed,
)
from support.states import BLOCK, legacy_file, numbered_pages, write_state
from vmsavedstate import CpuidLeaf, SavedStateWriter, StoreWriter, codec
from vmsavedstate.errors import (
    CodecError,
    CorruptFileError,
    GuestMemoryError,
    InvalidArgumentError,
    ScreenError,
    SourceError,
)
from vmsavedstate.findings import Severity
from vmsavedstate.hvstorage import Store

SCREEN = "/savedstate/configuration/_ba8735ef-e3a9-4f1b-badd-dbf3a5909915_/VideoMonitor"


@pytest.mark.parametrize(
    "error",
    [
        GuestMemoryError("gone", start=1, end=2, reason="hole", file="x"),
        CodecError("bad", position=3, produced=4),
        SourceError("no", file="x", offset=5, remedy="r", hresult=0x80070002),
    ],
)
def test_errors_travel_between_processes(error: vmsavedstate.VmSavedStateError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
        assert other.hresult == error.hresult


def test_values_are_read_within_their_bounds(tmp_path: Path) -> None:
    entries = [key_entry(INT, "x", struct.pack("<q", 7)), key_entry(ARRAY, "y", prefixed(b"abcdef"), sequence=2)]
    with Store.open(Container([key_table(1, entries)]).write(tmp_path / "x.vmcx")) as store:
        assert store["/y"].read(2, 3) == b"cde"
        assert store["/y"].read(6) == b""
        for start, size in ((0, 40), (-8, 8), (7, None), (0, -1), (20, None)):
            with pytest.raises(InvalidArgumentError):
                store["/y" if start != 0 or size == -1 else "/x"].read(start, size)


@pytest.mark.parametrize("size", [0, 0x1000])
def test_a_bool_of_another_size(tmp_path: Path, size: int) -> None:
    container = Container([bytes(0x1000)], [b"\1" * 0x1000])
    container.key_tables = [key_table(1, [key_entry(BOOL, "x", pointer(size, container.places()[1][0]), flags=1)])]
    with (
        Store.open(container.write(tmp_path / "x.vmcx")) as store,
        pytest.raises(CorruptFileError, match="instead of 0x4"),
    ):
        _ = store["/x"].value


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


def test_a_value_and_a_node_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "x.vsv"
    path.write_bytes(
        legacy_file({"/c/x": (2, b"\1" + bytes(7)), "/c/x/y": (2, b"\2" + bytes(7)), "/c/x/z": (2, b"\3" + bytes(7))})
    )
    with vmsavedstate.open_store(path) as store:
        assert (store["/c/x"].value, store["/c/x/y"].value, store["/c/x/z"].value) == (1, 2, 3)
        assert sum(entry.type == "node" for entry in store.walk()) == 2


def test_paths_of_same_named_siblings(tmp_path: Path) -> None:
    first = key_entry(NODE, "d", node_data(2), sequence=1)
    second = key_entry(NODE, "d", node_data(2), sequence=2)
    entries = [first, second]
    for number, at in enumerate((10, 10 + len(first)), start=1):
        entries.append(key_entry(UINT, "n", struct.pack("<Q", number), parent=(1, at)))
    entries.append(key_entry(STRING, "e[1]", prefixed(b""), sequence=3))
    with Store.open(Container([key_table(1, entries)]).write(tmp_path / "x.vmcx")) as store:
        assert [entry.value for entry in store.find_all("/d/n")] == [1, 2]
        assert [entry.value for entry in store.find_all("/d[2]/n")] == [2]
        assert store.find_all("/d[3]/n") == store.find_all("/d[0]") == store.find_all("/none") == []
        assert [store.unique_path(entry) for entry in store.walk()] == ["/d[1]", "/d[1]/n", "/d[2]", "/d[2]/n", "/e[1]"]
        for entry in store.walk():
            assert store.find_all(store.unique_path(entry)) == [entry]


def test_gaps(tmp_path: Path) -> None:
    ranges = [p.metadata(512), p.metadata(256, gpa=0x300, backing=512)]
    bad = codec.active().encode_block(numbered_pages(256))[:3000]
    path = write_state(tmp_path / "x.vmrs", ranges=ranges, blocks={0: numbered_pages(0), 1: bad})
    with vmsavedstate.open(path) as state:
        gaps = list(state.memory.gaps(0, 0x500000))
        assert [gap.reason for gap in gaps] == ["damaged", "hole", "missing", "hole"]
        assert gaps[0].start > 0x100000
        assert [(gap.start, gap.end) for gap in gaps[1:]] == [
            (0x200000, 0x300000),
            (0x300000, 0x400000),
            (0x400000, 0x500000),
        ]
        assert gaps[0].end == 0x200000
        assert list(state.memory.gaps(0, 0x100000)) == []
        with pytest.raises(GuestMemoryError):
            state.memory.read(gaps[0].start, 1)
        assert state.memory.read(gaps[0].start - 1, 1)


def test_addresses_end_with_64_bits(tmp_path: Path) -> None:
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs")) as state:
        assert state.memory.read((1 << 64) - 2, 2, fill=1) == b"\1\1"
        for gpa, size in (((1 << 64) - 1, 2), (1 << 64, 1)):
            with pytest.raises(InvalidArgumentError, match="address space"):
                state.memory.read(gpa, size, fill=0)
        with pytest.raises(InvalidArgumentError):
            state.memory.pages([1.5])  # type: ignore[list-item]


def test_damage_at_the_end_of_a_block_is_seen_also_after_a_read(tmp_path: Path) -> None:
    """The tokens make 1 MiB, and then comes one more instead of END."""
    stream = codec.active().encode_block(numbered_pages(0))[:-4] + struct.pack("<I", 0xFFFFFFFE) + bytes(8)
    for first in (None, 0, BLOCK - 4096, BLOCK - 70_000):
        with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blocks={0: stream})) as state:
            if first is not None:
                state.memory.read(first, 4096)
            state.check_memory()
            assert [item.severity for item in state.findings] == [Severity.DAMAGE], first


@pytest.mark.parametrize(
    "options",
    [
        {"vm_version": 1 << 70}, {"vm_version": 0x100}, {"vendor": 1 << 40}, {"guest_os_ids": {300: 1}},
        {"guest_os_ids": {0: 1 << 64}}, {"cpuid": [CpuidLeaf(0, 0, 1 << 33, 0, 0, 0)]}, {"saved_state_type": 5},
        {"cpuid": [CpuidLeaf(0, 0, 0, 0, 0, 0)] * 500},
    ],
)  # fmt: skip
def test_inputs_the_writer_refuses(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        SavedStateWriter(tmp_path / "x.vmrs", **options)
    assert list(tmp_path.iterdir()) == []


def test_more_inputs_the_writers_refuse(tmp_path: Path) -> None:
    with SavedStateWriter(tmp_path / "x.vmrs") as writer:
        with pytest.raises(InvalidArgumentError):
            writer.add_memory(0, 4096, lambda offset, size: bytes(size), node=-1)
        writer.abort()
    with StoreWriter(tmp_path / "y.vmcx") as store:
        for name, kind, value in (("\ud800", "int", 1), ("b", "bool", "false"), ("b", "bool", 2)):
            with pytest.raises(InvalidArgumentError):
                store.set(name, kind, value)
        store.set("a", "bool", True)
        store.close()
        store.close()
        store.abort()
    assert [item.name for item in tmp_path.iterdir()] == ["y.vmcx"]


@pytest.mark.parametrize("size", [-1, 1 << 62, (64 << 20) + 1])
def test_absurd_output_sizes(size: int) -> None:
    with pytest.raises(InvalidArgumentError):
        codec.xpress_decode(b"", size)


def test_a_damaged_container_is_not_called_a_production_checkpoint(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 0x100000 - 0x2000])
    with pytest.raises(CorruptFileError, match="damaged") as caught:
        vmsavedstate.open(path)
    assert caught.value.hresult == 0x80070570
    assert "production" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "packer"), [(b"\xfd7zXZ\0", "xz"), (b"PK\3\4", "zip"), (b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2")]
)
def test_packed_files(tmp_path: Path, first: bytes, packer: str) -> None:
    path = tmp_path / "x.vmrs"
    path.write_bytes(first + bytes(100))
    with pytest.raises(vmsavedstate.FormatError, match=f"packed with {packer}: unpack it first"):
        vmsavedstate.open(path)


def test_a_vmrs_takes_no_companion(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    with pytest.raises(InvalidArgumentError, match="no companion"):
        vmsavedstate.open(path, companion=path)


def test_a_bin_whose_second_page_looks_like_the_other_container(tmp_path: Path) -> None:
    block = struct.pack("<I", 0x01282014) + numbered_pages(0)[4:]
    (tmp_path / "x.bin").write_bytes(legacy_file({"RamBlock/0/": (1, block)}))
    state = {"/savedVM/partition_state": (1, p.simple_blob()), "RamMemoryBlock/0/": (1, p.metadata(256))}
    (tmp_path / "x.vsv").write_bytes(legacy_file(state))
    with vmsavedstate.open(tmp_path / "x.bin") as opened:
        assert opened.memory.read(0, 4) == struct.pack("<I", 0x01282014)


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


def test_strict_batches_raise_for_lost_pages(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata(512)], blocks={0: numbered_pages(0)})
    with vmsavedstate.open(path, strict=True) as state:
        assert state.memory.pages([5, 0x1000])[1].tolist() == [True, False], "a hole is no damage"
        with pytest.raises(GuestMemoryError, match="0x100000"):
            state.memory.pages([5, 256, 300])


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


def test_gaps_are_merged_and_cut_to_what_was_asked(tmp_path: Path) -> None:
    bad = b"\xff\xff\xff\xff"
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata(768)], blocks={0: numbered_pages(0), 1: bad, 2: bad})
    with vmsavedstate.open(path) as state:
        assert [tuple(gap) for gap in state.memory.gaps(0, 3 * BLOCK)] == [(BLOCK, 3 * BLOCK, "damaged")]
        inside = state.memory.gaps(BLOCK + 0x2345, BLOCK)
        assert [tuple(gap) for gap in inside] == [(BLOCK + 0x2345, 2 * BLOCK + 0x2345, "damaged")]
