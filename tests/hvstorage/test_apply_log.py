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
from vmsavedstate.hvstorage import Store, apply_replay_log
from vmsavedstate.source import SharedLock


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


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle: the count still says that everything is pending, so nothing is lost."""
    path = pending(tmp_path / "pending.vmcx")
    before, _ = values(path)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(SourceError, match="cannot write: No space left on device"):
            apply_replay_log(path)
    assert values(path)[0] == before
    if os.geteuid():
        path.chmod(0o444)
        with pytest.raises(SourceError, match="cannot write"):
            apply_replay_log(path)


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


def test_where_there_are_no_locks(tmp_path: Path, sample_guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refused(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    handle = vmsavedstate.provider.LoadSavedStateFile(sample_guest)
    assert vmsavedstate.provider.GetVpCount(handle) == 2
    vmsavedstate.provider.ReleaseSavedStateFiles(handle)
