"""Writing a pending replay log into its file: the result is what the overlay shows; everything else leaves it alone."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest

import vmsavedstate
from support.container import INT as INTEGER
from support.container import KEY_TABLE, Container, key_entry, key_table, object_entry, replay_log, small_tree
from vmsavedstate.errors import CorruptFileError, FormatError, SourceError
from vmsavedstate.files.locks import SharedLock
from vmsavedstate.hvstorage import Store, apply_replay_log


def pending(path: Path) -> Path:
    """A container whose log holds a second key table behind the end of the file, and the entry that names it."""
    base = Container([key_table(1, small_tree())])
    size = -(-(len(base.build()) + 0x3000) // 0x1000) * 0x1000
    added = key_table(2, [key_entry(INTEGER, "added", struct.pack("<q", 3), sequence=99)])
    slot = 0x2008 + 18 * len(base.default_entries())
    base.log = replay_log([(size, added), (slot, object_entry(KEY_TABLE, size, 0x1000))])
    path.write_bytes(base.build())
    return path


def values(path: Path) -> tuple[list[tuple[str, object]], list[str]]:
    """Every key, and the findings."""
    with Store.open(path) as store:
        return [(entry.path, entry.value) for entry in store.walk() if entry.type != "node"], [
            item.message for item in store.findings
        ]


def test_the_file_then_says_what_the_overlay_said(tmp_path: Path) -> None:
    path = pending(tmp_path / "pending.vmcx")
    before, notes = values(path)
    assert ("/added", 3) in before
    assert len(notes) == 1
    assert apply_replay_log(path) == 2
    assert values(path) == (before, [])
    content = path.read_bytes()
    assert apply_replay_log(path) == 0
    assert path.read_bytes() == content, "nothing is pending any more"


def log_header(content: bytes | bytearray) -> int:
    """Where the log of the container in force begins."""
    copies = [struct.unpack_from("<IIHIIIIQQI", content, at) for at in (0, 0x1000)]
    return int(max(copies, key=lambda copy: copy[2])[7])


def test_nothing_but_the_entries_and_the_count_changes(tmp_path: Path) -> None:
    path = pending(tmp_path / "pending.vmcx")
    before = path.read_bytes()
    apply_replay_log(path)
    after = path.read_bytes()
    log = log_header(before)
    at = log + struct.calcsize("<IIIBIBQII")
    written = bytearray(before)
    for number in range(2):
        destination, size, payload, _, _ = struct.unpack_from("<QIQII", before, at + 28 * number)
        written.extend(bytes(max(0, destination + size - len(written))))
        written[destination : destination + size] = before[log + payload : log + payload + size]
    struct.pack_into("<II", written, log + 4, 0, 0)
    struct.pack_into("<I", written, log + 4, zlib.crc32(written[log:at]))
    assert after == written


@pytest.mark.parametrize("at", [4, 8, 0x24, 0x40, 0x50])
def test_a_damaged_log_changes_nothing(tmp_path: Path, at: int) -> None:
    path = pending(tmp_path / "damaged.vmcx")
    content = bytearray(path.read_bytes())
    content[log_header(content) + at] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"replay log.*use an intact copy"):
        apply_replay_log(path)
    assert path.read_bytes() == content


def test_what_is_no_container(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no container at all")
    with pytest.raises(FormatError, match="only those have a replay log"):
        apply_replay_log(tmp_path / "text")
    with pytest.raises(SourceError, match="no such file"):
        apply_replay_log(tmp_path / "missing")
    with pytest.raises(SourceError, match="directory"):
        apply_replay_log(tmp_path)


class Crash(Exception):  # noqa: N818
    """The machine goes down."""


def test_the_count_is_cleared_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payloads, flush, count, flush: at any other order an interruption would lose the commit."""
    path = pending(tmp_path / "pending.vmcx")
    log = log_header(path.read_bytes())
    steps: list[str] = []
    write, fsync = os.write, os.fsync

    def watched_write(fd: int, data: bytes) -> int:
        steps.append("count" if os.lseek(fd, 0, os.SEEK_CUR) == log else "payload")
        return write(fd, data)

    def watched_fsync(fd: int) -> None:
        steps.append("flush")
        fsync(fd)

    monkeypatch.setattr(os, "write", watched_write)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    apply_replay_log(path)
    assert steps == ["payload", "payload", "flush", "count", "flush"]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_interrupted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, half: bool) -> None:
    """After a crash in any write, none or half of its bytes in the file: the content is the same, and can be applied."""
    path = pending(tmp_path / "pending.vmcx")
    before, _ = values(path)
    writes: list[int] = []
    write = os.write

    def crashing(fd: int, data: memoryview) -> int:
        writes.append(len(data))
        if len(writes) <= at:
            return write(fd, data)
        if half:
            write(fd, data[: len(data) // 2])
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", crashing)
        with pytest.raises(Crash):
            apply_replay_log(path)
    assert len(writes) == at + 1
    if at == 2 and half:  # the log's header itself, 34 bytes in one sector; the payloads are all there by then
        return
    assert values(path)[0] == before
    assert apply_replay_log(path) == 2
    assert values(path) == (before, [])


@pytest.mark.parametrize("where", ["header", "entry", "payload"])
def test_a_log_that_would_overwrite_itself(tmp_path: Path, where: str) -> None:
    """Once it is begun it could not be begun again: nothing of it counts, for reading and for applying."""
    base = Container([key_table(1, small_tree())])
    plain = base.build()
    log = log_header(plain)
    base.log = replay_log([(0, b"12345678"), (0x2800, b"abcdefgh")])
    filled = base.build()
    at = log + struct.calcsize("<IIIBIBQII")
    payload = log + struct.unpack_from("<QIQII", filled, at + 28)[2]
    target = {"header": log + 8, "entry": at + 3, "payload": payload + 2}[where]
    base.log = replay_log([(target, b"12345678"), (0x2800, b"abcdefgh")])
    path = tmp_path / "self.vmcx"
    path.write_bytes(base.build())
    content = path.read_bytes()
    with Store.open(path) as store:
        assert "it would overwrite itself" in store.findings[0].message
    with pytest.raises(CorruptFileError, match="overwrite itself"):
        apply_replay_log(path)
    assert path.read_bytes() == content


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pending(tmp_path / "pending.vmcx")
    before, _ = values(path)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(SourceError, match="cannot write: No space left on device") as caught:
            apply_replay_log(path)
    assert caught.value.hresult == 0x8007001D
    assert values(path)[0] == before


def test_a_file_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pending(tmp_path / "pending.vmcx")
    real = os.open

    def refused(place: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(place, flags, *mode)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(SourceError, match="cannot write: Permission denied") as caught:
        apply_replay_log(path)
    assert caught.value.hresult == 0x80070005


def test_a_file_that_is_replaced_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of one file must not go into another that got its name."""
    path, other = pending(tmp_path / "pending.vmcx"), pending(tmp_path / "other.vmcx")
    content, real = other.read_bytes(), os.open

    def replaced(place: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            os.replace(other, path)
        return real(place, flags, *mode)

    monkeypatch.setattr(os, "open", replaced)
    with pytest.raises(SourceError, match="replaced while it was opened"):
        apply_replay_log(path)
    assert path.read_bytes() == content


def test_locks(tmp_path: Path) -> None:
    """Readers share; who applies needs the file for himself; a lock goes with its owner."""
    path = pending(tmp_path / "pending.vmcx")
    one, other = SharedLock(path), SharedLock(path)
    one.close()
    with pytest.raises(SourceError, match="in use") as caught:
        apply_replay_log(path)
    assert caught.value.hresult == 0x80070020
    other.close()
    other.close()
    assert apply_replay_log(path) == 2


def test_loading_while_somebody_applies(tmp_path: Path, sample_guest: Path) -> None:
    import fcntl
    import shutil

    copy = tmp_path / "guest.vmrs"
    shutil.copyfile(sample_guest, copy)
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    with open(copy, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SourceError, match="in use"):
            vmsavedstate.provider.LoadSavedStateFile(copy)
        with vmsavedstate.open(copy) as state, pytest.raises(SourceError, match="in use"):
            state.lock()
    handle = vmsavedstate.provider.LoadSavedStateFile(copy)
    vmsavedstate.provider.ReleaseSavedStateFiles(handle)
    if descriptors is not None:
        assert len(os.listdir("/proc/self/fd")) == descriptors, "nothing stays open"


def test_a_state_gives_its_locks_back(tmp_path: Path, sample_guest: Path) -> None:
    import gc
    import shutil

    copy = tmp_path / "guest.vmrs"
    shutil.copyfile(sample_guest, copy)
    state = vmsavedstate.open(copy)
    state.lock()
    state.lock()
    with pytest.raises(SourceError, match="in use"):
        apply_replay_log(copy)
    state.close()
    assert apply_replay_log(copy) == 0
    with pytest.raises(SourceError, match="closed"):
        state.lock()
    dropped = vmsavedstate.open(copy)
    dropped.lock()
    del dropped
    gc.collect()
    assert apply_replay_log(copy) == 0


def test_where_there_are_no_locks(tmp_path: Path, sample_guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refused(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    handle = vmsavedstate.provider.LoadSavedStateFile(sample_guest)
    assert vmsavedstate.provider.GetVpCount(handle) == 2
    vmsavedstate.provider.ReleaseSavedStateFiles(handle)
    path = pending(tmp_path / "pending.vmcx")
    content = path.read_bytes()
    with pytest.raises(SourceError, match="cannot be locked: No locks available"):
        apply_replay_log(path)
    assert path.read_bytes() == content, "nobody writes who cannot know that he is alone"
