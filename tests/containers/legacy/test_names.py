"""The name area of ``.bin`` and ``.vsv`` files: where it may lie, and names that are shared or absurd."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import vmsavedstate
from support.states import legacy_file

VALUES = {"/a/one": (1, b"1" * 20), "/a/two": (1, bytes(8)), "b": (1, b"short")}


def names_at(raw: bytes) -> int:
    return int(struct.unpack_from("<Q", raw, 24)[0])


def keys(path: Path) -> tuple[list[str], list[str]]:
    with vmsavedstate.open_store(path) as store:
        return sorted(entry.path for entry in store.walk()), [item.code for item in store.findings]


def test_a_sound_file_wherever_its_names_end(tmp_path: Path) -> None:
    """The names end before the file, and exactly with it: neither is a finding."""
    raw = legacy_file(VALUES)
    used = struct.unpack_from("<I", raw, 36)[0]
    for content in (raw, raw[: names_at(raw) + used], raw + bytes(5)):
        path = tmp_path / f"{len(content)}.vsv"
        path.write_bytes(content)
        assert keys(path) == (["/a", "/a/one", "/a/two", "/b"], [])


def test_a_file_that_ends_in_its_names(tmp_path: Path) -> None:
    """What is left of them is read, and the rest is a finding."""
    raw = legacy_file(VALUES)
    path = tmp_path / "cut.vsv"
    path.write_bytes(raw[: names_at(raw) + 9])
    found, codes = keys(path)
    assert "/a/one" in found and "legacy.names.outside" in codes
    with pytest.raises(vmsavedstate.CorruptFileError, match="name area lies outside"):
        vmsavedstate.open_store(path, strict=True)


def test_entries_that_share_a_name(tmp_path: Path) -> None:
    """Names together cannot be longer than their area: a thousand entries of one long name are not a thousand names."""
    raw = bytearray(legacy_file({"x" * 5000: (1, b"v")}))
    index_at = struct.unpack_from("<Q", raw, 16)[0]
    entry = raw[index_at : index_at + 24]
    for number in range(1, 1000):
        raw[index_at + 24 * number : index_at + 24 * (number + 1)] = entry
    path = tmp_path / "shared.vsv"
    path.write_bytes(raw)
    found, codes = keys(path)
    assert sum(1 for _ in found) + 100 > 100 and "legacy.index.names" in codes
    with vmsavedstate.open_store(path) as store:
        assert 200 < sum(1 for _ in store.walk()) < 300, "twice the area and a MiB"
