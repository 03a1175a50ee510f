"""Guest physical memory: reads by address, by raw offset, in batches of pages, and as a stream of blocks.

Knows where pages are kept only through :class:`vmsavedstate.snapshot.PageBacking`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import GuestMemoryError
from ..files.overlay import Patch
from ..integers import as_int
from ..remedies import FILL_BYTE, Remedy
from ..snapshot import PAGE_SIZE, MemoryRange, PageBacking, Unreadable
from ..vocabulary import Reason
from .blocks import PIECE, Kept, MemoryBlock, Part, stream
from .gaps import MemoryGap, merged_gaps
from .lifetime import Lifetime
from .parallel import worker_count
from .requests import MAX_ADDRESS, check_address, check_bounds, check_range, check_request
from .search import Pattern, Progress, Unread, check_pattern, reported, search

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .batch import PageReader
    from .file import MemoryFile


class MemoryChunk(NamedTuple):
    """A maximal run of guest pages, as GPA_MEMORY_CHUNK; ``start_page`` and ``page_count`` in pages of 4096 bytes."""

    start_page: int
    page_count: int

    @property
    def start(self) -> int:
        """First guest physical address, bytes."""
        return self.start_page * PAGE_SIZE

    @property
    def end(self) -> int:
        """The guest physical address behind the last byte."""
        return self.start + self.size

    @property
    def size(self) -> int:
        """Bytes."""
        return self.page_count * PAGE_SIZE

    def to_dict(self) -> dict[str, Any]:
        """The chunk as JSON has it."""
        return {
            "start": hex(self.start), "size": self.size, "start_page": self.start_page, "page_count": self.page_count
        }  # fmt: skip


class MemoryRun(NamedTuple):
    """A piece of an address range: ``gpa`` and ``size`` in bytes, ``position`` in the backing or None for a hole."""

    gpa: int
    size: int
    position: int | None

    @property
    def start(self) -> int:
        """First guest physical address, bytes."""
        return self.gpa

    @property
    def end(self) -> int:
        """The guest physical address behind the last byte."""
        return self.gpa + self.size


class GuestPhysicalMemory:
    """The saved guest memory.

    All addresses and sizes are bytes unless a name says pages. Reads may come from several threads at once. A read of
    memory that is not there raises GuestMemoryError, which names the range, unless a ``fill`` byte is given. In strict
    mode a fill byte stands for holes only: missing and damaged blocks are errors all the same.
    """

    page_size = PAGE_SIZE

    def __init__(
        self,
        ranges: Sequence[MemoryRange],
        backing: PageBacking,
        *,
        strict: bool = False,
        lifetime: Lifetime | None = None,
    ) -> None:
        self.strict = strict
        self.lifetime = Lifetime() if lifetime is None else lifetime
        self.lifetime.add(self)
        self.ranges = tuple(sorted(ranges, key=lambda item: item.start_page))
        self.backing = backing
        self._starts = _column(item.start_page * PAGE_SIZE for item in self.ranges)
        self._ends = _column((item.start_page + item.page_count) * PAGE_SIZE for item in self.ranges)
        self._positions = _column(item.backing_page * PAGE_SIZE for item in self.ranges)
        sizes = (item.page_count * PAGE_SIZE for item in self.ranges)
        self._raw_starts = _column(accumulate(sizes, initial=0))
        self.size = self._raw_starts.pop()
        self._recent = (0, 0, 0)  # the range that was read last

    def to_dict(self) -> dict[str, Any]:
        """The map of memory as JSON has it: chunks, and ranges as they are stored."""
        return {
            "page_size": self.page_size,
            "size": self.size,
            "chunks": [item.to_dict() for item in self.chunks],
            "ranges": [item.to_dict() for item in self.ranges],
        }

    def forget(self) -> None:
        """The state is closed: no read may be answered by what was looked up before."""
        self._recent = (0, 0, 0)

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
        return self._runs(*check_range(gpa, size))

    def _runs(self, gpa: int, size: int) -> Iterator[MemoryRun]:
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
        if (
            fill is None and type(gpa) is int and type(size) is int and 0 < size <= PAGE_SIZE
        ):  # the common case, quickly
            start, end, shift = self._recent
            if not start <= gpa < end:
                start, end, shift = self._recent = self._range_of(gpa)
            if start <= gpa and gpa + size <= end:
                data, lost = self.backing.read(gpa + shift, size)
                if not lost:
                    return data
        gpa, size, fill = check_request(gpa, size, fill)
        self.lifetime.check()
        if fill is None:
            self._require(gpa, size, FILL_BYTE)
        parts: list[bytes] = []
        for run in list(self._runs(gpa, size)):
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
        from .overlay import OverlaidBacking

        patches: list[Patch] = []
        for address, data in fixes:
            gpa = check_address(address)
            self.require(gpa, len(data))
            for run in self._runs(gpa, len(data)):
                assert run.position is not None
                patches.append(Patch(run.position, bytes(data[run.gpa - gpa : run.gpa - gpa + run.size])))
        return self._over(OverlaidBacking(self.backing, patches))

    def cached(self, limit: int) -> GuestPhysicalMemory:
        """The same memory with the last ``limit`` decoded blocks of 1 MiB kept, for reads that come back to them."""
        from .block_cache import CachedBacking

        return self._over(CachedBacking(self.backing, as_int(limit, "limit")))

    def _over(self, backing: PageBacking) -> GuestPhysicalMemory:
        """The same ranges over another backing; it ends with this one."""
        return GuestPhysicalMemory(self.ranges, backing, strict=self.strict, lifetime=self.lifetime)

    def _range_of(self, gpa: int) -> tuple[int, int, int]:
        """Start and end of the range an address is in, and what leads to its backing position; nothing in a hole."""
        self.lifetime.check()
        index = bisect_right(self._starts, gpa) - 1
        if index < 0 or gpa >= self._ends[index]:
            return 0, 0, 0
        return self._starts[index], self._ends[index], self._positions[index] - self._starts[index]

    def read_into(self, gpa: int, buffer: bytearray | memoryview, *, fill: int | None = None) -> None:
        """Fill a writable buffer from guest physical address ``gpa``; as :meth:`read`, without a copy where possible.

        After an error the buffer's content is undefined.
        """
        view = memoryview(buffer).cast("B")
        gpa, _, fill = check_request(gpa, len(view), fill)
        self.lifetime.check()
        if fill is None:
            self._require(gpa, len(view), FILL_BYTE)
        for run in list(self._runs(gpa, len(view))):
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
        self.lifetime.check()
        return self._page_reader.read(page_numbers)

    @cached_property
    def _page_reader(self) -> PageReader:
        from .batch import PageReader

        return PageReader(self.ranges, self.backing, strict=self.strict)

    def require(self, gpa: int, size: int) -> None:
        """Raise GuestMemoryError for the first hole between ``gpa`` and ``gpa + size``; reads nothing."""
        gpa, size = check_range(gpa, size)
        self.lifetime.check()
        self._require(gpa, size)

    def _require(self, gpa: int, size: int, remedy: Remedy | None = None) -> None:
        for run in self._runs(gpa, size):
            if run.position is None:
                verb = "is" if run.size == 1 else "are"
                raise GuestMemoryError(
                    f"guest physical {_addresses(run.gpa, run.end)} {verb} not part of the saved memory",
                    start=run.gpa,
                    end=run.end,
                    reason=Reason.HOLE,
                    file=self.lifetime.file,
                    remedy=remedy,
                )

    def is_valid(self, gpa: int, size: int = 1) -> bool:
        """Whether all of ``gpa`` to ``gpa + size`` can be read: true exactly where :meth:`gaps` yields nothing."""
        return next(self.gaps(gpa, size), None) is None

    def gaps(self, gpa: int, size: int) -> Iterator[MemoryGap]:
        """What of ``gpa`` to ``gpa + size`` cannot be delivered, ascending: holes, missing and damaged blocks.

        Reads and decodes the range, of any length, in pieces of 1 MiB. Raises SourceError, InvalidArgumentError.
        """
        gpa, size = check_range(gpa, size)
        self.lifetime.check()
        blocks = stream(self.backing, self._parts(gpa, gpa + size), 1)
        return merged_gaps(gap for block in blocks for gap in block.gaps)

    def blocks(self, start: int = 0, end: int | None = None, workers: int | None = None) -> Iterator[MemoryBlock]:
        """Memory as a stream: :class:`MemoryBlock` items that tile ``start`` to ``end`` in order, without overlap.

        What can be read comes as ``data``, at most 1 MiB an item; what cannot as one item with empty ``data`` and one
        gap, however large it is. ``end`` is that of the last chunk unless given; above it all is a hole.

        Blocks are read and decoded ahead on ``workers`` threads (1 or more, 256 at most are used; None means one for
        each core), at most 16 MiB for each. Leaving the loop early ends them. Lost memory is in the gaps in strict
        mode, too. Raises SourceError, InvalidArgumentError.
        """
        first, last = check_bounds(start, self.end if end is None else end)
        threads = worker_count(workers)
        self.lifetime.check()
        return stream(self.backing, self._parts(first, last), threads)

    def as_file(self, *, fill: int = 0) -> MemoryFile:
        """The memory as a seekable read-only ``io.RawIOBase`` up to the last chunk; holes read as ``fill`` (0 to 255)."""
        self.lifetime.check()
        from .file import MemoryFile

        return MemoryFile(self, self.end, fill)

    @property
    def end(self) -> int:
        """The guest physical address behind the last chunk; 0 without memory."""
        return max(self._ends, default=0)

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
        first, last = check_bounds(start, end)
        check_pattern(pattern)
        self.lifetime.check()
        blocks = stream(self.backing, self._parts(first, last), worker_count(None))
        refuse = self.refuse_gap if self.strict else None
        return search(reported(blocks, progress, unread, refuse), pattern)

    def refuse_gap(self, gap: MemoryGap) -> None:
        """Raise GuestMemoryError for a gap, with what is known of its first byte."""
        self.read(gap.start, min(gap.size, PIECE))
        raise AssertionError(f"{gap} can be read")

    def _parts(self, start: int, end: int) -> Iterator[Part]:
        for run in self._runs(start, max(0, end - start)):
            if run.position is None:
                yield MemoryGap(run.gpa, run.end, Reason.HOLE)
            else:
                yield Kept(run.gpa, run.size, run.position)

    def raw_offset(self, gpa: int) -> int:
        """Offset of ``gpa`` in the flat stream of saved memory, bytes. Raises GuestMemoryError for a hole."""
        gpa = check_address(gpa)
        self.lifetime.check()
        index = bisect_right(self._starts, gpa) - 1
        if index < 0 or gpa >= self._ends[index]:
            self._require(gpa, 1)
        return self._raw_starts[index] + gpa - self._starts[index]

    def read_raw(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the flat stream: all chunks one after another, without the holes.

        Short only at the end of the stream, empty behind it. Raises GuestMemoryError for missing or damaged blocks.
        """
        offset, size, _ = check_request(offset, size, None)
        self.lifetime.check()
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        try:
            parts = [self.read(run.gpa, run.size) for run in self.raw_runs(offset, size)]
        except GuestMemoryError as error:
            error.remedy = None  # there is no fill byte here
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def raw_runs(self, offset: int, size: int) -> Iterator[MemoryRun]:
        """Where ``size`` bytes of the flat stream from ``offset`` on stand in guest memory, up to the end of the stream."""
        return self._raw_runs(*check_range(offset, size))

    def _raw_runs(self, offset: int, size: int) -> Iterator[MemoryRun]:
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
            if fill is None or (self.strict and item.reason != Reason.HOLE):
                low, high = run.gpa + start, run.gpa + end
                raise GuestMemoryError(
                    f"guest physical {_addresses(low, high)} cannot be read: {item.message}",
                    start=low,
                    end=high,
                    reason=item.reason,
                    file=item.file,
                    remedy=FILL_BYTE if fill is None else None,
                )
            target[start:end] = bytes((fill,)) * (end - start)


def _column(values: Iterator[int]) -> array[int] | list[int]:
    """Numbers in little memory; as a list where one has more than 64 bits, such as the end of all addresses."""
    listed = list(values)
    try:
        return array("Q", listed)
    except OverflowError:
        return listed


def _addresses(start: int, end: int) -> str:
    return f"address {start:#x}" if end - start == 1 else f"addresses {start:#x} to {end - 1:#x}"
