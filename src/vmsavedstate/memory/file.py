"""Memory as a read-only file object, for everything that reads files."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from ..integers import as_int, as_int_in

if TYPE_CHECKING:
    from .protocol import Memory

LARGEST = 1 << 30  # bytes that one call delivers


class MemoryFile(io.RawIOBase):
    """Memory from address 0 to ``size`` as a seekable binary file; its position is the address.

    What cannot be read is the fill byte (in strict mode missing and damaged memory raises GuestMemoryError). After
    ``close()`` every call raises ValueError.
    """

    def __init__(self, memory: Memory, size: int, fill: int) -> None:
        super().__init__()
        self._memory = memory
        self._size = size
        self._fill = as_int_in(fill, "the fill byte", 0, 255)
        self._position = 0

    def __repr__(self) -> str:
        """The memory and the position."""
        return f"<MemoryFile over {self._memory!r} at {self._position:#x}>"

    def readable(self) -> bool:
        """True."""
        self._check()
        return True

    def seekable(self) -> bool:
        """True."""
        self._check()
        return True

    def tell(self) -> int:
        """The address at which the next read begins."""
        self._check()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, from the start, from here or from the end; it may be behind the end. Raises ValueError."""
        self._check()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        if whence not in bases:
            raise ValueError(f"whence is 0, 1 or 2, not {whence!r}")
        position = bases[whence] + offset.__index__()
        if position < 0:
            raise ValueError(f"the position {position} is negative")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on; the number of bytes, 0 at the end."""
        self._check()
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position, LARGEST))
        if count:
            self._memory.read_into(self._position, view[:count], fill=self._fill)
            self._position += count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes from the position on, and at most 1 GiB; all that is left for -1 or None."""
        self._check()
        wanted = -1 if size is None else as_int(size, "a size")
        if wanted < 0:
            return self.readall()
        return self._take(min(wanted, LARGEST))

    def readall(self) -> bytes:
        """All from the position on. Raises InvalidArgumentError, a ValueError, for more than 4 GiB."""
        self._check()
        return self._take(self._size)

    def _take(self, size: int) -> bytes:
        count = max(0, min(size, self._size - self._position))
        data = self._memory.read(self._position, count, fill=self._fill) if count else b""
        self._position += count
        return data

    def write(self, data: object) -> int:
        """Raises io.UnsupportedOperation: evidence is never changed."""
        self._check()
        raise io.UnsupportedOperation("guest memory is read-only")

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
