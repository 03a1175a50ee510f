"""Guest memory in the segments of an ELF core file; a backing position is the guest physical address itself.

Segments begin and end at any byte: a crash kernel's ``/proc/vmcore`` has ranges such as 0 to 0x9fc00, and a dump may be of
part of memory. The engine counts in pages, so a page that a segment fills in part is a page of memory, and the rest of it is
a hole.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...files.ranges import Coverage
from ...files.source import Source
from ...findings import FindingLog
from ...snapshot import PAGE_SIZE, MemoryRange, Unreadable
from ...vocabulary import Reason
from .headers import Load

COMPARED = 1 << 20  # bytes of two copies that are compared at a time


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
        self._log = log
        self._copies: list[_Stretch] = []
        self._copied = Coverage()  # file offsets: what a hostile file names again and again is compared once
        found = self._one_by_one(loads) if _are_apart(loads) else sorted(self._disjoint(loads))
        # Columns instead of objects: there may be a million. The ends are of the last byte, which fits into 64 bits.
        self._starts, self._lasts, self._stored, self._offsets = (array("Q") for _ in range(4))
        for item in found:
            self._starts.append(item.start)
            self._lasts.append(item.end - 1)
            self._stored.append(item.stored_end - item.start)
            self._offsets.append(item.offset)
        count = len(self._starts)
        self._next_stored = array("Q", [count] * (count + 1))  # of each, itself or the next of which the file holds any
        for index in reversed(range(count)):
            self._next_stored[index] = index if self._stored[index] else self._next_stored[index + 1]

    @property
    def ranges(self) -> tuple[MemoryRange, ...]:
        """The memory as the engine takes it: a range per segment, of every page that it fills at least in part."""
        found: list[MemoryRange] = []
        done = 0  # the page behind the last range: two segments may share one
        for start, last in zip(self._starts, self._lasts, strict=True):
            first, end = max(done, start // PAGE_SIZE), last // PAGE_SIZE + 1
            if first < end:
                found.append(MemoryRange(first, end - first, first))
                done = end
        return tuple(found)

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """``size`` bytes from ``position``; what the file does not hold is zero and listed."""
        index = bisect_right(self._starts, position) - 1
        if index >= 0 and position - self._starts[index] + size <= self._stored[index]:
            return self._source.read(self._offsets[index] + position - self._starts[index], size), ()
        buffer = bytearray(size)
        lost = self.read_into(position, memoryview(buffer))
        return bytes(buffer), lost

    def read_into(self, position: int, buffer: memoryview) -> Sequence[Unreadable]:
        """The same into a writable byte view."""
        lost: list[Unreadable] = []
        at, end = position, position + len(buffer)
        while at < end:
            index = bisect_right(self._starts, at) - 1
            item = self._stretch(index) if index >= 0 else None
            if item is not None and at < item.stored_end:
                stop = min(end, item.stored_end)
                self._source.read_into(item.offset + at - item.start, buffer[at - position : stop - position])
            else:
                claimed = item is not None and at < item.end
                following = self._starts[index + 1] if index + 1 < len(self._starts) else end
                stop = min(end, item.end if item is not None and claimed else following)
                buffer[at - position : stop - position] = bytes(stop - at)
                lost.append(self._lost(at, stop, claimed))
            at = stop
        return lost

    def _lost(self, start: int, end: int, claimed: bool) -> Unreadable:
        if not claimed:
            return Unreadable(start, end, Reason.HOLE, "no segment of the dump covers this part of the page")
        why = "the file does not hold it: it ends early, or the dump was limited"
        return Unreadable(start, end, Reason.MISSING, why, self._source.path)

    def next_stored(self, position: int) -> int | None:
        """The first position from ``position`` on that is in a page of which the file holds something; None if none is."""
        index = max(0, bisect_right(self._starts, position) - 1)
        # Of whole pages, so that the rest of a page is read, and found to be a hole.
        if index < len(self._starts) and position >= _page_end(self._starts[index] + self._stored[index]):
            index += 1
        index = self._next_stored[index]
        return max(position, self._starts[index] // PAGE_SIZE * PAGE_SIZE) if index < len(self._starts) else None

    def _stretch(self, index: int) -> _Stretch:
        start = self._starts[index]
        return _Stretch(start, self._lasts[index] + 1, start + self._stored[index], self._offsets[index])

    def describe(self) -> dict[str, int]:
        """The number of segments and their bytes in the file."""
        return {"segments": len(self._starts), "stored_bytes": sum(self._stored)}

    def check(self, done: Coverage) -> Iterator[int]:
        """Compare second copies of memory with the first ones, which are read."""
        checked = 0
        for copy in self._copies:
            for start in range(copy.start, copy.end, COMPARED):
                size = min(COMPARED, copy.end - start)
                first, lost = self.read(start, size)
                if not lost and first != self._source.read(copy.offset + start - copy.start, size):
                    self._log.note(
                        "elf.memory.copy-differs", self._source.path, copy.offset + start - copy.start,
                        f"a second copy of guest memory at {start:#x} differs from the first, which counts",
                    )  # fmt: skip
                    break
                checked += size
                yield checked

    def _one_by_one(self, loads: Sequence[Load]) -> Iterator[_Stretch]:
        """Each segment as it is; they do not overlap."""
        _report_limited(loads, self._source, self._log)
        for load in sorted(loads):
            if load.memory_size:
                yield _Stretch(load.gpa, load.gpa + load.memory_size, self._stored_end(load), load.offset)

    def _disjoint(self, loads: Sequence[Load]) -> Iterator[_Stretch]:
        """Each segment, less what an earlier one covers: dumps by virtual address name pages repeatedly."""
        _report_limited(loads, self._source, self._log)
        covered = Coverage()
        by_shift: dict[int, Coverage] = {}
        inside = _Insides()
        for load in loads:
            if load.gpa + load.memory_size > 1 << 64 or load.file_size > load.memory_size:
                self._log.damage(
                    "elf.memory.impossible", self._source.path, load.offset, "an impossible memory segment is left out",
                    found=f"{load.memory_size:#x} bytes at {load.gpa:#x}, {load.file_size:#x} in the file",
                )  # fmt: skip
                continue
            stored_end = self._stored_end(load)
            shift = load.offset - load.gpa
            free = covered.add(load.gpa, load.gpa + load.memory_size)
            own = by_shift.setdefault(shift, Coverage()).add(load.gpa, load.gpa + load.memory_size)
            if own != free:  # it overlaps one that keeps its bytes elsewhere in the file
                self._take_copy(load, free, stored_end, bool(free) and inside.cut_by(load))
            inside.add(load)
            for low, high in free:
                yield _Stretch(low, high, min(high, max(low, stored_end)), shift + low)

    def _take_copy(self, load: Load, free: list[tuple[int, int]], stored_end: int, partial: bool) -> None:
        """Keep a second copy for :meth:`check`: the kernel's text in ``/proc/vmcore`` is one, inside of a larger segment."""
        start, end = load.gpa, load.gpa + load.memory_size
        where = (self._source.path, load.offset)
        found = f"{load.memory_size:#x} bytes at {load.gpa:#x}"
        if partial:  # neither is part of the other
            message = "memory segments overlap, the first one counts"
            self._log.damage("elf.memory.overlap", *where, message, found=found)
            return
        message = "the file holds a second copy of guest memory, the first one counts"
        self._log.note("elf.memory.copy", *where, message, found=found)
        at = start
        for low, high in [*free, (end, end)]:
            held = min(low, stored_end)
            for first, last in self._copied.add(load.offset + at - start, load.offset + held - start):
                move = start - load.offset
                self._copies.append(_Stretch(first + move, last + move, last + move, first))
            at = high

    def _stored_end(self, load: Load) -> int:
        """The guest physical address up to which the file holds a segment."""
        held = max(0, min(load.file_size, self._source.size - load.offset))
        if held < load.file_size:
            self._log.damage(
                "elf.memory.truncated", self._source.path, min(load.offset, self._source.size),
                "the file ends within a memory segment", found=f"{held:#x} bytes", expected=f"{load.file_size:#x}",
            )  # fmt: skip
        return load.gpa + held


def _page_end(address: int) -> int:
    return -(-address // PAGE_SIZE) * PAGE_SIZE


def _are_apart(loads: Sequence[Load]) -> bool:
    """Whether segments are possible and do not overlap, as those of every sound dump but of virtual memory."""
    end = 0
    for load in sorted(loads):
        if load.gpa < end or load.file_size > load.memory_size:
            return False
        end = load.gpa + load.memory_size
    return end <= 1 << 64


class _Insides:
    """The segments so far, by what is between their first and last byte: bounds count 2 for each address, so that
    neighbours that touch are not one."""

    def __init__(self) -> None:
        self._covered = Coverage()

    def add(self, load: Load) -> None:
        """One segment more."""
        self._covered.add(2 * load.gpa + 1, 2 * (load.gpa + load.memory_size))

    def cut_by(self, load: Load) -> bool:
        """Whether the start or the end of ``load`` is inside of a segment."""
        return any(self._covered.covers(2 * at, 2 * at + 1) for at in (load.gpa, load.gpa + load.memory_size))


def _report_limited(loads: Sequence[Load], source: Source, log: FindingLog) -> None:
    limited = [load for load in loads if load.file_size < load.memory_size]
    if limited:
        absent = sum(load.memory_size - load.file_size for load in limited)
        log.note(
            "elf.memory.limited", source.path, limited[0].offset,
            "the dump was limited: it names memory that it does not hold",
            found=f"{absent:#x} bytes in {len(limited)} segments",
        )  # fmt: skip
