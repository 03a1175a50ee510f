"""The container writer: what it writes reads back, obeys section 9, and an independent reader agrees key for key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.structure_check import StructureCheck
from vmsavedstate import StoreWriter
from vmsavedstate.errors import InvalidArgumentError, SourceError
from vmsavedstate.hvstorage import Store

VALUES: list[tuple[str, str, Any]] = [
    ("/a/int", "int", -(1 << 63)),
    ("/a/uint", "uint", (1 << 64) - 1),
    ("/a/double", "double", -0.5),
    ("/a/yes", "bool", True),
    ("/a/no", "bool", False),
    ("/a/text", "string", "Grüße 🌍"),
    ("/a/empty", "string", ""),
    ("/a/long text", "string", "x" * 5000),
    ("/b/c/d/e/none", "array", b""),
    ("/b/c/some", "array", bytes(range(200))),
    ("/b/c/limit", "array", bytes(2047)),
    ("/b/c/file object", "array", b"y" * 2048),
    ("/b/c/large", "array", os.urandom(100_000)),
    ("/top", "int", 1),
]


def write(path: Path, values: list[tuple[str, str, Any]]) -> Path:
    with StoreWriter(path, overwrite=True) as writer:
        for key, kind, value in values:
            writer.set(key, kind, value)
    return path


def test_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vmrs", VALUES)
    with Store.open(path, strict=True) as store:
        assert {entry.path: (entry.type, entry.value) for entry in store.walk() if entry.type != "node"} == {
            key: (kind, value) for key, kind, value in VALUES
        }
        assert store.findings == ()
        assert [entry.name for entry in store["/a"].children][:3] == ["int", "uint", "double"], "order is kept"


def test_independent_structure_check(tmp_path: Path) -> None:
    check = StructureCheck(write(tmp_path / "x.vmrs", VALUES).read_bytes())
    assert check.problems == []
    assert check.values["/b/c/some"] == (7, bytes(range(200)))


@pytest.mark.parametrize("count", [0, 1, 150, 226, 227, 3000])
def test_many_keys_and_objects(tmp_path: Path, count: int) -> None:
    """Beyond 226 objects the object tables chain; the structure check has its own reading of that."""
    values = [
        (f"/n/{number}", "array", number.to_bytes(2, "little") * (1500 if number % 2 else 3)) for number in range(count)
    ]
    path = write(tmp_path / "x.vmrs", values)
    check = StructureCheck(path.read_bytes())
    assert check.problems == []
    assert {key: value for key, (kind, value) in check.values.items() if kind == 7} == {
        key: value for key, _, value in values
    }
    with Store.open(path, strict=True) as store:
        assert sum(entry.type == "array" for entry in store.walk()) == count


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
leaves = st.one_of(
    st.tuples(st.just("int"), st.integers(-(1 << 63), (1 << 63) - 1)),
    st.tuples(st.just("string"), st.text(max_size=1500).filter(lambda text: not text.endswith("\0"))),
    st.tuples(st.just("array"), st.binary(max_size=3000)),
    st.tuples(st.just("bool"), st.booleans()),
)


@given(st.dictionaries(names, st.dictionaries(names, leaves, max_size=12), max_size=6))
def test_any_tree_round_trips(tmp_path: Path, tree: dict[str, dict[str, tuple[str, Any]]]) -> None:
    values = [(f"/{node}/{name}", kind, value) for node, below in tree.items() for name, (kind, value) in below.items()]
    path = write(tmp_path / "x.vmrs", values)
    assert StructureCheck(path.read_bytes()).problems == []
    with Store.open(path, strict=True) as store:
        assert {entry.path: (entry.type, entry.value) for entry in store.walk() if entry.type != "node"} == {
            key: (kind, value) for key, kind, value in values
        }


@pytest.mark.peer
def test_dissect_reads_it_key_for_key(tmp_path: Path) -> None:
    hyperv = pytest.importorskip("dissect.hypervisor.descriptor.hyperv")
    path = write(tmp_path / "x.vmrs", VALUES)
    found: dict[str, Any] = {}

    def walk(entries: Any, path: str) -> None:
        for name, entry in entries.items():
            if entry.children:
                walk(entry.children, f"{path}/{name}")
            else:
                found[f"{path}/{name}"] = entry.value

    with path.open("rb") as stream:
        walk(hyperv.HyperVFile(stream).root, "")
    expected = {key: value for key, _, value in VALUES}
    assert {key: bytes(value) if isinstance(value, memoryview) else value for key, value in found.items()} == expected


def test_holes_stay_holes(tmp_path: Path) -> None:
    path = tmp_path / "sparse.vmrs"
    with StoreWriter(path) as writer:
        writer.set_array("/big", 64 << 20, [(0, b"first"), (40 << 20, b"middle")])
    with Store.open(path, strict=True) as store:
        entry = store["/big"]
        assert entry.read(0, 6) == b"first\0"
        assert entry.read(40 << 20, 7) == b"middle\0"
        assert not any(entry.read((64 << 20) - 4096, 4096))
    if hasattr(path.stat(), "st_blocks"):
        assert path.stat().st_blocks * 512 < 4 << 20


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        ("/x", "int", 1 << 63),
        ("/x", "uint", -1),
        ("/x", "string", b"bytes"),
        ("/x", "array", "text"),
        ("/x", "decimal", 1),
        ("/" + "n" * 255, "int", 1),
        ("/a\0b", "int", 1),
        ("/there", "int", 2),
        ("/there/below", "int", 2),
    ],
)
def test_what_the_format_cannot_express(tmp_path: Path, key: str, kind: str, value: Any) -> None:
    path = tmp_path / "x.vmrs"
    with pytest.raises(InvalidArgumentError), StoreWriter(path) as writer:
        writer.set("/there", "int", 1)
        writer.set(key, kind, value)
    assert list(tmp_path.iterdir()) == [], "nothing is left after an error"


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "x.vmrs"
    path.write_bytes(b"precious")
    with pytest.raises(SourceError, match="exists already"):
        StoreWriter(path)
    assert path.read_bytes() == b"precious"
    with pytest.raises(ZeroDivisionError), StoreWriter(path, overwrite=True):
        raise ZeroDivisionError
    assert path.read_bytes() == b"precious", "replaced only by a complete file"
    write(path, VALUES)
    assert path.read_bytes() != b"precious"
    assert [item.name for item in tmp_path.iterdir()] == ["x.vmrs"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot write"):
        StoreWriter(tmp_path / "none" / "x.vmrs")
