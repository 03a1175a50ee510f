"""What every view of guest memory offers: ``state.memory`` by physical, ``vp.space`` by virtual address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from .blocks import MemoryBlock
from .file import MemoryFile
from .gaps import MemoryGap
from .search import Pattern, Progress, Unread


@runtime_checkable
class Memory(Protocol):
    """Guest memory by address. Addresses and sizes are bytes, addresses 0 to 2**64 - 1; they are positional. Safe to
    use from several threads.

    After the state is closed every call raises SourceError.
    """

    def read(self, address: int, size: int, /, *, fill: int | None = None) -> bytes:
        """``size`` bytes; ``fill`` (0 to 255) stands for what cannot be read. Raises GuestMemoryError, PageNotMapped."""
        ...

    def read_into(self, address: int, buffer: bytearray | memoryview, /, *, fill: int | None = None) -> None:
        """Fill a writable buffer; as :meth:`read`."""
        ...

    def is_valid(self, address: int, size: int = 1, /) -> bool:
        """Whether all of a range can be read: true exactly where :meth:`gaps` yields nothing."""
        ...

    def gaps(self, address: int, size: int, /) -> Iterator[MemoryGap]:
        """What of a range cannot be read, ascending, with the reason."""
        ...

    def require(self, address: int, size: int, /) -> None:
        """Raise for the first hole of a range, or the first address that is not mapped; reads no memory there."""
        ...

    def find(
        self,
        pattern: Pattern,
        /,
        start: int = 0,
        end: int = 1 << 64,
        *,
        progress: Progress | None = None,
        unread: Unread | None = None,
    ) -> Iterator[int]:
        """The addresses of bytes, or of a compiled regular expression of bytes."""
        ...

    def blocks(self, start: int = 0, end: int | None = None, workers: int | None = None) -> Iterator[MemoryBlock]:
        """Blocks that tile ``start`` to ``end`` in order, decoded ahead on ``workers`` threads."""
        ...

    def as_file(self, *, fill: int = 0) -> MemoryFile:
        """The memory as a seekable read-only file object whose holes read as ``fill``."""
        ...
