"""RamMemoryBlock values: which guest pages are kept where (format specification, 4.1)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from ...findings import FindingLog
from ...keytree import KeyEntry
from ...snapshot import MemoryRange
from . import layout

MAX_PAGE = 1 << 52


def read_metadata(entries: Sequence[KeyEntry], log: FindingLog) -> tuple[MemoryRange, ...]:
    """The ranges of all values, ascending by guest address and disjoint; of two that overlap the first wins."""
    ranges = [found for entry in entries if (found := _read_range(entry, log)) is not None]
    return _disjoint(ranges, log, entries[0].source.path if entries else None)


def _read_range(entry: KeyEntry, log: FindingLog) -> MemoryRange | None:
    file, at = entry.source.path, entry.value_offset
    if entry.size < layout.RAM_METADATA_PREFIX.size:
        log.damage(file, at, f"{entry.path} is too short, its memory is lost", found=entry.size, expected="0x30")
        return None
    data = entry.read(0, min(entry.size, layout.RAM_METADATA.size))
    version, flags, count, backing, start = layout.RAM_METADATA_PREFIX.unpack_from(data)
    node = 0
    if len(data) == layout.RAM_METADATA.size:
        node = layout.RAM_METADATA.unpack(data)[5]
    if version != layout.RAM_METADATA_VERSION or entry.size != layout.RAM_METADATA.size:
        log.note(
            file, at, f"{entry.path} has another layout than version 3 of 0x30 bytes, its first 0x20 are used",
            found=f"version {version:#x}, {entry.size:#x} bytes",
        )  # fmt: skip
    if not count or start + count > MAX_PAGE or backing + count > MAX_PAGE:
        log.damage(
            file, at, f"{entry.path} describes impossible memory, it is left out",
            found=f"{count:#x} pages from guest page {start:#x}, block page {backing:#x}",
        )  # fmt: skip
        return None
    return MemoryRange(start, count, backing, node, flags)


def _disjoint(ranges: list[MemoryRange], log: FindingLog, file: str | None) -> tuple[MemoryRange, ...]:
    """Cut from every range what an earlier one covers already."""
    covered = _Coverage()
    kept: list[MemoryRange] = []
    for candidate in ranges:
        start, end = candidate.start_page, candidate.start_page + candidate.page_count
        free = covered.add(start, end)
        if free != [(start, end)]:
            log.damage(
                file, None, "memory ranges overlap, the first one counts",
                found=f"{candidate.page_count:#x} pages from guest page {start:#x}",
            )  # fmt: skip
        for low, high in free:
            kept.append(
                MemoryRange(low, high - low, candidate.backing_page + low - start, candidate.node, candidate.flags)
            )
    return tuple(sorted(kept, key=lambda item: item.start_page))


class _Coverage:
    """A union of page intervals, touching ones merged: adding thousands of overlapping ones stays cheap."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Cover ``start`` to ``end``; the parts of it that were free before."""
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
