"""Everything a set of page tables maps, as maximal runs in ascending order; empty tables cost nothing.

The tables are taken whole: an array of entries per table, all last-level tables of a directory in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import GuestMemoryError, PageTablesError
from ..memory import GuestPhysicalMemory
from ..vocabulary import Reason
from .forms import NEVER, Form, Level
from .regime import TOP, Regime, Tree
from .runs import LostCallback, LostTable, Runs, lost_table
from .shared import Graph, regions, reverse
from .shared import runs as graph_runs
from .vectors import PAGE_SHIFT, Addresses, denied, entry_type, is_hole, pages_of, tables_of

MANY_TABLES = 1 << 13  # visits that are granted to any set of tables, however small
VISITS = 4  # of each distinct table: Windows' map of its own tables visits each once more
BATCH_ENTRIES = 1 << 18  # entries of tables taken at a time
MANY_TIMES = 16  # that all of memory is mapped: a Linux guest maps it about twice
MANY_PAGES = 16  # address bits of the largest last-level page


class _Tables(NamedTuple):
    """Tables of one level: where they are, the first virtual address each speaks for, and what is denied above them."""

    address: Addresses
    start: Addresses
    denied: Addresses

    def __len__(self) -> int:
        return len(self.address)

    def take(self, which: slice) -> _Tables:
        return _Tables(self.address[which], self.start[which], self.denied[which])


_NO_TABLES = _Tables(*(np.zeros(0, dtype=np.uint64) for _ in range(3)))


def _interleaved(first: Runs, second: Runs) -> Runs:
    """Two ascending batches as one."""
    joined = Runs(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
    return joined.take(np.argsort(joined.gva, kind="stable")).merged()


Shared = Callable[[Graph, int, int], Iterator[Runs]]


class TooManyVisitsError(Exception):
    """Tables are met again and again: they are better gone through as a graph. Never leaves this package."""


def tagged_batches(
    memory: GuestPhysicalMemory,
    regime: Regime,
    start: int,
    end: int,
    lost: LostCallback | None,
    shared: Shared = graph_runs,
) -> Iterator[Runs]:
    """As :func:`batches`, for a range whose addresses may have a tag in the byte that the processor ignores."""
    for low, high, shift in regime.aliases(start, end):
        if not shift:
            yield from batches(memory, regime, low, high, lost, shared)
            continue
        for batch in batches(memory, regime, low, high, _tagging(lost, shift), shared):
            yield Runs(batch.gva + np.uint64(shift % TOP), batch.gpa, batch.size, batch.access)


def _tagging(lost: LostCallback | None, shift: int) -> LostCallback | None:
    """The callback with the addresses as they were asked for."""
    if lost is None:
        return None
    told = lost
    return lambda table: told(table._replace(gva=table.gva + shift))


def batches(
    memory: GuestPhysicalMemory,
    regime: Regime,
    start: int,
    end: int,
    lost: LostCallback | None,
    shared: Shared = graph_runs,
) -> Iterator[Runs]:
    """The runs between two addresses, in batches; each batch ascends and is merged in itself.

    ``lost`` is called for tables that cannot be read; without it those that are missing or damaged raise
    GuestMemoryError, and those outside of the saved memory map nothing. Where tables are met again and again, ``shared``
    yields the rest: all runs, or what its caller wants of them. Raises PageTablesError where tables are part of themselves,
    again and again.
    """
    if start >= end:
        return
    if not regime.trees:
        if start < regime.identity:
            yield _single(start, start, min(end, regime.identity) - start, regime.rights)
        return
    told: set[LostTable] = set()

    def once(table: LostTable) -> None:
        """Tables that both ways through meet are reported by the first."""
        if table not in told and lost is not None:
            told.add(table)
            lost(table)

    callback = None if lost is None else once
    wanted = [tree for tree in regime.trees if start < tree.end and end > tree.start]
    for form, group in groupby(wanted, key=attrgetter("form")):  # halves of the same form go together
        trees, done = list(group), start
        try:
            for batch in _Enumeration(memory, form, trees, start, end, callback).run():
                if len(batch):
                    done = int(batch.gva[-1]) + int(batch.size[-1])
                    yield batch
        except TooManyVisitsError:
            for tree in trees:
                graph = Graph(memory, tree, callback)
                low, high = max(done, tree.start), min(end, tree.end)
                if low < high:
                    yield from shared(graph, low, high)


def shared_regions(graph: Graph, start: int, end: int) -> Iterator[Runs]:
    """What is mapped, joined by rights alone: the physical addresses mean nothing."""
    for gva, size, access in regions(graph, start, end):
        yield _single(gva, 0, size, access)


def shared_reverse(graph: Graph, start: int, end: int, *, gpa: int) -> Iterator[Runs]:
    """A byte for each virtual address at which a physical address is mapped."""
    for gva in reverse(graph, gpa, start, end):
        yield _single(gva, gpa, 1, 0)


def _single(*values: int) -> Runs:
    return Runs(*(np.array([value], dtype=np.uint64) for value in values))


class Met(NamedTuple):
    """How often tables are met, how many different ones there are, and the bytes of saved memory that are mapped in all."""

    visits: float
    distinct: int
    mapped: float


class _Saved:
    """How much of ranges of physical memory is saved."""

    def __init__(self, memory: GuestPhysicalMemory) -> None:
        chunks = memory.chunks
        self._starts = np.array([chunk.start for chunk in chunks], dtype=np.float64)
        self._sizes = np.array([chunk.size for chunk in chunks], dtype=np.float64)
        self._before = np.cumsum(self._sizes) - self._sizes

    def within(self, starts: Addresses, size: int) -> npt.NDArray[np.float64]:
        """Bytes that are saved of each range; as floats, which are exact enough for a comparison."""
        first = starts.astype(np.float64)
        return self._below(first + size) - self._below(first)

    def _below(self, addresses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not len(self._starts):
            return np.zeros(len(addresses))
        index = np.maximum(np.searchsorted(self._starts, addresses, side="right") - 1, 0)
        inside: npt.NDArray[np.float64] = np.clip(addresses - self._starts[index], 0, self._sizes[index])
        return self._before[index] + inside


class _Enumeration:
    """One pass over the tables of trees of the same form."""

    def __init__(
        self,
        memory: GuestPhysicalMemory,
        form: Form,
        trees: list[Tree],
        start: int,
        end: int,
        lost: LostCallback | None,
    ) -> None:
        self._memory = memory
        self._form = form
        self._trees = trees
        self._start = start
        self._end = end
        self._spans = [(max(start, tree.start), min(end, tree.end) - 1) for tree in trees]  # first and last address
        self._lost = lost
        # Entries that point back into the tables multiply: then visits grow, and the number of different tables does not.
        # (What the file claims to have of memory is not a measure: it may claim any size.)
        self._visits = 0
        self._distinct: set[int] = set()

    def run(self) -> Iterator[Runs]:
        """All runs."""
        level = self._form.levels[0]
        whole = ~((1 << level.shift + level.bits) - 1)
        rows = [(tree.root, tree.start & whole, 0) for tree in self._trees]
        roots = _Tables(*(np.array(column, dtype=np.uint64) for column in zip(*rows, strict=True)))
        everything = self._start == 0 and self._end == TOP
        for batch in self._below(0, roots):
            yield batch if everything else batch.cut(self._start, self._end)

    def how_often(self, within: Addresses | None = None, edges: list[tuple[Addresses, Addresses]] | None = None) -> Met:
        """Count tables and saved memory as often as they are met; each different table of a level is looked at once.

        ``within`` counts only these tables; ``edges`` takes the addresses of tables, and of those they point to.
        """
        addresses, times = np.unique(np.array([tree.root for tree in self._trees], dtype=np.uint64), return_counts=True)
        weights = times.astype(np.float64)
        visits, distinct, mapped = float(weights.sum()), len(addresses), 0.0
        saved = _Saved(self._memory)
        for level in self._form.levels:
            found, counted = [], []
            step = max(1, BATCH_ENTRIES >> level.bits)
            for first in range(0, len(addresses), step):
                some = addresses[first : first + step]
                zeros = np.zeros(len(some), dtype=np.uint64)
                entries = self._read_tables(_Tables(some, zeros, zeros), self._form.entry_size << level.bits, 0)
                rows, columns = np.nonzero(entries)
                words, own = entries[rows, columns], weights[first : first + step][rows]
                pages, targets = pages_of(self._form, level, words)
                mapped += float((saved.within(targets[pages], 1 << level.shift) * own[pages]).sum())
                if level.is_table != NEVER:
                    mask, targets = tables_of(self._form, level, words)
                    if within is not None:
                        mask &= np.isin(targets, within)
                    if edges is not None:
                        pairs = np.unique(np.stack((some[rows[mask]], targets[mask]), axis=1), axis=0)
                        edges.append((pairs[:, 0], pairs[:, 1]))
                    found.append(targets[mask])
                    counted.append(own[mask])
            if not found:
                break
            addresses, places = np.unique(np.concatenate(found), return_inverse=True)
            weights = np.bincount(places.reshape(-1), weights=np.concatenate(counted)).astype(np.float64)
            visits, distinct = visits + float(weights.sum()), distinct + len(addresses)
        return Met(visits, distinct, mapped)

    def _below(self, depth: int, tables: _Tables) -> Iterator[Runs]:
        """What tables of one level map, with all below them: level by level, many tables at a time."""
        own, further = self._decode(self._form.levels[depth], tables)
        at = 0
        if depth + 1 < len(self._form.levels):
            step = max(1, BATCH_ENTRIES >> self._form.levels[depth + 1].bits)
            for first in range(0, len(further), step):
                for batch in self._below(depth + 1, further.take(slice(first, first + step))):
                    if not len(batch):
                        continue
                    stop = int(np.searchsorted(own.gva, batch.gva[-1]))
                    yield _interleaved(own.take(slice(at, stop)), batch) if at < stop else batch
                    at = stop
        if at < len(own):
            yield own.take(slice(at, None))

    def _decode(self, level: Level, tables: _Tables) -> tuple[Runs, _Tables]:
        """The memory that tables of a level map themselves, and the tables they point to; both ascend."""
        self._count(tables)
        form, span = self._form, np.uint64(level.shift)
        entries = self._read_tables(tables, (1 << level.bits) * form.entry_size, 1 << level.shift + level.bits)
        rows, columns = np.nonzero(entries)
        words = entries[rows, columns]
        starts = tables.start[rows] + (columns.astype(np.uint64) << span)
        above = tables.denied[rows]
        if level.shift > MANY_PAGES:  # below, cutting the runs is cheaper than choosing among entries
            wanted = self._wanted(starts, level.shift)
            words, starts, above = words[wanted], starts[wanted], above[wanted]
        mapped, pages = pages_of(form, level, words)
        own = self._pages(level, starts[mapped], pages[mapped], words[mapped], above[mapped])
        if level.is_table == NEVER:
            return own, _NO_TABLES
        further, targets = tables_of(form, level, words)
        further &= self._wanted(starts, level.shift)  # what is not asked for must not be reported as lost
        rights = denied(words[further], level.table_denials) | above[further]
        return own, _Tables(targets[further], starts[further], rights)

    def _wanted(self, starts: Addresses, shift: int) -> npt.NDArray[np.bool_]:
        """Which of entries that span ``1 << shift`` bytes have anything of the range that was asked for."""
        wanted = np.zeros(len(starts), dtype=np.bool_)
        for low, high in self._spans:
            wanted |= (starts + np.uint64((1 << shift) - 1) >= np.uint64(low)) & (starts <= np.uint64(high))
        return wanted

    def _pages(self, level: Level, gva: Addresses, gpa: Addresses, entries: Addresses, above: Addresses) -> Runs:
        """Runs of entries of one level that map memory."""
        rights = denied(entries, level.page_denials) | above
        access = np.array(self._form.rights, dtype=np.uint64)[rights.astype(np.intp)]
        return Runs(gva, gpa, np.full(len(gva), 1 << level.shift, dtype=np.uint64), access).merged()

    def _read_tables(self, tables: _Tables, size: int, span: int) -> Addresses:
        """``size`` bytes of each table as rows of entries; what cannot be read is reported, and zero: it maps nothing."""
        inside = (tables.address & np.uint64(0xFFF)).astype(np.intp)
        count = (int(inside.max(initial=0)) + size + 4095) // 4096  # pages; tables of larger granules take several
        numbers = tables.address >> np.uint64(PAGE_SHIFT)
        if count > 1:
            numbers = (numbers[:, None] + np.arange(count, dtype=np.uint64)).reshape(-1)
        try:
            pages, there = self._memory.pages(numbers)
        except GuestMemoryError as error:  # in strict mode
            row = int(np.flatnonzero(numbers == np.uint64(error.start >> PAGE_SHIFT))[0]) // count
            raise lost_table(int(tables.address[row]), int(tables.start[row]), error) from error
        if not there.all():
            for row in np.flatnonzero(~there.reshape(len(tables), count).all(axis=1)).tolist():
                own = slice(row * count, (row + 1) * count)
                self._report(int(tables.start[row]), span, int(tables.address[row]), numbers[own][~there[own]].tolist())
        words = pages.view(entry_type(self._form)).reshape(len(tables), -1)
        width = self._form.entry_size
        if words.shape[1] * width != size:
            columns = inside[:, None] // width + np.arange(size // width)
            words = np.take_along_axis(words, columns, axis=1)
        return words.astype(np.uint64, copy=False)

    def _report(self, gva: int, span: int, table: int, pages: list[int]) -> None:
        """Pages of a table that cannot be read: to the caller, or as an error where they are lost."""
        lost = [number for number in pages if not is_hole(self._memory, number)]
        reason = Reason.HOLE
        if lost:
            reason = next(iter(self._memory.gaps(lost[0] << PAGE_SHIFT, 4096))).reason
        if self._lost is not None:
            for low, high in self._spans:
                first, last = max(gva, low), min(gva + span - 1, high)
                if first <= last:  # of a root table, the half that it was walked for
                    self._lost(LostTable(first, last - first + 1, table, reason))
        elif lost:
            try:
                self._memory.read(lost[0] << PAGE_SHIFT, 4096)
            except GuestMemoryError as error:
                raise lost_table(table, gva, error) from error

    def _count(self, tables: _Tables) -> None:
        self._visits += len(tables)
        self._distinct.update(tables.address.tolist())
        if self._visits <= MANY_TABLES + VISITS * len(self._distinct):
            return
        if not is_cyclic(self._memory, self._form, self._trees):
            raise TooManyVisitsError
        raise too_many(len(self._distinct), int(tables.start[0]), self._visits)


def is_cyclic(memory: GuestPhysicalMemory, form: Form, trees: list[Tree]) -> bool:
    """Whether tables that are part of themselves make up more visits than are granted to any set of tables.

    Windows and others map their tables by one entry that points back to the root, which is few.
    """
    enumeration = _Enumeration(memory, form, trees, 0, TOP, _ignored)
    edges: list[tuple[Addresses, Addresses]] = []
    enumeration.how_often(edges=edges)
    parents, children = (np.concatenate(column) for column in zip(*edges, strict=True)) if edges else ((), ())
    while len(parents):  # take away tables that point to none that is left: the others can reach themselves
        kept = np.isin(children, parents)
        if kept.all():
            break
        parents, children = parents[kept], children[kept]
    if not len(parents):
        return False
    nested = np.unique(parents)
    return enumeration.how_often(within=nested).visits > MANY_TABLES + VISITS * len(nested)


def too_many(distinct: int, gva: int, visits: float) -> PageTablesError:
    """The error for tables that are part of themselves."""
    return PageTablesError(
        f"the page tables are enumerated up to {gva:#x} only: {int(visits):,} were visited, and no more than "
        f"{distinct:,} are different, so they point into each other",
        remedy="ask for a smaller range of addresses",
    )


def _ignored(_table: LostTable) -> None:
    """Lost tables are reported by the enumeration itself."""


def are_shared(memory: GuestPhysicalMemory, regime: Regime) -> bool:
    """Whether tables, or pages, are met so often that going through them one by one would not end.

    Looks at each different table once, without its rights. Raises PageTablesError where tables are part of themselves.
    """
    for form, group in groupby(regime.trees, key=attrgetter("form")):
        trees = list(group)
        try:
            met = _Enumeration(memory, form, trees, 0, TOP, _ignored).how_often()
        except GuestMemoryError:  # in strict mode; whoever goes through them finds the lost table
            continue
        if met.visits > MANY_TABLES + VISITS * met.distinct or met.mapped > MANY_TIMES * memory.size:
            if is_cyclic(memory, form, trees):
                raise too_many(met.distinct, 0, met.visits)
            return True
    return False


def find_physical(runs: Iterator[Runs], gpa: int) -> Iterator[int]:
    """The virtual addresses in these runs at which a physical address is mapped."""
    wanted = np.uint64(gpa)
    for batch in runs:
        hit = (batch.gpa <= wanted) & (wanted - batch.gpa < batch.size)
        yield from (batch.gva[hit] + (wanted - batch.gpa[hit])).tolist()
