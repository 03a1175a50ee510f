"""An address space: translation, reading and searching of guest virtual memory through one set of page tables."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..datatypes.enums import PagingMode
from ..errors import GuestMemoryError, PageNotMapped
from ..memory import (
    GuestPhysicalMemory,
    MemoryGap,
    Pattern,
    Piece,
    Unread,
    check_address,
    check_request,
    merged_gaps,
    search,
)
from . import sparing
from .leaves import Leaves
from .selection import TOP, Regime
from .walk import Walk, walk

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .enumeration import LostTable, MappedRun, Runs
    from .tiles import Tiles

PAGE = 4096
TILE = 1 << 21  # the span of the page table that is lost, at least


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
        return walk(self._memory, self._regime, check_address(gva))

    def translate_many(
        self, gvas: Sequence[int] | npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
        """Translate an array of any shape at once.

        Returns guest physical addresses (uint64) and a mask (bool) of the same shape: False where the address is not
        mapped, or where a page table on the way cannot be read (in strict mode that raises GuestMemoryError);
        :meth:`translate` distinguishes the two. Raises InvalidArgumentError for anything but an array of 64-bit numbers.
        """
        from ..memory.arrays import as_uint64

        wanted = as_uint64(gvas, "addresses")
        answers, mask = self._tiles.translate(wanted.reshape(-1))
        return answers.reshape(wanted.shape), mask.reshape(wanted.shape)

    def mappings(
        self, start: int = 0, end: int = TOP, *, lost: Callable[[LostTable], object] | None = None
    ) -> Iterator[MappedRun]:
        """All that is mapped from ``start`` to ``end`` (excluded), lazily: maximal runs in ascending order.

        ``lost`` is called with every LostTable, in no particular order, and the enumeration continues. Without it, tables
        that are missing from the file or damaged raise GuestMemoryError. Raises PageTablesError at the point where a set of
        tables that point into each other has given more than any sound one could.
        """
        from .enumeration import mapped_runs

        return mapped_runs(self._batches(start, end, lost))

    def reverse(self, gpa: int, start: int = 0, end: int = TOP) -> Iterator[int]:
        """The virtual addresses at which ``gpa`` is mapped, ascending, from ``start`` to ``end`` (excluded).

        Goes through all tables; errors as for :meth:`mappings`.
        """
        from .enumeration import find_physical

        return find_physical(self._batches(start, end, None), check_address(gpa))

    def read(self, gva: int, size: int, *, fill: int | None = None) -> bytes:
        """``size`` bytes from guest virtual address ``gva``, across pages of any size.

        With ``fill`` (0 to 255) unmapped pages and memory that cannot be delivered read as that byte; in strict mode
        missing and damaged memory raises all the same. Raises PageNotMapped,
        GuestMemoryError, SourceError, InvalidArgumentError (more than 4 GiB at once, or behind 2**64).
        """
        inside = gva & 4095
        if fill is None and 0 < size <= PAGE - inside:
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
        gva = check_address(gva)
        check_request(gva, size, fill)
        buffer = bytearray(size)
        self.read_into(gva, buffer, fill=fill)
        return bytes(buffer)

    def read_into(self, gva: int, buffer: bytearray | memoryview, *, fill: int | None = None) -> None:
        """Fill a writable buffer from ``gva``; as :meth:`read`. After an error the buffer's content is undefined."""
        view = memoryview(buffer).cast("B")
        gva = check_address(gva)
        check_request(gva, len(view), fill)
        for at, size, gpa in self._pieces(gva, len(view), fill):
            target = view[at - gva : at - gva + size]
            if isinstance(gpa, str):
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
        gva = check_address(gva)
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
        gva = check_address(gva)
        return merged_gaps(self._single_gaps(gva, size))

    def find(
        self,
        pattern: Pattern,
        start: int = 0,
        end: int = TOP,
        *,
        progress: Callable[[int], object] | None = None,
        unread: Unread | None = None,
    ) -> Iterator[int]:
        """The virtual addresses of ``pattern``, bytes or a compiled bytes regex, in what is mapped and saved.

        Ascending; across pages and blocks, wherever they lie. Otherwise as GuestPhysicalMemory.find. ``unread`` is called
        with every MemoryGap that is not searched: missing and damaged memory, and what page tables that are so may map.
        Without it the latter raise GuestMemoryError. Raises PageTablesError.
        """
        pieces = self._saved_pieces(check_address(start), end, unread)
        return search(self._memory.backing, pieces, pattern, progress, strict=self._memory.strict, unread=unread)

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
        )

    def _batches(self, start: int, end: int, lost: Callable[[LostTable], object] | None) -> Iterator[Runs]:
        from .enumeration import batches

        check_address(start)
        return batches(self._memory, self._regime, start, min(end, TOP), lost)

    def _pieces(self, gva: int, size: int, fill: int | None) -> Iterator[tuple[int, int, int | str]]:
        """(address, size, guest physical address, or why there is none) of the stretches of a range, neighbours joined.

        Without a fill byte the first address that has none raises PageNotMapped or GuestMemoryError.
        """
        at, end = gva, gva + size
        begin, first = at, self._place(at, fill) if at < end else 0
        while True:
            at = min(at + self._step(at, first), end)
            if at == end:
                break
            here = self._place(at, fill)
            if here != (first + at - begin if isinstance(first, int) else first):
                yield begin, at - begin, first
                begin, first = at, here
        if begin < end:
            yield begin, end - begin, first

    def _place(self, gva: int, fill: int | None) -> int | str:
        """The guest physical address of ``gva``, or with a fill byte the reason why there is none."""
        try:
            return self.translate(gva)
        except PageNotMapped:
            if fill is None:
                raise
            return "unmapped"
        except GuestMemoryError as error:  # a page table that cannot be read
            if fill is None or self._memory.strict:
                raise
            return error.reason

    def _step(self, gva: int, place: int | str) -> int:
        """Bytes from ``gva`` on that are known to share its place."""
        if place == "unmapped":
            return self.walk(gva).size
        if isinstance(place, str):
            return TILE - gva % TILE
        if gva % TILE:
            return PAGE - gva % PAGE
        size = self.walk(gva).size if self._regime.trees else TILE  # large pages are passed over whole
        return size - gva % size

    def _single_gaps(self, gva: int, size: int) -> Iterator[MemoryGap]:
        for at, length, gpa in self._pieces(gva, size, 0):
            if isinstance(gpa, str):
                yield MemoryGap(at, at + length, gpa)
                continue
            for gap in self._memory.gaps(gpa, length):
                yield MemoryGap(gap.start - gpa + at, gap.end - gpa + at, gap.reason)

    def _saved_pieces(self, start: int, end: int, unread: Unread | None) -> Iterator[Piece]:
        def lost(table: LostTable) -> None:
            if unread is not None and table.reason != "hole":
                unread(MemoryGap(table.gva, table.gva + table.size, table.reason))

        for run in self.mappings(start, end, lost=None if unread is None else lost):
            for part in self._memory.runs(run.gpa, run.size):
                if part.position is not None:
                    yield Piece(run.gva + part.gpa - run.gpa, part.size, part.position)


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
    )
