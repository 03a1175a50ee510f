"""Everything a set of page tables maps, as maximal runs in ascending order; empty tables cost nothing.

The tables are taken whole: an array of entries per table, all last-level tables of a directory in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import GuestMemoryError, PageTablesError
from ..memory import GuestPhysicalMemory
from .access import Access
from .forms import Level
from .selection import Layout, Tree
from .vectors import PAGE_SHIFT, Addresses, denied, entry_type, is_hole, pages_of, tables_of

MANY_TABLES = 1 << 13  # visits that are granted to any memory, however small
BATCH_ENTRIES = 1 << 18  # entries of last-level tables taken at a time

_RIGHTS = {number: Access(number) for number in range(64)}


class MappedRun(NamedTuple):
    """A maximal run of virtual addresses whose pages lie one after another in physical memory, with the same rights.

    ``gva``, ``gpa`` and ``size`` in bytes. The physical addresses may lie outside of the saved memory (devices).
    """

    gva: int
    gpa: int
    size: int
    access: Access


class LostTable(NamedTuple):
    """A page table that cannot be read: what it maps from ``gva`` on, at most ``size`` bytes, is not known.

    ``table`` is its guest physical address, ``reason`` ``hole`` (outside of the saved memory: the processor would find
    a device or nothing), ``missing`` or ``damaged``.
    """

    gva: int
    size: int
    table: int
    reason: str


class Runs(NamedTuple):
    """Runs as arrays of the same length: addresses and sizes in bytes, rights as integers of :class:`Access`."""

    gva: Addresses
    gpa: Addresses
    size: Addresses
    access: Addresses

    def __len__(self) -> int:
        """The number of runs, not of arrays."""
        return len(self.gva)

    def take(self, which: slice | npt.NDArray[Any]) -> Runs:
        """Some of them, in the order of ``which``."""
        return Runs(self.gva[which], self.gpa[which], self.size[which], self.access[which])

    def cut(self, start: int, end: int) -> Runs:
        """Only what lies between two addresses (``end`` excluded)."""
        first = np.maximum(self.gva, np.uint64(start))
        last = np.minimum(self.gva + (self.size - np.uint64(1)), np.uint64(end - 1))
        kept = first <= last
        inside = Runs(first, self.gpa + (first - self.gva), last - first + np.uint64(1), self.access)
        return inside.take(kept)

    def merged(self) -> Runs:
        """The same with neighbours joined."""
        if len(self) < 2:
            return self
        touching = (
            (self.gva[1:] == self.gva[:-1] + self.size[:-1])
            & (self.gpa[1:] == self.gpa[:-1] + self.size[:-1])
            & (self.access[1:] == self.access[:-1])
        )
        firsts = np.flatnonzero(np.concatenate(([True], ~touching)))
        return Runs(self.gva[firsts], self.gpa[firsts], np.add.reduceat(self.size, firsts), self.access[firsts])


def _together(first: Runs, second: Runs) -> Runs:
    return Runs(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


Told = Callable[[LostTable], object]


def mapped_runs(batches: Iterator[Runs]) -> Iterator[MappedRun]:
    """Batches of runs as single ones, joined also across batches."""
    pending: MappedRun | None = None
    for batch in batches:
        columns = (batch.gva.tolist(), batch.gpa.tolist(), batch.size.tolist(), batch.access.tolist())
        runs = list(map(MappedRun, *columns[:3], map(_RIGHTS.__getitem__, columns[3])))
        if not runs:
            continue
        if pending is not None:
            first = runs[0]
            if (
                pending.gva + pending.size == first.gva
                and pending.gpa + pending.size == first.gpa
                and pending.access == first.access
            ):
                runs[0] = MappedRun(pending.gva, pending.gpa, pending.size + first.size, pending.access)
            else:
                yield pending
        pending = runs.pop()
        yield from runs
    if pending is not None:
        yield pending


def batches(memory: GuestPhysicalMemory, layout: Layout, start: int, end: int, lost: Told | None) -> Iterator[Runs]:
    """The runs between two addresses, in batches; each batch ascends and is merged in itself.

    ``lost`` is called for tables that cannot be read; without it those that are missing or damaged raise
    GuestMemoryError, and those outside of the saved memory map nothing. Raises PageTablesError where there are more
    tables than a sound set of this memory can have.
    """
    if start >= end:
        return
    if not layout.trees:
        if start < layout.identity:
            values = (start, start, min(end, layout.identity) - start, layout.rights)
            yield Runs(*(np.array([value], dtype=np.uint64) for value in values))
        return
    for tree in layout.trees:
        if start < tree.end and end > tree.start:
            yield from _Enumeration(memory, tree, max(start, tree.start), min(end, tree.end), lost).run()


class _Enumeration:
    """One pass over the tables of a tree."""

    def __init__(self, memory: GuestPhysicalMemory, tree: Tree, start: int, end: int, lost: Told | None) -> None:
        self._memory = memory
        self._form = tree.form
        self._tree = tree
        self._start = start
        self._end = end
        self._lost = lost
        # No sound set has more tables than memory has pages. Entries that point back into the tables may multiply.
        self._allowed = MANY_TABLES + memory.size // 4096

    def run(self) -> Iterator[Runs]:
        """All runs."""
        level = self._form.levels[0]
        span = 1 << level.shift + level.bits
        base = self._tree.start & ~(span - 1)
        if len(self._form.levels) == 1:
            root, start = np.array([self._tree.root], dtype=np.uint64), np.array([base], dtype=np.uint64)
            yield self._finished(self._leaves(root, start, np.zeros(1, dtype=np.uint64)))
        else:
            yield from self._table(0, self._tree.root, base, 0)

    def _table(self, depth: int, table: int, base: int, denied_above: int) -> Iterator[Runs]:
        """What one table that is not of the last level maps; ``base`` is the first address it speaks for."""
        level = self._form.levels[depth]
        self._count(1, base)
        entries, numbers = self._entries(level, table, base)
        mapped, pages = pages_of(self._form, level, entries)
        further, tables = tables_of(self._form, level, entries)
        further &= ~mapped
        starts = np.uint64(base) + (numbers << np.uint64(level.shift))
        rights = denied(entries, level.table_denials) | np.uint64(denied_above)
        own = self._pages(level, starts[mapped], pages[mapped], entries[mapped], denied_above)
        if depth + 2 == len(self._form.levels):
            yield from self._last_levels(own, tables[further], starts[further], rights[further])
            return
        at = 0
        rows = zip(tables[further].tolist(), starts[further].tolist(), rights[further].tolist(), strict=True)
        for child, start, above in rows:  # in order: own pages below the child first
            stop = int(np.searchsorted(own.gva, np.uint64(start)))
            if stop > at:
                yield self._finished(own.take(slice(at, stop)))
                at = stop
            yield from self._table(depth + 1, child, start, above)
        if at < len(own):
            yield self._finished(own.take(slice(at, None)))

    def _last_levels(self, own: Runs, tables: Addresses, starts: Addresses, above: Addresses) -> Iterator[Runs]:
        """The last-level tables of a directory together with the large pages in it."""
        if not len(tables):
            yield self._finished(own)
            return
        step = max(1, BATCH_ENTRIES >> self._form.levels[-1].bits)
        at = 0
        for first in range(0, len(tables), step):
            piece = slice(first, first + step)
            self._count(len(tables[piece]), int(starts[first]))
            following = starts[first + step : first + step + 1]
            stop = int(np.searchsorted(own.gva, following[0])) if len(following) else len(own)
            leaves = self._leaves(tables[piece], starts[piece], above[piece])
            joined = _together(own.take(slice(at, stop)), leaves)
            at = stop
            yield self._finished(joined.take(np.argsort(joined.gva, kind="stable")))

    def _leaves(self, tables: Addresses, starts: Addresses, above: Addresses) -> Runs:
        """Runs of last-level tables, merged within each."""
        level, form = self._form.levels[-1], self._form
        count = 1 << level.bits
        entries = self._read_tables(tables, count * form.entry_size, starts, 1 << level.shift + level.bits)
        mapped, pages = pages_of(form, level, entries)
        rows, columns = np.nonzero(mapped)
        gva = starts[rows] + (columns.astype(np.uint64) << np.uint64(level.shift))
        return self._pages(level, gva, pages[mapped], entries[mapped], above[rows])

    def _pages(self, level: Level, gva: Addresses, gpa: Addresses, entries: Addresses, above: Addresses | int) -> Runs:
        """Runs of entries of one level that map memory."""
        rights = denied(entries, level.page_denials) | np.asarray(above, dtype=np.uint64)
        access = np.array(self._form.rights, dtype=np.uint64)[rights.astype(np.intp)]
        return Runs(gva, gpa, np.full(len(gva), 1 << level.shift, dtype=np.uint64), access).merged()

    def _finished(self, runs: Runs) -> Runs:
        return runs.cut(self._start, self._end).merged()

    def _entries(self, level: Level, table: int, base: int) -> tuple[Addresses, Addresses]:
        """The entries of a table that speak for the wanted addresses, and their numbers; those that are 0 left out."""
        span = 1 << level.shift
        first = max(0, self._start - base) // span
        last = min((1 << level.bits) - 1, (self._end - 1 - base) // span)
        size = self._form.entry_size
        starts = np.array([base + first * span], dtype=np.uint64)
        count = last - first + 1
        (entries,) = self._read_tables(
            np.array([table + first * size], dtype=np.uint64), count * size, starts, count * span
        )
        numbers = np.flatnonzero(entries)
        return entries[numbers], (numbers + first).astype(np.uint64)

    def _read_tables(self, tables: Addresses, size: int, starts: Addresses, span: int) -> Addresses:
        """``size`` bytes of each table as rows of entries; what cannot be read is told, and zeros, which map nothing."""
        inside = (tables & np.uint64(0xFFF)).astype(np.intp)
        count = (int(inside.max(initial=0)) + size + 4095) // 4096  # pages; tables of larger granules take several
        numbers = (tables >> np.uint64(PAGE_SHIFT))[:, None] + np.arange(count, dtype=np.uint64)
        pages, there = self._memory.pages(numbers.reshape(-1))
        there = there.reshape(len(tables), count)
        for row in np.flatnonzero(~there.all(axis=1)).tolist():
            self._tell(int(starts[row]), span, int(tables[row]), numbers[row][~there[row]].tolist())
        words = pages.view(entry_type(self._form)).reshape(len(tables), -1)
        width = self._form.entry_size
        if words.shape[1] * width != size:
            columns = inside[:, None] // width + np.arange(size // width)
            words = np.take_along_axis(words, columns, axis=1)
        return words.astype(np.uint64, copy=False)

    def _tell(self, gva: int, span: int, table: int, pages: list[int]) -> None:
        """Pages of a table that cannot be read: to the caller, or as an error where they are lost."""
        lost = [number for number in pages if not is_hole(self._memory, number)]
        reason = "hole"
        if lost:
            (gap,) = self._memory.gaps(lost[0] << PAGE_SHIFT, 4096)
            reason = gap.reason
        if self._lost is not None:
            self._lost(LostTable(gva, span, table, reason))
        elif lost:
            start = lost[0] << PAGE_SHIFT
            raise GuestMemoryError(
                f"the page table at {table:#x}, for guest virtual addresses from {gva:#x} on, cannot be read",
                start=start, end=start + 4096, reason=reason,
            )  # fmt: skip

    def _count(self, tables: int, gva: int) -> None:
        self._allowed -= tables
        if self._allowed < 0:
            raise PageTablesError(
                f"the page tables are enumerated up to {gva:#x} only: they have more tables than this memory has pages, "
                "so they point into each other",
                remedy="ask for a smaller range of addresses",
            )


def find_physical(runs: Iterator[Runs], gpa: int) -> Iterator[int]:
    """The virtual addresses in these runs at which a physical address is mapped."""
    wanted = np.uint64(gpa)
    for batch in runs:
        hit = (batch.gpa <= wanted) & (wanted - batch.gpa < batch.size)
        yield from (batch.gva[hit] + (wanted - batch.gpa[hit])).tolist()
