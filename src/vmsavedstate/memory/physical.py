"""Guest physical memory: reads by address, by raw offset, and in batches of pages.

Knows where pages are kept only through :class:`vmsavedstate.snapshot.PageBacking`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from ..errors import GuestMemoryError
from ..files.overlay import Patch
from ..snapshot import PAGE_SIZE, MemoryRange, PageBacking, Unreadable
from .block_cache import CachedBacking
from .gaps import MemoryGap, merged_gaps
from .overlay import OverlaidBacking
from .requests import MAX_ADDRESS, check_request
from .search import Pattern, Piece, Progress, Unread, search

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .batch import PageReader

GAP_PIECE = 1 << 20


class MemoryChunk(NamedTuple):
    """A maximal run of guest pages, as GPA_MEMORY_CHUNK; ``start_page`` and ``page_count`` in pages of 4096 bytes."""

    start_page: int
    page_count: int

    @property
    def start(self) -> int:
        """First guest physical address, bytes."""
        return self.start_page * PAGE_SIZE

    @property
    def size(self) -> int:
        """Bytes."""
        return self.page_count * PAGE_SIZE


class MemoryRun(NamedTuple):
    """A piece of an address range: ``gpa`` and ``size`` in bytes, ``position`` in the backing or None for a hole."""

    gpa: int
    size: int
    position: int | None


class GuestPhysicalMemory:
    """The saved guest memory.

    All addresses and sizes are bytes unless a name says pages. Reads may come from several threads at once. A read of
    memory that is not there raises GuestMemoryError, which names the range, unless a ``fill`` byte is given. In strict
    mode a fill byte stands for holes only: missing and damaged blocks are errors all the same.
    """

    page_size = PAGE_SIZE

    def __init__(self, ranges: Sequence[MemoryRange], backing: PageBacking, *, strict: bool = False) -> None:
        self.strict = strict
        self.ranges = tuple(sorted(ranges, key=lambda item: item.start_page))
        self.backing = backing
        self._starts = [item.start_page * PAGE_SIZE for item in self.ranges]
        self._ends = [(item.start_page + item.page_count) * PAGE_SIZE for item in self.ranges]
        self._positions = [item.backing_page * PAGE_SIZE for item in self.ranges]
        sizes = [item.page_count * PAGE_SIZE for item in self.ranges]
        self._raw_starts = [0, *accumulate(sizes)]
        self.size = self._raw_starts.pop()
        self._recent = (0, 0, 0)  # the range that was read last

    def __repr__(self) -> str:
        """Size and chunks, for people at a prompt."""
        return f"<GuestPhysicalMemory {self.size:#x} bytes in {len(self.chunks)} chunks>"

    @property
    def chunks(self) -> tuple[MemoryChunk, ...]:
        """Maximal runs of pages, ascending; neighbouring ranges (NUMA nodes) are one chunk."""
        merged: list[MemoryChunk] = []
        for item in self.ranges:
            if merged and merged[-1].start_page + merged[-1].page_count == item.start_page:
                last = merged.pop()
                merged.append(MemoryChunk(last.start_page, last.page_count + item.page_count))
            else:
                merged.append(MemoryChunk(item.start_page, item.page_count))
        return tuple(merged)

    def runs(self, gpa: int, size: int) -> Iterator[MemoryRun]:
        """The pieces of ``gpa`` to ``gpa + size``, in order and without gaps: saved runs and holes."""
        end = gpa + size
        index = max(0, bisect_right(self._starts, gpa) - 1)
        while gpa < end:
            while index < len(self._starts) and self._ends[index] <= gpa:
                index += 1
            start = self._starts[index] if index < len(self._starts) else end
            if gpa < start:
                stop = min(start, end)
                yield MemoryRun(gpa, stop - gpa, None)
            else:
                stop = min(self._ends[index], end)
                yield MemoryRun(gpa, stop - gpa, self._positions[index] + gpa - start)
            gpa = stop

    def read(self, gpa: int, size: int, *, fill: int | None = None) -> bytes:
        """``size`` bytes from guest physical address ``gpa``.

        With ``fill`` (0 to 255) holes, missing and damaged blocks read as that byte; damage is among the findings all
        the same. Raises GuestMemoryError, SourceError, InvalidArgumentError (negative numbers, more than 4 GiB at
        once).
        """
        if fill is None and 0 < size <= PAGE_SIZE:  # the common case, quickly
            start, end, shift = self._recent
            if not start <= gpa < end:
                start, end, shift = self._recent = self._range_of(gpa)
            if start <= gpa and gpa + size <= end:
                data, lost = self.backing.read(gpa + shift, size)
                if not lost:
                    return data
        check_request(gpa, size, fill)
        if fill is None:
            self.require(gpa, size)
        runs = list(self.runs(gpa, size))
        parts: list[bytes] = []
        for run in runs:
            if run.position is None:
                parts.append(bytes((fill or 0,)) * run.size)
                continue
            data, lost = self.backing.read(run.position, run.size)
            if lost:
                patched = bytearray(data)
                self._fill_lost(run, memoryview(patched), lost, fill)
                data = bytes(patched)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def overlaid(self, fixes: Iterable[tuple[int, bytes]]) -> GuestPhysicalMemory:
        """The same memory with bytes laid over it: (guest physical address, bytes), later ones over earlier ones.

        Neither this object nor the file changes. Raises GuestMemoryError for a fix that reaches into a hole.
        """
        patches: list[Patch] = []
        for gpa, data in fixes:
            self.require(gpa, len(data))
            for run in self.runs(gpa, len(data)):
                assert run.position is not None
                patches.append(Patch(run.position, bytes(data[run.gpa - gpa : run.gpa - gpa + run.size])))
        return GuestPhysicalMemory(self.ranges, OverlaidBacking(self.backing, patches), strict=self.strict)

    def cached(self, limit: int) -> GuestPhysicalMemory:
        """The same memory with the last ``limit`` decoded blocks of 1 MiB kept, for reads that come back to them."""
        return GuestPhysicalMemory(self.ranges, CachedBacking(self.backing, limit), strict=self.strict)

    def _range_of(self, gpa: int) -> tuple[int, int, int]:
        """Start and end of the range an address is in, and what leads to its backing position; nothing in a hole."""
        index = bisect_right(self._starts, gpa) - 1
        if index < 0 or gpa >= self._ends[index]:
            return 0, 0, 0
        return self._starts[index], self._ends[index], self._positions[index] - self._starts[index]

    def read_into(self, gpa: int, buffer: bytearray | memoryview, *, fill: int | None = None) -> None:
        """Fill a writable buffer from guest physical address ``gpa``; as :meth:`read`, without a copy where possible.

        After an error the buffer's content is undefined.
        """
        view = memoryview(buffer).cast("B")
        check_request(gpa, len(view), fill)
        if fill is None:
            self.require(gpa, len(view))
        runs = list(self.runs(gpa, len(view)))
        for run in runs:
            target = view[run.gpa - gpa : run.gpa - gpa + run.size]
            if run.position is None:
                target[:] = bytes((fill or 0,)) * run.size
            else:
                lost = self.backing.read_into(run.position, target)
                if lost:
                    self._fill_lost(run, target, lost, fill)

    def pages(
        self, page_numbers: Sequence[int] | npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """A batch of guest pages, in any order and with repeats.

        Returns an array of shape (n, 4096), uint8, and a mask of shape (n,): False where the page is in a hole,
        missing or damaged; such rows are zero. In strict mode missing and damaged pages raise GuestMemoryError.
        """
        return self._page_reader.read(page_numbers)

    @cached_property
    def _page_reader(self) -> PageReader:
        from .batch import PageReader

        return PageReader(self.ranges, self.backing, strict=self.strict)

    def require(self, gpa: int, size: int) -> None:
        """Raise GuestMemoryError for the first hole between ``gpa`` and ``gpa + size``; reads nothing."""
        check_request(gpa, 0, None)
        for run in self.runs(gpa, size):
            if run.position is None:
                _refuse_hole(run)

    def gaps(self, gpa: int, size: int) -> Iterator[MemoryGap]:
        """What of ``gpa`` to ``gpa + size`` cannot be delivered, ascending: holes, missing and damaged blocks.

        Reads and decodes the range, of any length, in pieces of 1 MiB. Raises SourceError, InvalidArgumentError.
        """
        check_request(gpa, 0, None)
        return merged_gaps(self._single_gaps(gpa, size))

    def find(
        self,
        pattern: Pattern,
        start: int = 0,
        end: int = MAX_ADDRESS,
        *,
        progress: Progress | None = None,
        unread: Unread | None = None,
    ) -> Iterator[int]:
        """The guest physical addresses of ``pattern`` between ``start`` and ``end`` (excluded), ascending.

        ``pattern`` is bytes, whose matches may overlap, or a compiled regular expression of bytes, whose matches do not;
        of one longer than 64 KiB the end may be missed. Matches lie across pages and blocks, never across holes.
        ``progress`` is called with the bytes searched so far. Missing and damaged memory is not searched: ``unread`` is
        called with every MemoryGap of it, and it is among the findings; in strict mode it raises GuestMemoryError. Raises
        InvalidArgumentError for a pattern that is empty or could match nothing.
        """
        check_request(start, 0, None)
        runs = self.runs(start, max(0, min(end, MAX_ADDRESS) - start))
        pieces = (Piece(run.gpa, run.size, run.position) for run in runs if run.position is not None)
        return search(self.backing, pieces, pattern, progress, strict=self.strict, unread=unread)

    def _single_gaps(self, gpa: int, size: int) -> Iterator[MemoryGap]:
        for run in self.runs(gpa, size):
            if run.position is None:
                yield MemoryGap(run.gpa, run.gpa + run.size, "hole")
                continue
            done = 0
            while done < run.size:
                position = run.position + done
                stored = self.backing.next_stored(position)
                absent = run.size - done if stored is None else min(stored - position, run.size - done)
                if absent:  # in one step: the metadata of a hostile file may claim any number of pages
                    yield MemoryGap(run.gpa + done, run.gpa + done + absent, "missing")
                    done += absent
                    continue
                piece = min(GAP_PIECE - position % GAP_PIECE, run.size - done)
                _, lost = self.backing.read(position, piece)
                base, at = run.gpa - run.position, position  # several pages of one read may each report the same loss
                for item in sorted(lost, key=lambda item: item.start):
                    start, end = max(item.start, at), min(item.end, position + piece)
                    if start < end:
                        yield MemoryGap(start + base, end + base, item.reason)
                        at = end
                done += piece

    def raw_offset(self, gpa: int) -> int:
        """Offset of ``gpa`` in the flat stream of saved memory, bytes. Raises GuestMemoryError for a hole."""
        check_request(gpa, 0, None)
        index = bisect_right(self._starts, gpa) - 1
        if index < 0 or gpa >= self._ends[index]:
            self.require(gpa, 1)
        return self._raw_starts[index] + gpa - self._starts[index]

    def read_raw(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the flat stream: all chunks one after another, without the holes.

        Short only at the end of the stream, empty behind it. Raises GuestMemoryError for missing or damaged blocks.
        """
        check_request(offset, size, None)
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        parts = [self.read(run.gpa, run.size) for run in self.raw_runs(offset, size)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def raw_runs(self, offset: int, size: int) -> Iterator[MemoryRun]:
        """Where ``size`` bytes of the flat stream from ``offset`` on stand in guest memory, up to the end of the stream."""
        size = min(size, self.size - offset)
        index = bisect_right(self._raw_starts, offset) - 1
        while size > 0:
            inside = offset - self._raw_starts[index]
            piece = min(size, self._ends[index] - self._starts[index] - inside)
            yield MemoryRun(self._starts[index] + inside, piece, self._positions[index] + inside)
            offset, size, index = offset + piece, size - piece, index + 1

    def _fill_lost(self, run: MemoryRun, target: memoryview, lost: Sequence[Unreadable], fill: int | None) -> None:
        """Write the fill byte over what could not be read, or raise for the first of it."""
        assert run.position is not None
        for item in lost:
            start = max(item.start, run.position) - run.position
            end = min(item.end, run.position + run.size) - run.position
            if start >= end:
                continue
            if fill is None or self.strict:
                low, high = run.gpa + start, run.gpa + end
                raise GuestMemoryError(
                    f"guest physical {_addresses(low, high)} cannot be read: {item.message}",
                    start=low,
                    end=high,
                    reason=item.reason,
                    file=item.file,
                )
            target[start:end] = bytes((fill,)) * (end - start)


def _addresses(start: int, end: int) -> str:
    return f"address {start:#x}" if end - start == 1 else f"addresses {start:#x} to {end - 1:#x}"


def _refuse_hole(run: MemoryRun) -> None:
    end = run.gpa + run.size
    raise GuestMemoryError(
        f"guest physical {_addresses(run.gpa, end)} {'is' if run.size == 1 else 'are'} not part of the saved memory",
        start=run.gpa,
        end=end,
        reason="hole",
    )
