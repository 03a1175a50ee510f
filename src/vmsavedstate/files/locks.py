"""Advisory locks: readers share a file, and applying a replay log needs it exclusively (API specification, section 8)."""

from __future__ import annotations

import os

from ..errors import ERROR_SHARING_VIOLATION, ERROR_WRITE_FAULT, SourceError
from .opening import Descriptor, PathArgument, open_read_only


class SharedLock(Descriptor):
    """An advisory lock on a file, shared with other readers, until :meth:`close`; keeps the replay log from being applied.

    Nothing where the platform or the file system has no such locks (Windows, some network file systems, read-only media
    may be among them). Raises SourceError (ERROR_SHARING_VIOLATION) while another process holds an exclusive lock.
    """

    def __init__(self, path: PathArgument) -> None:
        shown = os.fsdecode(path)
        self._fd = open_read_only(path, shown)
        try:
            take_lock(self._fd, shown, exclusive=False)
        except BaseException:
            self.close()
            raise


def take_lock(fd: int, shown: str, *, exclusive: bool) -> None:
    """An advisory lock on an open file, without waiting; as :class:`SharedLock`.

    An exclusive one that cannot be had for any other reason raises SourceError (ERROR_WRITE_FAULT) too: writing is allowed
    only under a lock.
    """
    try:
        import fcntl
    except ImportError:
        return  # Windows
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SourceError(
            "the file is in use",
            number=error.errno,
            file=shown,
            remedy="close what has it open: another program, or a handle that is not released",
            hresult=ERROR_SHARING_VIOLATION,
        ) from error
    except OSError as error:
        if exclusive:
            raise SourceError(
                f"cannot be locked: {error.strerror}", number=error.errno, file=shown, remedy="copy it to a local disk",
                hresult=ERROR_WRITE_FAULT,
            ) from error  # fmt: skip
        return  # no locks on this file system: reading must work all the same (API specification, section 8)
