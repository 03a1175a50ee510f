"""Values, order and shape of the key tree (format specification, 2.6 to 2.10)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

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
    small_tree,
)
from vmsavedstate.errors import CorruptFileError, KeyNotFoundError
from vmsavedstate.findings import Severity
from vmsavedstate.hvstorage import Store


def opened(tmp_path: Path, container: Container, *, strict: bool = False) -> Store:
    return Store.open(container.write(tmp_path / "file.vmrs"), strict=strict)


def messages(store: Store) -> list[str]:
    return [item.message for item in store.findings]


def test_every_type_of_value(tmp_path: Path) -> None:
    with opened(tmp_path, Container([key_table(1, small_tree())]), strict=True) as store:
        assert store.findings == ()
        values = {entry.path: (entry.type, entry.value) for entry in store.walk()}
    assert values == {
        "/int": ("int", -5),
        "/uint": ("uint", 1 << 63),
        "/double": ("double", 1.5),
        "/string": ("string", "häh"),
        "/terminated": ("string", "a"),
        "/array": ("array", b"\1\2\3"),
        "/bool": ("bool", True),
        "/node": ("node", None),
        "/node/child": ("int", 7),
    }


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 4096, 5000])
def test_external_and_inline_arrays(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * 20
    container = Container([b""], [content[:size]])
    if size >= 2048:
        container.key_tables = [bytes(0x1000)]
        (at,) = container.places()[1]
        entry = key_entry(ARRAY, "value", pointer(size, at), flags=1)
    else:
        container.file_objects = []
        entry = key_entry(ARRAY, "value", prefixed(content[:size]))
    container.key_tables = [key_table(1, [entry])]
    with opened(tmp_path, container, strict=True) as store:
        key = store["/value"]
        assert key.value == content[:size]
        assert key.external == (size >= 2048)
        assert key.read(1, 3) == content[1:4] if size > 4 else True


def test_external_string(tmp_path: Path) -> None:
    text = "x" * 3000
    container = Container([bytes(0x1000)], [text.encode("utf-16-le")])
    entry = key_entry(STRING, "text", pointer(6000, container.places()[1][0]), flags=1)
    container.key_tables = [key_table(1, [entry])]
    with opened(tmp_path, container, strict=True) as store:
        assert store["/text"].value == text


def test_parents_may_stand_behind_their_children_and_in_later_tables(tmp_path: Path) -> None:
    """Trap 1: in file order child, grandchild, then the nodes; the tables' indexes run backwards."""
    deep = key_entry(INT, "leaf", struct.pack("<q", 1), parent=(5, 10))
    node = key_entry(NODE, "inner", node_data(2), parent=(3, 10))
    outer = key_entry(NODE, "outer", node_data(2))
    tables = [key_table(9, [deep]), key_table(5, [node]), key_table(3, [outer])]
    with opened(tmp_path, Container(tables), strict=True) as store:
        assert [entry.path for entry in store.walk()] == ["/outer", "/outer/inner", "/outer/inner/leaf"]


def test_same_named_siblings_are_kept_apart(tmp_path: Path) -> None:
    first = key_entry(NODE, "device", node_data(2), sequence=4)
    second = key_entry(NODE, "device", node_data(2), sequence=2)
    at = 10 + len(first)
    children = [
        key_entry(INT, "number", struct.pack("<q", 4), parent=(1, 10)),
        key_entry(INT, "number", struct.pack("<q", 2), parent=(1, at)),
    ]
    with opened(tmp_path, Container([key_table(1, [first, second, *children])]), strict=True) as store:
        assert [entry.children[0].value for entry in store.roots] == [2, 4], "order is by insertion sequence"
        assert store["/device/number"].value == 2, "of same-named siblings the first"
        assert len(list(store.walk())) == 4


def test_missing_key_and_other_case(tmp_path: Path) -> None:
    with opened(tmp_path, Container([key_table(1, small_tree())])) as store:
        assert store["/NODE/Child"].value == 7
        assert "ignor" in messages(store)[0] or "case" in messages(store)[0]
        assert "/node/none" not in store
        with pytest.raises(KeyNotFoundError, match="/node/none"):
            store["/node/none"]


def test_free_entries_and_slack_are_skipped(tmp_path: Path) -> None:
    """Trap 3: the filler of ``key_table`` is a free entry full of garbage, ``small_tree`` has slack."""
    with opened(tmp_path, Container([key_table(1, small_tree())]), strict=True) as store:
        assert len(list(store.walk())) == 9


def test_free_entry_with_a_checksum_may_have_been_a_key(tmp_path: Path) -> None:
    with opened(tmp_path, Container([key_table(1, small_tree(), free_crc=5)])) as store:
        assert any("free key entry" in text for text in messages(store))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (key_entry(INT, "x", struct.pack("<q", 1), crc=1), "wrong checksum"),
        (key_entry(INT, "x", struct.pack("<q", 1), size=20), "leaves its table"),
        (key_entry(INT, "x", struct.pack("<q", 1), size=5000), "leaves its table"),
        (key_entry(INT, "x", b"\0" * 3), "longer than its entry"),
        (key_entry(STRING, "x", struct.pack("<I", 9000)), "longer than its entry"),
        (key_entry(INT, "x", struct.pack("<q", 1), parent=(1, 99)), "is not a node"),
        (key_entry(INT, "x", struct.pack("<q", 1), parent=(44, 10)), "is not a node"),
        (key_entry(ARRAY, "x", pointer(4096, 0x700000), flags=1), "outside of the file"),
        (key_entry(ARRAY, "x", pointer(4096, 0x2000), flags=1), "not a file object"),
    ],
)
def test_a_faulty_entry_is_a_finding_and_its_neighbours_stay(tmp_path: Path, entry: bytes, expected: str) -> None:
    good = key_entry(INT, "good", struct.pack("<q", 42), sequence=2)
    with opened(tmp_path, Container([key_table(1, [good, entry])])) as store:
        assert any(expected in text for text in messages(store)), messages(store)
        assert all(item.severity is Severity.DAMAGE for item in store.findings)
        assert store["/good"].value == 42


def test_keys_without_a_parent_are_listed_last(tmp_path: Path) -> None:
    entry = key_entry(INT, "lost", struct.pack("<q", 1), parent=(9, 10))
    with opened(tmp_path, Container([key_table(1, [*small_tree(), entry])])) as store:
        assert [item.name for item in store.walk()][-1] == "lost"
        assert [item.name for item in store.orphans] == ["lost"]


def test_a_pointer_outside_of_the_file_fails_only_when_it_is_read(tmp_path: Path) -> None:
    entry = key_entry(ARRAY, "x", pointer(4096, 0x700000), flags=1)
    container = Container([key_table(1, [*small_tree(), entry])])
    with opened(tmp_path, container, strict=True) as store, pytest.raises(CorruptFileError, match="lies outside"):
        store["/x"].read()


def test_nodes_in_a_ring_end_the_walk(tmp_path: Path) -> None:
    size = len(key_entry(NODE, "a", node_data()))
    ring = [
        key_entry(NODE, "a", node_data(2), parent=(1, 10 + size)),
        key_entry(NODE, "b", node_data(2), parent=(1, 10)),
    ]
    with opened(tmp_path, Container([key_table(1, ring)])) as store:
        assert sorted(entry.name for entry in store.walk()) == ["a", "b"]
        assert any("ring" in text for text in messages(store))


def test_a_node_that_is_its_own_parent(tmp_path: Path) -> None:
    with opened(tmp_path, Container([key_table(1, [key_entry(NODE, "a", node_data(2), parent=(1, 10))])])) as store:
        assert [entry.name for entry in store.walk()] == ["a"]
        assert store.findings


@pytest.mark.parametrize(("depth", "sound"), [(41, True), (250, True), (400, False)])
def test_depth_is_bounded(tmp_path: Path, depth: int, sound: bool) -> None:
    tables = []
    for level in range(depth):
        parent = (0, 0) if level == 0 else (level, 10)
        tables.append(key_table(level + 1, [key_entry(NODE, f"n{level}", node_data(2), parent=parent)], size=0x1000))
    container = Container(tables)
    entries = container.default_entries()
    container.object_entries = entries[:225]
    if len(entries) > 225:  # a chain for the rest
        from support.container import OBJECT_TABLE, object_entry, object_table

        _, _, log_at = container.places()
        more = object_table(entries[225:], size=0x2000)
        container.file_objects = [more]
        container.first_table = object_table(entries[:225], chain=object_entry(OBJECT_TABLE, log_at, 0x2000))
    with opened(tmp_path, container) as store:
        assert len(list(store.walk())) == depth
        assert (store.findings == ()) == sound, messages(store)[:3]


def test_two_tables_of_one_index_the_newer_wins(tmp_path: Path) -> None:
    old = key_table(1, [key_entry(INT, "x", struct.pack("<q", 1))], sequence=7)
    new = key_table(1, [key_entry(INT, "x", struct.pack("<q", 2))], sequence=8)
    for tables in ([old, new], [new, old]):
        with opened(tmp_path, Container(tables)) as store:
            assert [entry.value for entry in store.walk()] == [2]
            assert any("one index" in text for text in messages(store))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (key_table(1, small_tree(), crc=5), "key table header: wrong checksum"),
        (key_table(1, small_tree(), signature=3), "key table signature"),
        (key_table(0, small_tree()), "index 0"),
    ],
)
def test_faulty_key_table(tmp_path: Path, table: bytes, expected: str) -> None:
    sound = key_table(2, [key_entry(UINT, "good", struct.pack("<Q", 3))])
    with opened(tmp_path, Container([table, sound])) as store:
        assert any(expected in text for text in messages(store)), messages(store)
        assert store["/good"].value == 3


def test_strict_mode_refuses_what_is_a_finding(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree(), crc=5)])
    with pytest.raises(CorruptFileError, match="wrong checksum"):
        opened(tmp_path, container, strict=True)


def test_unknown_type_is_kept(tmp_path: Path) -> None:
    entries = [key_entry(17, "strange", b"\1\2\3\4\5", slack=b"\xee" * 9), *small_tree()[:3]]
    with opened(tmp_path, Container([key_table(1, entries)]), strict=True) as store:
        entry = store["/strange"]
        assert (entry.type, entry.value, entry.read()) == ("unknown(17)", None, b"\1\2\3\4\5")
        assert [item.severity for item in store.findings] == [Severity.NOTE]


def test_names_that_are_not_utf8_and_without_nul(tmp_path: Path) -> None:
    entries = [
        key_entry(INT, b"\xff\xfe", struct.pack("<q", 1)),
        key_entry(INT, "bare", struct.pack("<q", 2), nul=False, sequence=2),
    ]
    with opened(tmp_path, Container([key_table(1, entries)]), strict=True) as store:
        assert [entry.name for entry in store.walk()] == ["\udcff\udcfe", "bare"]


def test_odd_values(tmp_path: Path) -> None:
    entries = [
        key_entry(STRING, "odd", prefixed(b"a\0b")),
        key_entry(BOOL, "seven", struct.pack("<i", 7), sequence=2),
        key_entry(STRING, "surrogate", prefixed(b"\x00\xd8"), sequence=3),
    ]
    with opened(tmp_path, Container([key_table(1, entries)])) as store:
        assert store["/odd"].value == "a"
        assert store["/seven"].value is True
        assert store["/surrogate"].value == "\ud800"
        assert len(store.findings) == 2
