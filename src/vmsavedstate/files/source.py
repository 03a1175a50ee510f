"""An open file of evidence: positioned reads, bounds, and the in-memory overlay of a replay log.

Files are never mapped: a mapped file that shrinks under the reader kills the process, a positioned read only fails.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence

from ..errors import SourceError
from .opening import Descriptor, PathArgument, open_read_only
from .overlay import Patch, PatchSet

_HAS_PREAD = hasattr(os, "pread")
_HAS_HOLES = hasattr(os, "SEEK_DATA")
_HAS_PREADV = hasattr(os, "preadv")


class Source(Descriptor):
    """An open file of evidence.

    Attributes:
        path: the path as text (undecodable bytes as surrogate escapes).
        size: bytes; with an overlay, the size the file would have once it is applied.
    """

    from_object = False  # whether a file object stands behind it, see :class:`.objects.ObjectSource`

    def __init__(self, path: PathArgument) -> None:
        self._begin(os.fsdecode(path))
        self._direct = _HAS_PREAD
        self._fd = open_read_only(path, self.path)
        self.file_size = self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def _begin(self, shown: str) -> None:
        """What every source has; ``shown`` is what messages call it."""
        self.path = shown
        self._lock = threading.Lock()  # serialises seek+read where the platform has no positioned read
        self._patches = PatchSet()
        self._direct = False

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells whether two sources are one file: (device, inode)."""
        info = os.fstat(self._fd)
        return info.st_dev, info.st_ino

    def overlay(self, patches: Sequence[Patch]) -> None:
        """Lay patches over the file, later ones over earlier ones, without writing (format specification, 2.11).

        A patch may extend the file; a gap between the old end and the patch reads as zeros, as a real write leaves it.
        """
        self._patches = PatchSet(patches)
        self._direct = self._direct and not self._patches
        self.size = max(self.file_size, self._patches.end)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from byte ``offset``.

        Raises SourceError where the file ends before (callers check bounds first, so it shrank) or cannot be read.
        """
        if self._direct:  # as _pread does, without a call: small reads are many
            fd = self._fd
            try:
                data = os.pread(fd, size, offset)
            except (OSError, OverflowError) as error:
                raise self._unreadable(error, offset) from error
            if len(data) == size and self._fd == fd:
                return data
        if self._patches:
            buffer = bytearray(size)
            self._read_patched(offset, memoryview(buffer))
            return bytes(buffer)
        return self._read_rest(self._pread(size, offset), offset, size)

    def is_hole(self, offset: int, size: int) -> bool:
        """Whether the file system keeps nothing for a range, so that it reads as zeros; False where that is not known.

        Costs a few microseconds: for ranges that would take longer to read.
        """
        fd = self._fd
        if not self._direct or not _HAS_HOLES or offset + size > self.file_size:
            return False
        try:
            found = os.lseek(fd, offset, os.SEEK_DATA) >= offset + size
        except OverflowError:
            return False
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data up to the end
                return False
            found = os.fstat(fd).st_size >= offset + size
        return found and self._fd == fd  # closed meanwhile, the number may mean another file

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a writable byte view from byte ``offset``; errors as for :meth:`read`."""
        if self._patches:
            self._read_patched(offset, buffer)
        else:
            self._read_file_into(offset, buffer)

    def _read_rest(self, data: bytes, offset: int, size: int) -> bytes:
        """``data``, which a first call delivered, and where that is not all what further ones do."""
        parts, got = [data], len(data)
        while got < size:  # one call may deliver less, e.g. above 2 GiB or on a network file system
            data = self._pread(size - got, offset + got)
            if not data:
                raise self._ended(offset + got, size - got)
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def _read_file_into(self, offset: int, buffer: memoryview) -> None:
        got = 0
        while got < len(buffer):
            if _HAS_PREADV:
                fd = self._fd
                try:
                    count = os.preadv(fd, [buffer[got:]], offset + got)
                except OSError as error:
                    raise self._unreadable(error, offset + got) from error
                self._check_open(fd)
            else:
                data = self._pread(len(buffer) - got, offset + got)
                count = len(data)
                buffer[got : got + count] = data
            if not count:
                raise self._ended(offset + got, len(buffer) - got)
            got += count

    def _pread(self, size: int, offset: int) -> bytes:
        fd = self._fd
        try:
            if _HAS_PREAD:
                data = os.pread(fd, size, offset)
            else:
                with self._lock:  # Windows: no positioned read in the os module
                    os.lseek(fd, offset, os.SEEK_SET)
                    data = os.read(fd, size)
        except (OSError, OverflowError) as error:
            raise self._unreadable(error, offset) from error
        if self._fd != fd:
            raise self._closed()
        return data

    def _check_open(self, fd: int) -> None:
        """Raise if the file was closed while it was read: its descriptor may have meant another file by then."""
        if self._fd != fd:
            raise self._closed()

    def _is_closed(self) -> bool:
        return self._fd < 0

    def _closed(self) -> SourceError:
        return SourceError(
            "the file is closed", number=errno.EBADF, file=self.path, remedy="read before the saved state is closed"
        )

    def _read_patched(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        if end > self.size:
            raise self._ended(self.size, end - self.size)
        in_file = max(0, min(end, self.file_size) - offset)
        self._read_file_into(offset, buffer[:in_file])
        buffer[in_file:] = bytes(len(buffer) - in_file)
        self._patches.lay_over(offset, buffer)

    def _ended(self, offset: int, missing: int) -> SourceError:
        return SourceError(
            f"the file ends {missing:#x} bytes too early",
            file=self.path,
            offset=offset,
            remedy="it was truncated, or changed while it was read; use an intact copy",
        )

    def _unreadable(self, error: Exception, offset: int) -> SourceError:
        if self._is_closed():
            return self._closed()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        number = error.errno if isinstance(error, OSError) else None
        return SourceError(
            f"cannot read: {reason}", number=number, file=self.path, offset=offset, remedy="check the medium"
        )
