"""Bounds of the container: hostile tables, chains and logs cost no more than they hold."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

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
from vmsavedstate.hvstorage import Store


def peak_of_opening(path: Path) -> int:
    """Bytes Python allocated at the most while the store was opened."""
    tracemalloc.start()
    try:
        with Store.open(path):
            return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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


def test_a_huge_key_of_unknown_type_is_not_searched_byte_by_byte(tmp_path: Path) -> None:
    """Where the end of the data is not found within a page, all of the entry is the value."""
    from vmsavedstate.containers.hvstorage.key_table import MAX_SEARCH

    content = os.urandom(100_000)
    size = -(-(10 + 30 + len(content)) // 0x1000) * 0x1000 + 0x1000
    small = key_entry(18, "small", content[: MAX_SEARCH - 100], slack=b"\xee" * 50, sequence=2)
    tables = [key_table(1, [key_entry(17, "u", content)], size=size), key_table(2, [small], size=0x2000)]
    with Store.open(Container(tables).write(tmp_path / "x.vmcx"), strict=True) as store:
        assert store["/u"].read() == content
        assert store["/small"].read() == content[: MAX_SEARCH - 100]
