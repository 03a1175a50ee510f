"""An address space: translation, reading and searching of guest virtual memory through one set of page tables."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ..datatypes.enums import PagingMode
from ..errors import GuestMemoryError, PageNotMapped
from ..memory import (
    GuestPhysicalMemory,
    Kept,
    MemoryBlock,
    MemoryGap,
    Part,
    Pattern,
    Progress,
    Unread,
    check_address,
    check_bounds,
    check_pattern,
    check_range,
    check_request,
    merged_gaps,
    reported,
    search,
    stream,
    worker_count,
)
from ..vocabulary import Reason
from . import sparing
from .leaves import Leaves
from .regime import TOP, Regime
from .walk import Walk, walk

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..memory.file import MemoryFile
    from .enumeration import Shared
    from .runs import LostTable, MappedRegion, MappedRun, Runs
    from .tiles import Tiles

PAGE = 4096
TILE = 1 << 21  # the span of the page table that is lost, at least
ALONE = 16 << 30  # bytes of which fewer last tables speak than are granted to any set: they are gone through one by one


class AddressSpace:
    """Guest virtual memory as one set of page tables shows it. Addresses and sizes are bytes, addresses 0 to 2**64 - 1.

    Translation follows the tables the way the processor does, but access rights never make a page unmapped and reserved
    bits are not judged. An address that the paging mode cannot express is not mapped. A translation may lead outside of
    the saved memory, to a device. Safe to use from several threads.
    """

    def __init__(self, memory: GuestPhysicalMemory, regime: Regime) -> None:
        self._memory = memory
        self._read_physical = memory.read
        self._regime = regime
        self._views: dict[int, memoryview] = {}  # address >> 21 -> its tile; filled by _tiles
        self._lifetime = memory.lifetime
        self._lifetime.add(self)

    def forget(self) -> None:
        """The state is closed: no translation may be answered by what was looked up before."""
        self._views.clear()
        self.__dict__.pop("_tiles", None)
        self.__dict__.pop("_leaves", None)
        self.__dict__.pop("_is_shared", None)

    def __str__(self) -> str:
        """The paging form and the roots of the tables: ``long, 4 levels, from 0x1000``."""
        trees = dict.fromkeys(f"{tree.form.name}, from {tree.root:#x}" for tree in self._regime.trees)
        return "; ".join(trees) or ("no tables" if self.paging_mode == PagingMode.ARMV8 else "without paging")

    def __repr__(self) -> str:
        """The same in brackets."""
        return f"<AddressSpace {self}>"

    @property
    def paging_mode(self) -> PagingMode:
        """The mode as Microsoft counts them: five levels are LONG too."""
        return self._regime.mode

    @property
    def levels(self) -> int:
        """Levels of page tables, of the larger half on ARM64; 0 without paging."""
        return self._regime.levels

    @property
    def roots(self) -> tuple[int, ...]:
        """Guest physical addresses of the root tables: of the lower and upper half on ARM64, else one; () without paging."""
        return tuple(dict.fromkeys(tree.root for tree in self._regime.trees))

    def translate(self, gva: int) -> int:
        """The guest physical address of ``gva``.

        Raises PageNotMapped; GuestMemoryError where a page table on the way is missing from the file or damaged.
        """
        if type(gva) is not int:
            gva = check_address(gva)
        try:
            page: int = self._views[gva >> 21][gva >> 12 & 511]
        except KeyError:
            page = self._page(gva)
        if page:
            return page + (gva & 4095) - 1
        raise self._not_mapped(gva)

    def walk(self, gva: int) -> Walk:
        """Every step of the translation of ``gva``, for people who look at page tables.

        Raises GuestMemoryError where a page table on the way is missing from the file or damaged.
        """
        address = check_address(gva)
        self._lifetime.check()
        return walk(self._memory, self._regime, address)

    def translate_many(
        self, gvas: Sequence[int] | npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
        """Translate an array of any shape at once.

        Returns guest physical addresses (uint64) and a mask (bool) of the same shape: False where the address is not
        mapped, or where a page table on the way cannot be read (in strict mode that raises GuestMemoryError);
        :meth:`translate` distinguishes the two. Raises InvalidArgumentError for anything but an array of 64-bit numbers.
        """
        from ..memory.arrays import as_uint64

        self._lifetime.check()
        wanted = as_uint64(gvas, "addresses")
        answers, mask = self._tiles.translate(wanted.reshape(-1))
        return answers.reshape(wanted.shape), mask.reshape(wanted.shape)

    def mappings(
        self, start: int = 0, end: int = TOP, *, lost: Callable[[LostTable], object] | None = None
    ) -> Iterator[MappedRun]:
        """All that is mapped from ``start`` to ``end`` (excluded), lazily: maximal runs in ascending order.

        On ARM64 with an ignored top byte a range within one value of that byte gives addresses with it; a larger range
        gives every page once, without a tag.

        ``lost`` is called with every LostTable, in no particular order, and the enumeration continues. Without it,
        tables that are missing from the file or damaged raise GuestMemoryError. Raises PageTablesError where tables
        that are part of themselves have given more than any sound set could.
        """
        from .runs import mapped_runs

        return mapped_runs(self._batches(start, end, lost))

    def regions(
        self, start: int = 0, end: int = TOP, *, lost: Callable[[LostTable], object] | None = None
    ) -> Iterator[MappedRegion]:
        """What is mapped from ``start`` to ``end`` (excluded), joined where the rights are the same, wherever in memory.

        The shadow of a kernel with KASAN, 16 TiB through one table of each level, is one region. Otherwise as
        :meth:`mappings`.
        """
        from .enumeration import shared_regions
        from .runs import mapped_regions

        return mapped_regions(self._batches(start, end, lost, shared_regions))

    def reverse(self, gpa: int, start: int = 0, end: int = TOP) -> Iterator[int]:
        """The virtual addresses at which ``gpa`` is mapped, ascending, from ``start`` to ``end`` (excluded).

        Goes through all tables; errors as for :meth:`mappings`.
        """
        from .enumeration import find_physical, shared_reverse

        wanted = check_address(gpa)
        return find_physical(self._batches(start, end, None, partial(shared_reverse, gpa=wanted)), wanted)

    def read(self, gva: int, size: int, *, fill: int | None = None) -> bytes:
        """``size`` bytes from guest virtual address ``gva``, across pages of any size.

        With ``fill`` (0 to 255) unmapped pages and memory that cannot be delivered read as that byte; in strict mode
        missing and damaged memory raises all the same. Raises PageNotMapped,
        GuestMemoryError, SourceError, InvalidArgumentError (more than 4 GiB at once, or behind 2**64).
        """
        if fill is None and type(gva) is int and type(size) is int and 0 < size <= PAGE - (inside := gva & 4095):
            try:
                page: int = self._views[gva >> 21][gva >> 12 & 511]  # translate, without a call
            except KeyError:
                page = self._page(gva)
            if not page:
                raise self._not_mapped(gva)
            try:
                return self._read_physical(page + inside - 1, size)
            except GuestMemoryError as error:
                raise _at_virtual(error, gva) from error
        gva, size, fill = check_request(gva, size, fill)
        buffer = bytearray(size)
        self.read_into(gva, buffer, fill=fill)
        return bytes(buffer)

    def read_into(self, gva: int, buffer: bytearray | memoryview, *, fill: int | None = None) -> None:
        """Fill a writable buffer from ``gva``; as :meth:`read`. After an error the buffer's content is undefined."""
        view = memoryview(buffer).cast("B")
        gva, _, fill = check_request(gva, len(view), fill)
        self._lifetime.check()
        for at, size, gpa in self._pieces(gva, len(view), fill):
            target = view[at - gva : at - gva + size]
            if isinstance(gpa, Reason):
                target[:] = bytes((fill or 0,)) * size
                continue
            try:
                self._memory.read_into(gpa, target, fill=fill)
            except GuestMemoryError as error:
                raise _at_virtual(error, at) from error

    def require(self, gva: int, size: int) -> None:
        """Raise for the first of ``gva`` to ``gva + size`` that is not mapped or mapped to a hole; reads no memory there.

        Raises PageNotMapped, GuestMemoryError.
        """
        gva, size = check_range(gva, size)
        self._lifetime.check()
        for at, length, gpa in self._pieces(gva, size, None):
            assert isinstance(gpa, int)
            try:
                self._memory.require(gpa, length)
            except GuestMemoryError as error:
                raise _at_virtual(error, at) from error

    def gaps(self, gva: int, size: int) -> Iterator[MemoryGap]:
        """What of ``gva`` to ``gva + size`` cannot be read, ascending; virtual addresses.

        ``reason`` is ``unmapped``, or for what is mapped that of the memory there: ``hole`` (a device), ``missing``,
        ``damaged``; the latter two also where a page table is, so that what it maps is unknown.
        """
        gva, size = check_range(gva, size)
        self._lifetime.check()
        return merged_gaps(self._single_gaps(gva, size))

    def is_valid(self, gva: int, size: int = 1) -> bool:
        """Whether all of ``gva`` to ``gva + size`` can be read: true exactly where :meth:`gaps` yields nothing."""
        return next(self.gaps(gva, size), None) is None

    def blocks(self, start: int = 0, end: int | None = None, workers: int | None = None) -> Iterator[MemoryBlock]:
        """Virtual memory as a stream: :class:`MemoryBlock` items that tile ``start`` to ``end`` (2**64 unless given)
        in order.

        As GuestPhysicalMemory.blocks; what is not mapped is a gap with the reason ``unmapped``. Raises PageTablesError.
        """
        first, last = check_bounds(start, TOP if end is None else end)
        threads = worker_count(workers)
        self._lifetime.check()
        return stream(self._memory.backing, self._parts(first, last), threads)

    def as_file(self, *, fill: int = 0) -> MemoryFile:
        """Virtual memory as a seekable read-only ``io.RawIOBase`` of 2**64 bytes; ``fill`` replaces what cannot be read."""
        self._lifetime.check()
        from ..memory.file import MemoryFile

        return MemoryFile(self, TOP, fill)

    def find(
        self,
        pattern: Pattern,
        start: int = 0,
        end: int = TOP,
        *,
        progress: Progress | None = None,
        unread: Unread | None = None,
    ) -> Iterator[int]:
        """The virtual addresses of ``pattern``, bytes or a compiled bytes regex, in what is mapped and saved.

        Ascending; across pages and blocks, wherever they lie. Otherwise as GuestPhysicalMemory.find. ``unread`` is called
        with every MemoryGap that is not searched: missing and damaged memory, and what page tables that are so may map.
        Without it the latter raise GuestMemoryError. Raises PageTablesError.
        """
        first, last = check_bounds(start, end)
        check_pattern(pattern)
        self._lifetime.check()
        lost_raise = unread is None or self._memory.strict
        if last - first > ALONE and self._is_shared:
            return self._find_shared(pattern, first, last, progress, None if lost_raise else unread)
        blocks = stream(self._memory.backing, self._parts(first, last, lost_raise=lost_raise), worker_count(None))
        return search(reported(blocks, progress, unread, self._refuse_gap if self._memory.strict else None), pattern)

    @cached_property
    def _is_shared(self) -> bool:
        from .enumeration import are_shared

        return are_shared(self._memory, self._regime)

    def _find_shared(
        self, pattern: Pattern, start: int, end: int, progress: Progress | None, unread: Unread | None
    ) -> Iterator[int]:
        """See :meth:`find`: for tables that are met again and again. Lost ones, and gaps in strict mode, raise."""
        for low, high, tag in self._regime.aliases(start, end):
            for at in self._find_untagged(pattern, low, high, tag, progress, unread):
                yield at + tag

    def _find_untagged(
        self, pattern: Pattern, start: int, end: int, tag: int, progress: Progress | None, unread: Unread | None
    ) -> Iterator[int]:
        """The same for a range without a tag; ``tag`` is what to add to the addresses of gaps."""
        from .shared import Graph
        from .shared_search import SharedSearch

        def gap(found: MemoryGap) -> None:
            low, high = max(found.start, start), min(found.end, end)
            if low < high:
                met = MemoryGap(low + tag, high + tag, found.reason)
                if self._memory.strict:
                    self._refuse_gap(met)
                if unread is not None:
                    unread(met)

        def lost(table: LostTable) -> None:
            if table.reason != Reason.HOLE:
                gap(MemoryGap(table.start, table.end, table.reason))

        callback = None if unread is None else lost
        for tree in self._regime.trees:
            low, high = max(start, tree.start), min(end, tree.end)
            if low < high:
                graph = Graph(self._memory, tree, callback)
                yield from SharedSearch(graph, self._memory, pattern, gap, progress).addresses(low, high)

    @cached_property
    def _tiles(self) -> Tiles:
        from .tiles import Tiles

        self.__dict__.pop("_leaves", None)
        return Tiles(self._memory, self._regime, self._views)

    @cached_property
    def _leaves(self) -> Leaves:
        return Leaves(self._memory, self._regime)

    def _page(self, gva: int) -> int:
        """The guest physical address of the page plus 1, 0 where it is not mapped; as tiles have it."""
        gva = check_address(gva)
        self._lifetime.check()
        if sparing.without_numpy():
            return self._leaves.page(gva)
        try:
            tiles = self._tiles
        except Exception:  # numpy could not be loaded after all, and nothing needs it
            sparing.never_numpy()
            return self._leaves.page(gva)
        page: int = tiles.tile(gva)[gva >> 12 & 511]
        return page

    def _not_mapped(self, gva: int) -> PageNotMapped:
        found = self.walk(gva)
        last = found.steps[-1] if found.steps else None
        return PageNotMapped(
            f"guest virtual address {gva:#x} is not mapped: {found.reason}",
            gva=gva,
            level=last.level if last else None,
            entry=last.entry if last else None,
            unmapped_size=found.size,
            file=self._lifetime.file,
        )

    def _batches(
        self, start: int, end: int, lost: Callable[[LostTable], object] | None, shared: Shared | None = None
    ) -> Iterator[Runs]:
        from .enumeration import tagged_batches
        from .shared import runs

        first, last = check_bounds(start, end)
        self._lifetime.check()
        return tagged_batches(self._memory, self._regime, first, last, lost, shared or runs)

    def _pieces(
        self, gva: int, size: int, fill: int | None, *, listing: bool = False
    ) -> Iterator[tuple[int, int, int | Reason]]:
        """(address, size, guest physical address, or why there is none) of the stretches of a range, neighbours joined.

        Without a fill byte the first address that has none raises PageNotMapped or GuestMemoryError. With ``listing``
        nothing raises, also in strict mode.
        """
        if not size:
            return
        at, end = gva, gva + size
        begin, first = at, self._place(at, fill, listing)
        while True:
            at = min(at + self._step(at, first), end)
            if at == end:
                break
            here = self._place(at, fill, listing)
            if here != (first + at - begin if isinstance(first, int) else first):
                yield begin, at - begin, first
                begin, first = at, here
        yield begin, end - begin, first

    def _place(self, gva: int, fill: int | None, listing: bool) -> int | Reason:
        """The guest physical address of ``gva``, or with a fill byte or ``listing`` the reason why there is none."""
        try:
            return self.translate(gva)
        except PageNotMapped:
            if fill is None and not listing:
                raise
            return Reason.UNMAPPED
        except GuestMemoryError as error:  # a page table that cannot be read
            if not listing and (fill is None or self._memory.strict):
                raise
            return error.reason

    def _step(self, gva: int, place: int | Reason) -> int:
        """Bytes from ``gva`` on that are known to share its place."""
        if place == Reason.UNMAPPED:
            return self.walk(gva).size
        if isinstance(place, Reason):
            return TILE - gva % TILE
        if gva % TILE:
            return PAGE - gva % PAGE
        size = self.walk(gva).size if self._regime.trees else TILE  # large pages are passed over whole
        return size - gva % size

    def _single_gaps(self, gva: int, size: int) -> Iterator[MemoryGap]:
        for at, length, gpa in self._pieces(gva, size, None, listing=True):
            if isinstance(gpa, Reason):
                yield MemoryGap(at, at + length, gpa)
                continue
            for gap in self._memory.gaps(gpa, length):
                yield MemoryGap(gap.start - gpa + at, gap.end - gpa + at, gap.reason)

    def _parts(self, start: int, end: int, *, lost_raise: bool = False) -> Iterator[Part]:
        """What tiles ``start`` to ``end``: saved memory, and gaps. With ``lost_raise`` lost page tables raise."""
        lost: list[
            LostTable
        ] = []  # those that were met and not passed yet; enumeration meets them before what is behind
        runs = self.mappings(start, end, lost=None if lost_raise else lost.append)
        at = start
        for run in runs:
            yield from _between(at, run.gva, lost)
            for part in self._memory.runs(run.gpa, run.size):
                address = run.gva + part.gpa - run.gpa
                if part.position is None:
                    yield MemoryGap(address, address + part.size, Reason.HOLE)
                else:
                    yield Kept(address, part.size, part.position)
            at = run.gva + run.size
        yield from _between(at, end, lost)

    def _refuse_gap(self, gap: MemoryGap) -> None:
        """Raise GuestMemoryError for a gap, with what is known of its first byte."""
        self.read(gap.start, min(gap.size, PAGE))
        raise AssertionError(f"{gap} can be read")


def _between(start: int, end: int, lost: list[LostTable]) -> Iterator[MemoryGap]:
    """The gaps of a stretch that nothing maps: unmapped, or unknown because a page table is lost."""
    at = start
    for table in sorted(lost):
        if table.gva >= end:
            break
        lost.remove(table)
        low, high = max(table.gva, at), min(table.gva + table.size, end)
        if table.reason == Reason.HOLE or low >= high:  # a table outside of the saved memory maps nothing
            continue
        if at < low:
            yield MemoryGap(at, low, Reason.UNMAPPED)
        yield MemoryGap(low, high, Reason(table.reason))
        at = high
    if at < end:
        yield MemoryGap(at, end, Reason.UNMAPPED)


class AddressSpaces:
    """The address spaces of one saved state: processors that share page tables share one, with what it has looked up."""

    def __init__(self, memory: GuestPhysicalMemory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._known: weakref.WeakValueDictionary[Regime, AddressSpace] = weakref.WeakValueDictionary()

    def get(self, regime: Regime) -> AddressSpace:
        """The address space of a regime, kept as long as it is in use."""
        with self._lock:
            space = self._known.get(regime)
            if space is None:
                space = self._known[regime] = AddressSpace(self._memory, regime)
            return space


def _at_virtual(error: GuestMemoryError, gva: int) -> GuestMemoryError:
    return GuestMemoryError(
        f"guest virtual address {gva:#x} is mapped, but {error.message}",
        start=error.start,
        end=error.end,
        reason=error.reason,
        file=error.file,
        remedy=error._remedy,
    )
