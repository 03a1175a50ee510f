"""The replay log as an overlay, all or nothing (format specification, 2.11)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.container import INT, Container, key_entry, key_table, replay_log, small_tree
from vmsavedstate.errors import CorruptFileError
from vmsavedstate.files.overlay import Patch
from vmsavedstate.files.source import Source
from vmsavedstate.findings import Severity
from vmsavedstate.hvstorage import Store

OLD = key_table(1, [key_entry(INT, "x", struct.pack("<q", 1))])
NEW = key_table(1, [key_entry(INT, "x", struct.pack("<q", 2))], sequence=2)


def container(**log: object) -> Container:
    writes = [(0x3000, NEW[:100]), (0x3064, NEW[100:])]
    return Container([OLD], log=replay_log(writes, **log))  # type: ignore[arg-type]


def opened(tmp_path: Path, made: Container, *, strict: bool = False) -> Store:
    return Store.open(made.write(tmp_path / "file.vmrs"), strict=strict)


def test_pending_entries_are_applied_in_memory_only(tmp_path: Path) -> None:
    path = container().write(tmp_path / "file.vmrs")
    before = path.read_bytes()
    with Store.open(path) as store:
        assert store["/x"].value == 2
        assert [(item.severity, item.found) for item in store.findings] == [(Severity.NOTE, "0x2")]
        assert "ApplyPendingSavedStateFileReplayLog" in store.findings[0].message
    assert path.read_bytes() == before


def test_strict_mode_refuses_a_pending_log(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="ApplyPendingSavedStateFileReplayLog"):
        opened(tmp_path, container(), strict=True)


def test_entries_beyond_the_count_are_stale(tmp_path: Path) -> None:
    with opened(tmp_path, container(count=0), strict=True) as store:
        assert store["/x"].value == 1
        assert store.findings == ()


@pytest.mark.parametrize("fault", ["bad_entry", "bad_payload"])
@pytest.mark.parametrize("number", [0, 1])
def test_one_wrong_checksum_and_nothing_is_applied(tmp_path: Path, fault: str, number: int) -> None:
    with opened(tmp_path, container(**{fault: number})) as store:
        assert store["/x"].value == 1
        assert [item.severity for item in store.findings] == [Severity.DAMAGE]
        assert "nothing of it is applied" in store.findings[0].message


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        ([(0x1000, b"x" * 46)], "file headers"),
        ([(0x1FFF, b"xx")], "file headers"),
        ([(1 << 62, b"x")], "far behind the end"),
    ],
)
def test_destinations_that_cannot_be(tmp_path: Path, writes: list[tuple[int, bytes]], expected: str) -> None:
    with opened(tmp_path, Container([OLD], log=replay_log(writes))) as store:
        assert expected in store.findings[0].message
        assert store["/x"].value == 1


@pytest.mark.parametrize(
    "log",
    [
        replay_log(signature=1),
        replay_log(crc=1),
        replay_log(maximum=0),
        replay_log(count=146),
        replay_log(count=0xFFFFFFFF, maximum=0xFFFFFFFF),
        b"",
        b"\0" * 33,
    ],
)
def test_invalid_log_header_counts_as_empty(tmp_path: Path, log: bytes) -> None:
    with opened(tmp_path, Container([OLD], log=log)) as store:
        assert "replay log header is invalid" in store.findings[0].message
        assert store["/x"].value == 1
    with pytest.raises(CorruptFileError, match="replay log header is invalid"):
        opened(tmp_path, Container([OLD], log=log), strict=True)


def test_a_write_may_extend_the_file(tmp_path: Path) -> None:
    """A commit of a second key table behind the end of the file, named by an entry of the object table."""
    from support.container import KEY_TABLE, object_entry

    base = Container([key_table(1, small_tree())])
    size = len(base.build()) + 0x3000
    size = -(-size // 0x1000) * 0x1000
    added = key_table(2, [key_entry(INT, "added", struct.pack("<q", 3), sequence=99)])
    slot = 0x2008 + 18 * len(base.default_entries())
    base.log = replay_log([(size, added), (slot, object_entry(KEY_TABLE, size, 0x1000))])
    with opened(tmp_path, base) as store:
        assert store["/added"].value == 3
        assert [item.severity for item in store.findings] == [Severity.NOTE]


@given(
    st.lists(st.tuples(st.integers(0, 90), st.binary(max_size=40)), max_size=8),
    st.integers(0, 120),
    st.integers(0, 60),
)
def test_overlay_is_what_writing_would_give(
    tmp_path: Path, writes: list[tuple[int, bytes]], offset: int, size: int
) -> None:
    base = bytes(range(100, 164))
    path = tmp_path / "file"
    path.write_bytes(base)
    written = bytearray(base)
    for at, data in writes:
        if data:
            written.extend(bytes(max(0, at + len(data) - len(written))))
            written[at : at + len(data)] = data
    source = Source(path)
    source.overlay([Patch(at, data) for at, data in writes if data])
    assert source.size == len(written)
    if offset + size <= len(written):
        assert source.read(offset, size) == written[offset : offset + size]
        buffer = bytearray(size)
        source.read_into(offset, memoryview(buffer))
        assert buffer == written[offset : offset + size]
    source.close()


def test_a_log_that_ends_with_the_file(tmp_path: Path) -> None:
    """Its entries lie in the file or nothing is applied: never read behind its end."""
    container = Container([OLD], log=replay_log([(0x5000, b"x" * 46), (0x5000, b"y" * 46)]))
    path = container.write(tmp_path / "whole.vmrs")
    raw = path.read_bytes()
    place = raw.rfind((0x01110003).to_bytes(4, "little"))
    for entries in (0, 1):
        cut = tmp_path / f"{entries}.vmrs"
        cut.write_bytes(raw[: place + 34 + 32 * entries + 5])
        with Store.open(cut) as store:
            codes = [item.code for item in store.findings]
            assert "hvs.replay-log.damaged" in codes and "hvs.replay-log.pending" not in codes
            assert any("lies outside of the file" in item.message for item in store.findings), store.findings
