"""Opens evidence: read-only, regular files and block devices alone, with an error that says what is wrong.

No other module of the reader may call ``open`` or ``os.open``.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, SourceError

PathArgument = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)


class Descriptor:
    """A file descriptor that is closed once, by its owner or when it is collected."""

    _fd = -1

    def close(self) -> None:
        """Close the file; harmless when it is closed already."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close what the owner forgot, so that a dropped object holds no evidence open."""
        if self._fd >= 0:
            self.close()


def open_read_only(path: PathArgument, shown: str) -> int:
    """A descriptor of the file at ``path``, which messages call ``shown``. Raises SourceError."""
    if not shown:
        raise SourceError("the path is empty", number=errno.ENOENT, remedy="name a file", hresult=ERROR_FILE_NOT_FOUND)
    try:
        mode = os.stat(path).st_mode  # before opening: opening a FIFO would wait for a writer for ever
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            directory = stat.S_ISDIR(mode)
            raise SourceError(
                f"this is {'a directory' if directory else 'not a regular file'}",
                number=errno.EISDIR if directory else errno.EINVAL,
                file=shown,
                remedy="name the saved state file itself",
            )
        return os.open(path, _FLAGS)
    except SourceError:
        raise
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ENOENT:
            raise SourceError(
                "there is no such file",
                number=number,
                file=shown,
                remedy="check the path",
                hresult=ERROR_FILE_NOT_FOUND,
            ) from error
        if number in (errno.EACCES, errno.EPERM):
            raise SourceError(
                "no permission to read this file",
                number=number,
                file=shown,
                remedy="run as a user who may read it, or copy it",
                hresult=ERROR_ACCESS_DENIED,
            ) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SourceError(f"cannot open: {reason}", number=number, file=shown) from error
