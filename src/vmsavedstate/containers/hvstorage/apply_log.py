"""Writes a pending replay log into its file, as ApplyPendingSavedStateFileReplayLog does (format specification, 2.11).

The only code of this package that changes a file that exists. Nothing calls it but who asks for exactly this.
"""

from __future__ import annotations

import errno
import os

from ...errors import ERROR_ACCESS_DENIED, ERROR_WRITE_FAULT, CorruptFileError, FormatError, SourceError
from ...files.locks import take_lock
from ...files.opening import PathArgument
from ...files.source import Source
from ...findings import FindingLog
from . import layout
from .checksum import sealed
from .header import has_signature, read_header
from .replay import pending_patches

_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)
COUNT_AT = 8


def apply_replay_log(path: PathArgument) -> int:
    """Write the pending commit of a ``.vmrs`` or ``.vmcx`` into the file; the number of entries, 0 where none was pending.

    All or nothing: a log with one wrong checksum changes nothing. The file is locked for this process alone meanwhile.

    Raises SourceError (missing, in use by an instance that has loaded it, not writable), FormatError,
    CorruptFileError (a damaged header or log).
    """
    source = Source(path)
    try:
        if not has_signature(source):
            raise FormatError(
                "this is not a HyperVStorage file (.vmrs, .vmcx)", file=source.path, offset=0,
                remedy="only those have a replay log",
            )  # fmt: skip
        fd = _open_for_writing(path, source.path)
        try:
            take_lock(fd, source.path, exclusive=True)
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) != source.identity:
                raise SourceError("the file was replaced while it was opened", file=source.path, remedy="try again")
            return _apply(source, fd)
        except OSError as error:
            if isinstance(error, SourceError):
                raise
            raise _unwritable(source.path, error) from error
        finally:
            os.close(fd)
    finally:
        source.close()


def _apply(source: Source, fd: int) -> int:
    log = FindingLog(strict=False)
    header = read_header(source, log)
    known = len(log)
    patches = pending_patches(source, header, log)
    if not patches:
        damage = list(log)[known:]
        if damage:
            raise CorruptFileError(
                damage[0].message, file=source.path, offset=damage[0].offset, remedy="use an intact copy"
            )
        return 0
    raw = bytearray(source.read(header.replay_log_offset, layout.REPLAY_HEADER.size))
    for patch in patches:
        _write(fd, patch.offset, patch.data)
    os.fsync(fd)  # before the count says that nothing is pending
    raw[COUNT_AT : COUNT_AT + 4] = bytes(4)
    _write(fd, header.replay_log_offset, sealed(bytes(raw), layout.REPLAY_HEADER_CHECKSUM_AT))
    os.fsync(fd)
    return len(patches)


def _write(fd: int, offset: int, data: bytes) -> None:
    os.lseek(fd, offset, os.SEEK_SET)
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _open_for_writing(path: PathArgument, shown: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        raise _unwritable(shown, error) from error


def _unwritable(shown: str, error: OSError) -> SourceError:
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return SourceError(
        f"cannot write: {error.strerror or error}",
        number=error.errno,
        file=shown,
        remedy="a pending replay log is applied in memory whenever the file is read; to apply it, make the file writable",
        hresult=ERROR_ACCESS_DENIED if denied else ERROR_WRITE_FAULT,
    )
