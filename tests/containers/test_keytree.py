"""The tree of keys: values within their bounds, and paths."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import vmsavedstate
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
from support.states import legacy_file
from vmsavedstate.errors import (
    CorruptFileError,
    InvalidArgumentError,
)
from vmsavedstate.hvstorage import Store


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


def test_a_very_long_path_in_a_message(tmp_path: Path) -> None:
    """Both ends of it: the name at the end tells keys apart."""
    path = tmp_path / "x.vmrs"
    with vmsavedstate.StoreWriter(path) as writer:
        writer.set("/" + "/".join(f"{level:0>100}" for level in range(20)) + "/the-end", "int", 5)
    with Store.open(path) as store:
        entry = next(key for key in store.walk() if key.name == "the-end")
        assert len(entry.path) > 2000 and len(entry.shown) == 403
        assert (
            entry.shown.startswith("/" + "0" * 100) and entry.shown.endswith("/the-end") and entry.shown in repr(entry)
        )
        assert next(store.walk()).shown == next(store.walk()).path
