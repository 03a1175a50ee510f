"""Hostile files cost no more than honest ones of their size: work is counted, never timed."""

from __future__ import annotations

import os
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmsavedstate
from support import partition as p
from support.command import vmrs
from support.container import (
    INT,
    KEY_TABLE,
    NODE,
    OBJECT_TABLE,
    Container,
    key_entry,
    key_table,
    node_data,
    object_entry,
    object_table,
    replay_log,
    small_tree,
)
from support.states import legacy_file, write_state
from vmsavedstate.errors import CompanionError, VmSavedStateError
from vmsavedstate.hvstorage import Store
from vmsavedstate.intervals import Coverage


def peak_of_opening(path: Path) -> int:
    """Bytes Python allocated at the most while the store was opened."""
    tracemalloc.start()
    try:
        with Store.open(path):
            return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=20))
def test_coverage_against_a_set(spans: list[tuple[int, int]]) -> None:
    covered, expected = Coverage(), set[int]()
    for start, size in spans:
        free = covered.add(start, start + size)
        assert [number for low, high in free for number in range(low, high)] == sorted(
            set(range(start, start + size)) - expected
        )
        expected |= set(range(start, start + size))
    assert [number for low, high in covered.spans() for number in range(low, high)] == sorted(expected)
    assert all(before[1] < after[0] for before, after in zip(covered.spans(), covered.spans()[1:], strict=False))


def test_no_byte_counts_for_two_key_tables(tmp_path: Path) -> None:
    """225 entries name the same large table: it is read once."""
    container = Container([key_table(1, small_tree(), size=0x40000)])
    container.object_entries = [object_entry(KEY_TABLE, 0x3000, 0x40000)] * 225
    path = container.write(tmp_path / "x.vmrs")
    assert peak_of_opening(path) < 4 << 20
    with Store.open(path) as store:
        assert store["/int"].value == -5
        assert any("overlaps another one" in item.message for item in store.findings)


def test_a_large_wrong_size_hides_no_table(tmp_path: Path) -> None:
    first = key_table(1, [key_entry(INT, "a", struct.pack("<q", 1))])
    second = key_table(2, [key_entry(INT, "b", struct.pack("<q", 2))])
    container = Container([first, second])
    container.object_entries = [object_entry(KEY_TABLE, 0x3000, 0x7FFFF000), object_entry(KEY_TABLE, 0x4000, 0x1000)]
    with Store.open(container.write(tmp_path / "x.vmrs")) as store:
        assert sorted(entry.name for entry in store.walk()) == ["a", "b"]


def test_replay_payloads_together_are_no_larger_than_the_file(tmp_path: Path) -> None:
    payload = b"x" * 0x8000
    log = bytearray(replay_log([(0x3000, payload)] * 40))
    for number in range(40):  # all of them point at the first payload
        at = 34 + 28 * number
        struct.pack_into("<Q", log, at + 12, 0x1000)
        struct.pack_into("<I", log, at + 20, 0)
        import zlib

        struct.pack_into("<I", log, at + 20, zlib.crc32(log[at : at + 28]))
    path = Container([key_table(1, small_tree())], log=bytes(log[: 0x1000 + 0x8000])).write(tmp_path / "x.vmrs")
    with Store.open(path) as store:
        assert any("larger than the file" in item.message for item in store.findings)
        assert store["/int"].value == -5


def test_a_huge_list_of_processors(tmp_path: Path) -> None:
    listed = p.chunk(0x30000000, bytes(4) + b"\1" + bytes(1 << 20) + b"\1")
    blob = p.envelope(p.prolog() + listed + p.vp(0) + p.general(1) + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert any("list of processors goes beyond" in item.message for item in state.findings)
        assert len(state.processors) == 1


def test_a_processor_of_an_absurd_number(tmp_path: Path) -> None:
    row = p.vp_indices([0]) + p.vp(0) + p.general(1) + p.vp(0xFFFFFFFF) + p.general(2) + p.epilog()
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=p.envelope(p.prolog() + row))) as state:
        assert [vp.index for vp in state.processors] == [0]
        assert any("absurd number" in item.message for item in state.findings)


def test_many_unknown_chunks_of_one_id_are_one_note(tmp_path: Path) -> None:
    unknown = b"".join(p.chunk(0x2FFFFFF0, bytes([number])) for number in range(200))
    blob = p.envelope(p.prolog() + unknown + p.vp_indices([0]) + p.vp(0) + p.general(1) + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert len(state.findings) == 1
        assert sum(item.name == "unknown" for item in state.chunks) == 200


def test_many_unreachable_nodes(tmp_path: Path) -> None:
    size = len(key_entry(NODE, "n0000", node_data()))
    count = 2000
    places = [10 + size * ((number + 1) % count) for number in range(count)]
    ring = [key_entry(NODE, f"n{number:04}", node_data(2), parent=(1, at)) for number, at in enumerate(places)]
    table = key_table(1, ring, size=-(-(10 + size * count + 22) // 0x1000) * 0x1000)
    with Store.open(Container([table]).write(tmp_path / "x.vmrs")) as store:
        assert sum(1 for _ in store.walk()) == count
        assert len(store.findings) == count


def test_a_chain_that_names_itself_many_times_is_told_once(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    loops = [object_entry(OBJECT_TABLE, 0x2000, 0x1000)] * 200
    container.first_table = object_table([*container.default_entries(), *loops])
    with Store.open(container.write(tmp_path / "x.vmrs")) as store:
        assert sum("loop" in item.message for item in store.findings) == 1


def test_one_wrong_size_is_one_overlap(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())], [b"x" * 0x1000] * 100)
    entries = container.default_entries()
    first = container.places()[1][0]
    entries[2] = object_entry(3, first, 0x40000)
    container.object_entries = entries
    with Store.open(container.write(tmp_path / "x.vmrs")) as store:
        assert [item.message for item in store.findings if "overlap" in item.message] == [
            f"object up to {first + 0x40000:#x} overlaps 63 objects behind it"
        ]


def test_legacy_names_are_bounded(tmp_path: Path) -> None:
    values: dict[str, tuple[int, bytes]] = {
        "/a" * 3000: (2, bytes(8)),
        "/deep" * 300: (2, bytes(8)),
        "/fine": (2, b"\7" + bytes(7)),
    }
    path = tmp_path / "x.vsv"
    path.write_bytes(legacy_file(values))
    with vmsavedstate.open_store(path) as store:
        depths = []
        for entry in store.walk():
            above, depth = entry.parent, 1
            while above is not None:
                above, depth = above.parent, depth + 1
            depths.append(depth)
        assert max(depths) == 256
        assert store["/fine"].value == 7
        assert any("absurdly long" in item.message for item in store.findings)


def test_block_numbers_beyond_any_memory(tmp_path: Path) -> None:
    """int() refuses more than 4,300 digits; nobody may see that."""
    values = {f"RamBlock/{'9' * 5000}/": (1, b"x" * 20), "RamBlock/0/": (1, bytes(0x100000))}
    (tmp_path / "x.bin").write_bytes(legacy_file(values))
    state = {"/savedVM/partition_state": (1, p.simple_blob()), "RamMemoryBlock/0/": (1, p.metadata(256))}
    (tmp_path / "x.vsv").write_bytes(legacy_file(state))
    with vmsavedstate.open(tmp_path / "x.bin") as opened:
        assert opened.memory.read(0, 1) == b"\0"


def test_verify_of_an_absurd_page_count(tmp_path: Path) -> None:
    """2**44 blocks are claimed and one is there: what is missing is one range, found in one step."""
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata((1 << 52) - 1)])
    answer = vmrs("verify", path, "--json")
    assert answer.code == 1
    assert answer.json["unreadable"] == [{"start": "0x100000", "size": (1 << 64) - 0x101000, "reason": "missing"}]


def test_many_ranges_over_the_same_blocks(tmp_path: Path) -> None:
    ranges = [p.metadata(1 << 40, gpa=number << 41, backing=0) for number in range(200)]
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=ranges)) as state:
        missing = [item for item in state.findings if "are missing" in item.message]
        assert len(missing) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX descriptors")
def test_a_read_during_close_never_returns_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor's number may belong to another file by the time the read reaches the kernel."""
    path, other = write_state(tmp_path / "x.vmrs"), tmp_path / "other"
    other.write_bytes(b"B" * (8 << 20))
    state = vmsavedstate.open(path)
    real, taken = os.pread, list[int]()

    def slow(fd: int, size: int, offset: int) -> bytes:
        if not taken:  # the owner closes, and somebody opens a file, while this read is on its way
            state.close()
            taken.append(os.open(other, os.O_RDONLY))
            assert taken[0] == fd
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", slow)
    with pytest.raises(VmSavedStateError, match="closed"):
        state.memory.read(0, 16)
    os.close(taken[0])


def test_one_wrong_metadata_value_does_not_part_a_pair(tmp_path: Path) -> None:
    from support.states import legacy_pair

    bin_path, vsv_path = legacy_pair(tmp_path)
    content = {
        "/savedVM/partition_state": (1, p.simple_blob()),
        "RamMemoryBlock/0/": (1, p.metadata(256)),
        "RamMemoryBlock/1/": (1, p.metadata(1 << 60)),
    }
    vsv_path.write_bytes(legacy_file(content))
    with vmsavedstate.open(bin_path) as state:
        assert state.findings
    content["RamMemoryBlock/1/"] = (1, p.metadata(256, gpa=0x1000, backing=256))
    vsv_path.write_bytes(legacy_file(content))
    with pytest.raises(CompanionError, match="needs 2 memory blocks"):
        vmsavedstate.open(bin_path)


def test_zeros_instead_of_an_epilog_are_not_walked(tmp_path: Path) -> None:
    """Sixteen zero bytes read as an empty Prolog: 4 MiB of them would be 262,144 findings."""
    blob = p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(1) + bytes(4 << 20))
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert ["second Prolog" in item.message for item in state.findings] == [True]
        assert state.processors[0].registers.rax == 1


def test_the_number_of_chunks_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmsavedstate.formats.hyperv import chunks

    monkeypatch.setattr(chunks, "MAX_CHUNKS", 50)
    blob = p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(1) + p.chunk(0x2BADBAD0) * 100 + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert len(state.chunks) == 50
        assert any("too many chunks" in item.message for item in state.findings)


def test_a_huge_key_of_unknown_type_is_not_searched_byte_by_byte(tmp_path: Path) -> None:
    """Where the end of the data is not found within a page, all of the entry is the value."""
    from vmsavedstate.hvstorage.key_table import MAX_SEARCH

    content = os.urandom(100_000)
    size = -(-(10 + 30 + len(content)) // 0x1000) * 0x1000 + 0x1000
    small = key_entry(18, "small", content[: MAX_SEARCH - 100], slack=b"\xee" * 50, sequence=2)
    tables = [key_table(1, [key_entry(17, "u", content)], size=size), key_table(2, [small], size=0x2000)]
    with Store.open(Container(tables).write(tmp_path / "x.vmcx"), strict=True) as store:
        assert store["/u"].read() == content
        assert store["/small"].read() == content[: MAX_SEARCH - 100]
