"""Guards that only hostile files meet, one test each: taking any of them out must fail here."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.container import (
    ARRAY,
    FILE_OBJECT,
    INT,
    KEY_TABLE,
    STRING,
    Container,
    key_entry,
    key_table,
    object_entry,
    pointer,
    prefixed,
    replay_log,
    small_tree,
)
from vmsavedstate.containers.hvstorage import layout, object_table
from vmsavedstate.errors import SourceError
from vmsavedstate.files import source as source_module
from vmsavedstate.files.source import Source
from vmsavedstate.hvstorage import Store


def messages(path: Path) -> list[str]:
    with Store.open(path) as store:
        assert store["/int"].value == -5
        return [item.message for item in store.findings]


def test_a_value_larger_than_its_file_object(tmp_path: Path) -> None:
    container = Container([bytes(0x1000)], [b"x" * 0x1000, b"y" * 0x1000])
    at = container.places()[1][0]
    container.key_tables = [
        key_table(1, [*small_tree(), key_entry(ARRAY, "big", pointer(0x1800, at), flags=1, sequence=9)])
    ]
    assert any("larger than its file object" in text for text in messages(container.write(tmp_path / "x")))


def test_a_payload_outside_of_the_file(tmp_path: Path) -> None:
    log = replay_log([(0x3000, b"payload")])[:0x1003]
    path = Container([key_table(1, small_tree())], log=log).write(tmp_path / "x")
    assert any("payload of entry 0 lies outside of the file" in text for text in messages(path))


def test_a_destination_17_mib_behind_the_end(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    container.log = replay_log([(len(container.build()) + (17 << 20), b"x")])
    assert any("far behind the end" in text for text in messages(container.write(tmp_path / "x")))


def test_a_key_table_of_17_mib(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    path = container.write(tmp_path / "x")
    entries = [object_entry(KEY_TABLE, 0x3000, 0x1000), object_entry(KEY_TABLE, 0x10000, 17 << 20)]
    container.object_entries = entries
    raw = container.build()
    path.write_bytes(raw)
    with path.open("r+b") as stream:
        stream.truncate(32 << 20)
        stream.seek(0x10000)
        stream.write(key_table(2, [key_entry(INT, "far", bytes(8))])[:60])
    assert any("absurdly large" in text for text in messages(path))


def test_too_many_key_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_KEY_TABLES", 1)
    tables = [key_table(1, small_tree()), key_table(2, [key_entry(INT, "second", bytes(8))])]
    path = Container(tables).write(tmp_path / "x")
    assert "too many key tables" in messages(path)
    with Store.open(path) as store:
        assert "/second" not in store


def test_too_many_object_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_table, "MAX_ENTRIES", 100)
    path = Container([key_table(1, small_tree())]).write(tmp_path / "x")
    with Store.open(path) as store:
        assert any("more than the file can hold" in item.message for item in store.findings)


def test_an_object_over_the_headers(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    container.object_entries = [*container.default_entries(), object_entry(FILE_OBJECT, 0x1000, 0x1000)]
    assert any("overlaps the file headers" in text for text in messages(container.write(tmp_path / "x")))


def test_one_trailing_nul_is_the_terminator_and_no_more(tmp_path: Path) -> None:
    entries = [*small_tree(), key_entry(STRING, "nuls", prefixed("a\0\0".encode("utf-16-le")), sequence=9)]
    with Store.open(Container([key_table(1, entries)]).write(tmp_path / "x")) as store:
        assert store["/nuls"].value == "a\0"


@pytest.fixture(params=["positioned", "seek and read"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no positioned reads in its os module."""
    if request.param != "positioned":
        monkeypatch.setattr(source_module, "_HAS_PREAD", False)
        monkeypatch.setattr(source_module, "_HAS_PREADV", False)


@pytest.mark.usefixtures("platform")
def test_reads_on_every_platform(tmp_path: Path) -> None:
    content = bytes(range(256)) * 64
    path = tmp_path / "x"
    path.write_bytes(content)
    source = Source(path)
    for offset, size in ((0, 10), (5000, 300), (16000, 384), (16384, 0), (3, 0)):
        assert source.read(offset, size) == content[offset : offset + size]
        buffer = bytearray(size)
        source.read_into(offset, memoryview(buffer))
        assert buffer == content[offset : offset + size]
    for offset, size in ((16384, 1), (16000, 385), (1 << 62, 1)):
        with pytest.raises(SourceError):
            source.read(offset, size)
        with pytest.raises(SourceError):
            source.read_into(offset, memoryview(bytearray(size)))
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.read(0, 1)
    with pytest.raises(SourceError, match="closed"):
        source.read_into(0, memoryview(bytearray(1)))


def test_a_buffer_is_not_filled_from_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    if not hasattr(os, "preadv"):
        pytest.skip("there is no preadv here")
    path, other = tmp_path / "x", tmp_path / "other"
    path.write_bytes(b"A" * 100)
    other.write_bytes(b"B" * 100)
    source = Source(path)
    real, taken = os.preadv, list[int]()

    def slow(fd: int, buffers: list[memoryview], offset: int) -> int:
        source.close()
        taken.append(os.open(other, os.O_RDONLY))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", slow)
    with pytest.raises(SourceError, match="closed"):
        source.read_into(0, memoryview(bytearray(10)))
    os.close(taken[0])


def test_bytes_are_not_taken_from_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed while it is read: the descriptor may be another file's by then."""
    import os

    if not hasattr(os, "pread"):
        pytest.skip("there is no pread here")
    path = tmp_path / "x"
    path.write_bytes(b"evidence")
    source, direct = Source(path), os.pread

    def closing(descriptor: int, size: int, offset: int) -> bytes:
        data = direct(descriptor, size, offset)
        source.close()
        return data

    monkeypatch.setattr(os, "pread", closing)
    with pytest.raises(SourceError, match="closed"):
        source.read(0, 8)
