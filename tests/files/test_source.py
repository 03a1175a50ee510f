"""Reading evidence by position."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import vmsavedstate
from support.states import write_state
from vmsavedstate.errors import VmSavedStateError


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
