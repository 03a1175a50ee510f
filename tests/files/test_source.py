"""Reading evidence by position."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import vmsavedstate
from support.states import write_state
from vmsavedstate.errors import VmSavedStateError
from vmsavedstate.files.overlay import Patch
from vmsavedstate.files.source import Source


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


def test_holes_of_a_sparse_file(tmp_path: Path) -> None:
    """What the file system keeps nothing for, where it says so; never what is behind the end."""
    path = tmp_path / "sparse"
    with open(path, "wb") as stream:
        stream.truncate(8 << 20)
        stream.seek(3 << 20)
        stream.write(b"x" * 4096)
    with open(path, "rb") as stream:
        try:
            told = os.lseek(stream.fileno(), 0, os.SEEK_DATA) >= 1 << 20
        except (AttributeError, OSError):
            told = False
    if not told:
        pytest.skip("this file system does not tell of holes")
    source = Source(path)
    assert source.is_hole(0, 1 << 20) and source.is_hole(1 << 20, 2 << 20) and source.is_hole(4 << 20, 4 << 20)
    assert not source.is_hole(2 << 20, 2 << 20) and not source.is_hole(3 << 20, 4096)
    assert not source.is_hole(7 << 20, 2 << 20) and not source.is_hole(8 << 20, 1) and not source.is_hole(1 << 70, 1)
    os.truncate(path, 5 << 20)
    assert not source.is_hole(4 << 20, 4 << 20), "it shrank"
    source.overlay([Patch(0, b"patch")])
    assert not source.is_hole(0, 1 << 20)
    source.close()


def test_reading_into_a_buffer(tmp_path: Path) -> None:
    """The bytes of the place, all of them, and an error where the file ends before."""
    path, content = tmp_path / "x", bytes(range(256)) * 64
    path.write_bytes(content)
    source = Source(path)
    for offset, size in ((0, 1), (5, 4096), (len(content) - 3, 3), (100, 0)):
        buffer = bytearray(b"\xee" * (size + 2))
        source.read_into(offset, memoryview(buffer)[1 : size + 1])
        assert buffer == b"\xee" + content[offset : offset + size] + b"\xee"
    with pytest.raises(VmSavedStateError):
        source.read_into(len(content) - 3, memoryview(bytearray(8)))
    source.close()
