"""Why a call of the C library failed, in words, for who asks: VMSAVEDSTATE_LOG names a file, or is - for standard error.

``glue.c`` does the same for what happens before Python runs.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

VARIABLE = "VMSAVEDSTATE_LOG"
BEGIN = b"vmsavedstatedumpprovider: "


_complained = False


def log_wanted() -> bool:
    """Whether a log is asked for."""
    return bool(os.environ.get(VARIABLE))


def log_line(code: int, message: str) -> None:
    """One line, if a log is asked for. A log that cannot be written is reported once, and only on a terminal."""
    target = os.environ.get(VARIABLE)
    if not target or target == os.devnull:
        return
    line = BEGIN + f"0x{code:08X}: {' '.join(message.split())}\n".encode("utf-8", "backslashreplace")
    with suppress(Exception):
        if target == "-":
            os.write(2, line)
            return
        try:
            written = _append(target, line)
        except OSError as error:
            _complain(target, error.strerror or "it cannot be opened")
        else:
            if not written:
                _complain(target, "what is there is no such log, and is left alone")


def _complain(target: str, why: str) -> None:
    global _complained
    if not _complained and os.isatty(2):  # else descriptor 2 may be anything: another file, a pipe that nobody reads
        _complained = True
        os.write(2, BEGIN + f"no log at {VARIABLE}={target}: {why}\n".encode("utf-8", "backslashreplace"))


def _append(target: str, line: bytes) -> bool:
    """Whether the line was written."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
    fd = os.open(target, flags, 0o666)
    try:
        if not _may_be_written(fd):
            return False
        os.write(fd, line)
        return True
    finally:
        os.close(fd)


def _may_be_written(fd: int) -> bool:
    """Never a file that is not such a log, nor a disk: a mistyped name may be that of evidence."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        return stat.S_ISFIFO(mode) or os.isatty(fd)
    return os.read(fd, len(BEGIN)) in (b"", BEGIN)
