"""Guest memory in the segments of an ELF core file; a backing position is the guest physical address itself."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...files.ranges import Coverage
from ...files.source import Source
from ...findings import FindingLog
from ...snapshot import PAGE_SIZE, MemoryRange, Unreadable
from .headers import Load


class _Stretch(NamedTuple):
    """Guest memory from ``start`` to ``end``, of which the file holds what lies before ``stored_end`` from ``offset`` on."""

    start: int
    end: int
    stored_end: int
    offset: int


class Segments:
    """Implements :class:`vmsavedstate.snapshot.PageBacking`. Reads may come from several threads."""

    def __init__(self, source: Source, loads: Sequence[Load], log: FindingLog) -> None:
        self._source = source
        self._stretches = sorted(_disjoint(source, loads, log))
        self._starts = [item.start for item in self._stretches]
        stored = [item for item in self._stretches if item.start < item.stored_end]
        self._stored_starts = [item.start for item in stored]
        self._stored_ends = [item.stored_end for item in stored]

    @property
    def ranges(self) -> tuple[MemoryRange, ...]:
        """The memory as the engine takes it."""
        return tuple(
            MemoryRange(item.start // PAGE_SIZE, (item.end - item.start) // PAGE_SIZE, item.start // PAGE_SIZE)
            for item in self._stretches
        )

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """``size`` bytes from ``position``; what the file does not hold is zero and listed."""
        index = bisect_right(self._starts, position) - 1
        if index >= 0 and position + size <= self._stretches[index].stored_end:
            item = self._stretches[index]
            return self._source.read(item.offset + position - item.start, size), ()
        buffer = bytearray(size)
        lost = self.read_into(position, memoryview(buffer))
        return bytes(buffer), lost

    def read_into(self, position: int, buffer: memoryview) -> Sequence[Unreadable]:
        """The same into a writable byte view."""
        lost: list[Unreadable] = []
        at, end = position, position + len(buffer)
        while at < end:
            item = self._stretches[max(0, bisect_right(self._starts, at) - 1)]
            stored = item.start <= at < item.stored_end
            stop = min(end, item.stored_end if stored else max(item.end, at + 1))
            target = buffer[at - position : stop - position]
            if stored:
                self._source.read_into(item.offset + at - item.start, target)
            else:
                target[:] = bytes(len(target))
                why = "the file does not hold it: it ends early, or the dump was limited"
                lost.append(Unreadable(at, stop, "missing", why, self._source.path))
            at = stop
        return lost

    def next_stored(self, position: int) -> int | None:
        """The first position from ``position`` on that the file holds; None if there is none."""
        index = bisect_right(self._stored_ends, position)
        return max(position, self._stored_starts[index]) if index < len(self._stored_starts) else None

    def describe(self) -> dict[str, int]:
        """The number of segments and their bytes in the file."""
        stored = sum(item.stored_end - item.start for item in self._stretches)
        return {"segments": len(self._stretches), "stored_bytes": stored}

    def check(self, done: Coverage) -> Iterator[int]:
        """Nothing is stored besides what the ranges name."""
        return iter(())


def _disjoint(source: Source, loads: Sequence[Load], log: FindingLog) -> Iterator[_Stretch]:
    """Whole pages of each segment, less what an earlier one covers: dumps by virtual address name pages repeatedly."""
    covered = Coverage()
    by_shift: defaultdict[int, Coverage] = defaultdict(Coverage)
    limited = [load for load in loads if load.file_size < load.memory_size]
    if limited:
        absent = sum(load.memory_size - load.file_size for load in limited)
        log.note(
            "elf.memory.limited",
            source.path,
            limited[0].offset,
            "the dump was limited: it names memory that it does not hold",
            found=f"{absent:#x} bytes in {len(limited)} segments",
        )
    for load in loads:
        start, end = -(-load.gpa // PAGE_SIZE) * PAGE_SIZE, (load.gpa + load.memory_size) // PAGE_SIZE * PAGE_SIZE
        if (start, end) != (load.gpa, load.gpa + load.memory_size):
            log.damage(
                "elf.memory.partial-page",
                source.path,
                load.offset,
                "a memory segment is not of whole pages, its parts of pages are left out",
                found=f"{load.memory_size:#x} bytes at {load.gpa:#x}",
            )
        if end > 1 << 64 or load.file_size > load.memory_size:
            log.damage("elf.memory.impossible", source.path, load.offset, "an impossible memory segment is left out",
                       found=f"{load.memory_size:#x} bytes at {load.gpa:#x}, {load.file_size:#x} in the file")  # fmt: skip
            continue
        stored_end = load.gpa + max(0, min(load.file_size, source.size - load.offset))
        if stored_end < load.gpa + load.file_size:
            log.damage(
                "elf.memory.truncated",
                source.path,
                min(load.offset, source.size),
                "the file ends within a memory segment",
                found=f"{max(0, source.size - load.offset):#x} bytes",
                expected=f"{load.file_size:#x}",
            )
        shift = load.offset - load.gpa
        free = covered.add(start, end)
        if by_shift[shift].add(start, end) != free:  # it overlaps one that keeps its pages elsewhere in the file
            log.damage("elf.memory.overlap", source.path, load.offset, "memory segments overlap, the first one counts",
                       found=f"{load.memory_size:#x} bytes at {load.gpa:#x}")  # fmt: skip
        for low, high in free:
            yield _Stretch(low, high, min(high, max(low, stored_end // PAGE_SIZE * PAGE_SIZE)), shift + low)
