"""Arithmetic of half-open integer ranges, cheap for thousands that overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Coverage:
    """A union of ranges, touching ones merged; adding one costs O(log n) and the moving of a list."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Cover ``start`` to ``end``; the parts of it that were free before, ascending."""
        if start >= end:
            return []
        low, high = bisect_left(self._ends, start), bisect_right(self._starts, end)
        free: list[tuple[int, int]] = []
        at = start
        for taken_from, taken_to in zip(self._starts[low:high], self._ends[low:high], strict=True):
            if at < taken_from:
                free.append((at, taken_from))
            at = max(at, taken_to)
        if at < end:
            free.append((at, end))
        first = min(start, self._starts[low]) if low < high else start
        last = max(end, self._ends[high - 1]) if low < high else end
        self._starts[low:high] = [first]
        self._ends[low:high] = [last]
        return free

    def covers(self, start: int, end: int) -> bool:
        """Whether all of ``start`` to ``end`` is covered."""
        at = bisect_right(self._starts, start) - 1
        return start >= end or (at >= 0 and self._ends[at] >= end)

    def spans(self) -> list[tuple[int, int]]:
        """The (start, end) of all that is covered, ascending and disjoint."""
        return list(zip(self._starts, self._ends, strict=True))
