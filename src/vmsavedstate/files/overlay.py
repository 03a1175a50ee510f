"""Bytes that stand over other bytes: a pending replay log over its file, a fix over guest memory. Nothing is written."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .ranges import Coverage


class Patch(NamedTuple):
    """Bytes that stand over what is there from ``offset`` (bytes) on."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """First byte offset behind the patch."""
        return self.offset + len(self.data)


class PatchSet:
    """Patches in the order they were made; of those that overlap the later one shows. Does not change."""

    def __init__(self, patches: Sequence[Patch] = ()) -> None:
        self._patches = _disjoint(patches)
        self._starts = [patch.offset for patch in self._patches]

    def __iter__(self) -> Iterator[Patch]:
        """The disjoint pieces, ascending."""
        return iter(self._patches)

    def __len__(self) -> int:
        """How many disjoint pieces there are; an empty set is false."""
        return len(self._patches)

    @property
    def end(self) -> int:
        """First offset behind all patches, bytes; 0 without any."""
        return self._patches[-1].end if self._patches else 0

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, memoryview]]:
        """(start, end, bytes) of what stands over ``start`` to ``end`` (excluded), ascending and disjoint."""
        for number in range(max(0, bisect_right(self._starts, start) - 1), bisect_left(self._starts, end)):
            patch = self._patches[number]
            low, high = max(start, patch.offset), min(end, patch.end)
            if low < high:
                yield low, high, memoryview(patch.data)[low - patch.offset : high - patch.offset]

    def lay_over(self, offset: int, buffer: memoryview) -> None:
        """Write what stands over the bytes from ``offset`` on into ``buffer``, which holds them."""
        for low, high, data in self.pieces(offset, offset + len(buffer)):
            buffer[low - offset : high - offset] = data

    def next(self, offset: int) -> int | None:
        """The first offset from ``offset`` on that something stands over; None if there is none."""
        number = bisect_right(self._starts, offset)
        if number and self._patches[number - 1].end > offset:
            return offset
        return self._starts[number] if number < len(self._starts) else None


def _disjoint(patches: Sequence[Patch]) -> list[Patch]:
    """Disjoint patches in ascending order; of those that overlap the later one shows."""
    covered = Coverage()
    pieces = [
        Patch(low, patch.data[low - patch.offset : high - patch.offset])
        for patch in reversed(patches)
        for low, high in covered.add(patch.offset, patch.end)
    ]
    return sorted(pieces, key=lambda patch: patch.offset)
