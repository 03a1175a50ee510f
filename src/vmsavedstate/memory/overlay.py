"""Guest memory with other bytes laid over it, in memory only: a fix that an analyst wants to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..files.overlay import Patch, PatchSet
from ..files.ranges import Coverage
from ..snapshot import PageBacking, Unreadable


class OverlaidBacking:
    """A backing under patches, whose offsets are backing positions. What is patched can be read, whatever lies below."""

    def __init__(self, backing: PageBacking, patches: Sequence[Patch]) -> None:
        self._backing = backing
        self._patches = PatchSet(patches)

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """See PageBacking."""
        data, lost = self._backing.read(position, size)
        if self._patches.next(position) is None:
            return data, lost
        buffer = bytearray(data)
        self._patches.lay_over(position, memoryview(buffer))
        return bytes(buffer), self._still(lost)

    def read_into(self, position: int, buffer: memoryview) -> Sequence[Unreadable]:
        """See PageBacking."""
        lost = self._backing.read_into(position, buffer)
        self._patches.lay_over(position, buffer)
        return self._still(lost)

    def next_stored(self, position: int) -> int | None:
        """See PageBacking."""
        places = (self._backing.next_stored(position), self._patches.next(position))
        return min((place for place in places if place is not None), default=None)

    def describe(self) -> dict[str, int]:
        """See PageBacking: what the file holds."""
        return self._backing.describe()

    def check(self, done: Coverage) -> Iterator[int]:
        """See PageBacking: what the file holds."""
        return self._backing.check(done)

    def _still(self, lost: Sequence[Unreadable]) -> list[Unreadable]:
        """What is unreadable apart from the patches."""
        left: list[Unreadable] = []
        for item in lost:
            at = item.start
            for low, high, _ in self._patches.pieces(item.start, item.end):
                if at < low:
                    left.append(item._replace(start=at, end=low))
                at = high
            if at < item.end:
                left.append(item._replace(start=at))
        return left
