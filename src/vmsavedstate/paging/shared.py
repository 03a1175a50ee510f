"""Page tables as a graph: a table that is met again, at the same level and under the same rights, is decoded once.

A kernel with KASAN maps 16 TiB of shadow through one table of each level. Going through such tables one by one never ends;
here each different one is looked at once, and what it yields is remembered. Everything is listed lazily and in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ..cache import ByteCache
from ..errors import GuestMemoryError
from ..memory import GuestPhysicalMemory
from ..vocabulary import Reason
from .forms import NEVER, Form
from .runs import LostCallback, LostTable, Runs, lost_table
from .vectors import PAGE_SHIFT, Addresses, denied, entry_type, is_hole, pages_of, tables_of

if TYPE_CHECKING:
    from .regime import Tree

CACHED = 64 << 20  # bytes of decoded tables that are kept
PAGE = 1 << PAGE_SHIFT


class Node(NamedTuple):
    """A table: its level (0 is the root's), its guest physical address, and what is denied above it."""

    depth: int
    table: int
    denied: int


class Group(NamedTuple):
    """Neighbouring entries that do the same: ``repeats`` of them from number ``first`` on.

    Tables: all point to ``target``, with ``rights`` denied below. Pages: the first maps ``target``, the others what follows
    it in physical memory, with the access ``rights``.
    """

    first: int
    repeats: int
    is_table: bool
    target: int
    rights: int


class Entries(NamedTuple):
    """The entries of a table that do anything, in order: number, whether it points to a table, where to, and rights."""

    numbers: npt.NDArray[np.intp]
    is_table: npt.NDArray[np.bool_]
    targets: Addresses
    values: Addresses


class Graph:
    """The tables below one tree. Raises GuestMemoryError for lost tables where there is no callback for them."""

    def __init__(self, memory: GuestPhysicalMemory, tree: Tree, lost: LostCallback | None) -> None:
        self._memory = memory
        self.form: Form = tree.form
        self.tree = tree
        self.root = Node(0, tree.root, 0)
        # The address at which the root's first entry would be: the tree may serve only a part of its table.
        level = self.form.levels[0]
        self.base = tree.start & ~((1 << level.shift + level.bits) - 1)
        self._lost = lost
        self._entries: ByteCache[Node, Entries] = ByteCache(CACHED)
        self._groups: ByteCache[Node, tuple[Group, ...]] = ByteCache(CACHED)
        self._lost_nodes: dict[Node, Reason] = {}
        self.uniform = cache(self._uniform)

    def span(self, depth: int) -> int:
        """Bytes of virtual memory of an entry of a level."""
        return 1 << self.form.levels[depth].shift

    def child(self, node: Node, group: Group) -> Node:
        """The table that a group of entries points to."""
        return Node(node.depth + 1, group.target, group.rights)

    def entries(self, node: Node) -> Entries:
        """The entries of a table that do anything; none where it cannot be read, see :meth:`reason`."""
        found = self._entries.get(node)
        if found is None:
            found = self._decode(node)
            self._entries.put(node, found, 400 + 25 * len(found.numbers))
        return found

    def groups(self, node: Node) -> tuple[Group, ...]:
        """The same with neighbours that do the same as one."""
        found = self._groups.get(node)
        if found is None:
            found = tuple(_grouped(self.entries(node), 1 << self.form.levels[node.depth].shift))
            self._groups.put(node, found, 200 + 150 * len(found))
        return found

    def children(self, node: Node) -> Iterator[Node]:
        """The different tables that a table points to."""
        entries = self.entries(node)
        if entries.is_table.any():
            pairs = np.stack((entries.targets[entries.is_table], entries.values[entries.is_table]), axis=1)
            for target, rights in np.unique(pairs, axis=0).tolist():
                yield Node(node.depth + 1, target, rights)

    def reason(self, node: Node) -> Reason | None:
        """Why a table cannot be read, None where it can."""
        self.entries(node)
        return self._lost_nodes.get(node)

    def report_lost(self, start: int, end: int) -> None:
        """Report each lost table once, at the first address between two that it is met for.

        Raises GuestMemoryError for one that is missing or damaged where there is no callback.
        """
        seen: set[Node] = set()
        pending = [(self.root, self.base)]
        while pending:
            node, base = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            span, reason = self.span(node.depth), self.reason(node)
            if reason is not None:
                self._report(
                    node, reason, max(base, start), min(base + (span << self.form.levels[node.depth].bits), end)
                )
            below = [
                (at, child) for child, at in self.first_places(node, base, start, end).items() if child not in seen
            ]
            pending += [(child, at) for at, child in sorted(below, reverse=True)]

    def first_places(self, node: Node, base: int, start: int, end: int) -> dict[Node, int]:
        """The tables that a table points to, and the first address between two at which each is met."""
        entries, span = self.entries(node), self.span(node.depth)
        low, high = (start - base) // span, -(-(end - base) // span)
        asked = entries.is_table & (entries.numbers >= low) & (entries.numbers < high)
        if not asked.any():
            return {}
        pairs = np.stack((entries.targets[asked], entries.values[asked]), axis=1)
        distinct, firsts = np.unique(pairs, axis=0, return_index=True)
        places = entries.numbers[asked][firsts].tolist()
        return {
            Node(node.depth + 1, target, rights): base + number * span
            for (target, rights), number in zip(distinct.tolist(), places, strict=True)
        }

    def _report(self, node: Node, reason: Reason, start: int, end: int) -> None:
        if start >= end:
            return
        if self._lost is not None:
            self._lost(LostTable(start, end - start, node.table, reason))
        elif reason != Reason.HOLE:
            try:
                self._memory.read(node.table, self.form.entry_size << self.form.levels[node.depth].bits)
            except GuestMemoryError as error:
                raise lost_table(node.table, start, error) from error

    def _decode(self, node: Node) -> Entries:
        form, level = self.form, self.form.levels[node.depth]
        words = self._read(node, (1 << level.bits) * form.entry_size)
        numbers = np.flatnonzero(words)
        words = words[numbers]
        mapped, pages = pages_of(form, level, words)
        rights = denied(words, level.page_denials) | np.uint64(node.denied)
        values = np.array(form.rights, dtype=np.uint64)[rights.astype(np.intp)]
        is_table, targets = np.zeros(len(words), dtype=np.bool_), pages
        if level.is_table != NEVER:
            is_table, tables = tables_of(form, level, words)
            below = denied(words, level.table_denials) | np.uint64(node.denied)
            targets, values = np.where(is_table, tables, pages), np.where(is_table, below, values)
        kept = mapped | is_table
        return Entries(numbers[kept], is_table[kept], targets[kept], values[kept])

    def _read(self, node: Node, size: int) -> Addresses:
        """The entries of a table; zeros, and a reason, where pages of it cannot be read."""
        inside = node.table % PAGE
        numbers = list(range(node.table // PAGE, (node.table + size - 1) // PAGE + 1))
        try:
            pages, there = self._memory.pages(numbers)
        except GuestMemoryError as error:  # in strict mode
            self._lost_nodes[node] = error.reason
            return np.zeros(0, dtype=np.uint64)
        lost = [number for number, held in zip(numbers, there.tolist(), strict=True) if not held]
        if lost:
            kept = [number for number in lost if not is_hole(self._memory, number)]
            gaps = self._memory.gaps(kept[0] << PAGE_SHIFT, PAGE) if kept else iter(())
            self._lost_nodes[node] = next((gap.reason for gap in gaps), Reason.HOLE)
        raw = pages.reshape(-1)[inside : inside + size]
        return raw.view(entry_type(self.form)).astype(np.uint64)

    def _uniform(self, node: Node) -> int | None:
        """The access of every byte that a table speaks for, where it is the same; -1 where nothing is mapped; else None.

        Of a lost table nothing is.
        """
        entries = self.entries(node)
        found: set[int | None] = {self.uniform(child) for child in self.children(node)}
        found.update(np.unique(entries.values[~entries.is_table]).tolist())
        if not found or found == {-1}:
            return -1
        whole = len(entries.numbers) == 1 << self.form.levels[node.depth].bits
        return found.pop() if whole and len(found) == 1 else None


def _grouped(entries: Entries, span: int) -> Iterator[Group]:
    """Neighbouring entries that do the same as groups; pages of ``span`` bytes do when they follow each other."""
    numbers, is_table, targets, values = entries
    if not len(numbers):
        return
    step = np.where(is_table[1:], np.uint64(0), np.uint64(span))
    same = (numbers[1:] == numbers[:-1] + 1) & (is_table[1:] == is_table[:-1]) & (values[1:] == values[:-1])
    same &= targets[1:] == targets[:-1] + step
    firsts = np.flatnonzero(np.concatenate(([True], ~same)))
    counts = np.diff(np.append(firsts, len(numbers)))
    columns = (numbers[firsts], counts, is_table[firsts], targets[firsts], values[firsts])
    yield from map(Group, *(column.tolist() for column in columns))


def runs(graph: Graph, start: int, end: int) -> Iterator[Runs]:
    """All runs between two addresses, in batches that ascend and are merged in themselves."""

    def below(node: Node, base: int) -> Iterator[Runs]:
        span, pages = graph.span(node.depth), []
        for group in graph.groups(node):
            first, size = base + group.first * span, group.repeats * span
            if first + size <= start or first >= end:
                continue
            if not group.is_table:
                pages.append((first, group.target, size, group.rights))
                continue
            if pages:
                yield _batch(pages, start, end)
                pages = []
            if graph.uniform(graph.child(node, group)) == -1:
                continue
            for at in places_of(first, span, group.repeats, start, end):
                yield from below(graph.child(node, group), at)
        if pages:
            yield _batch(pages, start, end)

    graph.report_lost(start, end)
    yield from below(graph.root, graph.base)


def regions(graph: Graph, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(address, size, access) of what is mapped, neighbours with the same rights joined wherever they are in memory."""

    def below(node: Node, base: int) -> Iterator[tuple[int, int, int]]:
        span = graph.span(node.depth)
        for group in graph.groups(node):
            first, size = base + group.first * span, group.repeats * span
            low, high = max(first, start), min(first + size, end)
            if low >= high:
                continue
            access = graph.uniform(graph.child(node, group)) if group.is_table else group.rights
            if access is None:
                for at in places_of(first, span, group.repeats, start, end):
                    yield from below(graph.child(node, group), at)
            elif access >= 0:
                yield low, high - low, access

    graph.report_lost(start, end)
    pending: tuple[int, int, int] | None = None
    for item in below(graph.root, graph.base):
        if pending is not None and pending[0] + pending[1] == item[0] and pending[2] == item[2]:
            pending = (pending[0], pending[1] + item[1], pending[2])
            continue
        if pending is not None:
            yield pending
        pending = item
    if pending is not None:
        yield pending


def reverse(graph: Graph, gpa: int, start: int, end: int) -> Iterator[int]:
    """The virtual addresses at which a physical address is mapped, ascending."""

    @cache
    def has(node: Node) -> bool:
        entries = graph.entries(node)
        pages = entries.targets[~entries.is_table]
        span = np.uint64(graph.span(node.depth))
        if len(pages) and bool(((pages <= np.uint64(gpa)) & (np.uint64(gpa) - pages < span)).any()):
            return True
        return any(map(has, graph.children(node)))

    def below(node: Node, base: int) -> Iterator[int]:
        span = graph.span(node.depth)
        for group in graph.groups(node):
            first = base + group.first * span
            if first + group.repeats * span <= start or first >= end:
                continue
            if not group.is_table:
                if 0 <= gpa - group.target < group.repeats * span and start <= first + gpa - group.target < end:
                    yield first + gpa - group.target
            elif has(graph.child(node, group)):
                for at in places_of(first, span, group.repeats, start, end):
                    yield from below(graph.child(node, group), at)

    graph.report_lost(start, end)
    yield from below(graph.root, graph.base)


def places_of(first: int, span: int, count: int, start: int, end: int) -> range:
    """The addresses of ``count`` entries from ``first`` on, as far as they have anything between two addresses."""
    low = max(0, (start - first) // span)
    high = min(count, -(-(end - first) // span))
    return range(first + low * span, first + high * span, span)


def _batch(pages: list[tuple[int, int, int, int]], start: int, end: int) -> Runs:
    return Runs(*(np.array(column, dtype=np.uint64) for column in zip(*pages, strict=True))).merged().cut(start, end)
