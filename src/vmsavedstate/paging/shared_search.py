"""Searching virtual memory that many entries share: what a table maps is searched once, its addresses are listed lazily.

A match begins in one table's memory and may reach into what follows, so a table is searched together with as many pages of
what is behind it as a match can reach; tables that are met again with the same pages behind them have the same matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from ..memory import GuestPhysicalMemory, MemoryGap, Pattern, Progress
from ..memory.blocks import Kept, Part, stream
from ..memory.search import NOT_SEARCHED, REACH, search
from ..vocabulary import Reason
from .shared import PAGE, Graph, Group, Node

Pages = tuple[int | None, ...]  # guest physical addresses of pages that follow each other, None where nothing is mapped
GapCallback = Callable[[MemoryGap], object]


class Place(NamedTuple):
    """Matches: one at ``offset``, or those of ``inner`` there, in all ``repeats`` times at a distance of ``stride``."""

    offset: int
    stride: int
    repeats: int
    inner: Places | None


Places = tuple[Place, ...]


class SharedSearch:
    """A search for one pattern in what one tree maps."""

    def __init__(
        self, graph: Graph, memory: GuestPhysicalMemory, pattern: Pattern, gap: GapCallback, progress: Progress | None
    ) -> None:
        self._graph = graph
        self._memory = memory
        self._pattern = pattern
        self._gap = gap
        self._progress = progress
        self._searched = 0
        is_regex = isinstance(pattern, re.Pattern)
        self._length = 1 if isinstance(pattern, re.Pattern) else len(pattern)
        self._following = -(-(REACH if is_regex else self._length - 1) // PAGE)  # pages that a match can reach into
        self._known: dict[tuple[Node, int | None, Pages], Places] = {}
        self._known_pages: dict[tuple[object, ...], Places] = {}
        self._ends: dict[int, bool] = {}
        self.head = cache(self._head)
        self.tail = cache(self._tail)

    def addresses(self, start: int, end: int) -> Iterator[int]:
        """The addresses at which matches begin, ascending; those of bytes lie wholly between two addresses."""
        graph, nothing = self._graph, (None,) * self._following
        last = end - self._length
        graph.report_lost(start, end)
        for item in self._items(graph.root, graph.base, None, nothing, (start, end)):
            yield from (at for at in _expand((item,), graph.base, start, end) if at <= last)

    def _places(self, node: Node, base: int, before: int | None, after: Pages) -> Places:
        """The matches that begin in what a table maps; ``base`` is where it is met first, for reports."""
        key = (node, before, after)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = tuple(self._items(node, base, before, after, None))
        return found

    def _items(
        self, node: Node, base: int, before: int | None, after: Pages, asked: tuple[int, int] | None
    ) -> Iterator[Place]:
        graph = self._graph
        groups = graph.groups(node)
        if groups and not any(group.is_table for group in groups) and node.depth:
            yield from self._search(groups, node, base, before, after)
            return
        span = graph.span(node.depth)
        for index, group in enumerate(groups):
            offset, size = group.first * span, group.repeats * span
            if asked is not None and (base + offset >= asked[1] or base + offset + size <= asked[0]):
                continue
            front, behind = self._neighbours(groups, index, node, before, after)
            if group.is_table:
                yield from self._repeated(graph.child(node, group), base, offset, span, group.repeats, front, behind)
            else:
                yield from self._pages(group, node, base, front, behind)

    def _pages(self, group: Group, node: Node, base: int, before: int | None, after: Pages) -> Iterator[Place]:
        """Large pages: what lies in them is the same wherever they are mapped, what begins at their end need not be."""
        size = group.repeats * self._graph.span(node.depth)
        offset = group.first * self._graph.span(node.depth)
        if isinstance(self._pattern, re.Pattern):
            around, inside = (before, after), size
        else:
            around, inside = (None, ()), size - self._length + 1
        key = (group.target, size, *around)
        places = self._known_pages.get(key)
        if places is None:
            alone = Group(0, group.repeats, False, group.target, group.rights)
            found = self._search((alone,), node, base + offset, around[0], around[1])
            places = self._known_pages[key] = tuple(place for place in found if place.offset < inside)
        if places:
            yield Place(offset, size, 1, places)
        if inside < size and self._may_begin(group.target + size):
            reach = PAGE * self._following
            for at in self._seam(group.target + size - reach, after):
                yield Place(offset + size - reach + at, 1, 1, None)

    def _may_begin(self, end: int) -> bool:
        """Whether a match of bytes may begin in the last of the memory before a physical address, and go on behind it."""
        found = self._ends.get(end)
        if found is None:
            assert isinstance(self._pattern, bytes)
            size = min(self._length - 1, PAGE)
            data = self._memory.read(end - size, size, fill=0) if not self._memory.strict else b""
            found = not data or any(data.endswith(self._pattern[:length]) for length in range(1, size + 1))
            self._ends[end] = found or size == PAGE
        return self._ends[end]

    def _seam(self, start: int, after: Pages) -> Iterator[int]:
        """Where matches begin in the last pages of memory that ends in a large page, and end in the pages behind it."""
        length = PAGE * self._following
        pages = [(0, start, length)]
        pages += [(length + PAGE * number, page, PAGE) for number, page in enumerate(after) if page is not None]
        blocks = stream(self._memory.backing, _parts(self._memory, pages), 1)
        yield from (at for at in search(blocks, self._pattern) if length - self._length < at < length)

    def _repeated(
        self, child: Node, base: int, offset: int, span: int, repeats: int, before: int | None, after: Pages
    ) -> Iterator[Place]:
        """A table that several neighbouring entries point to: its first, all middle ones, and its last."""
        own, last = self.head(child), self.tail(child)
        cases = [(0, 1, before, own if repeats > 1 else after)]
        if repeats > 2:
            cases.append((1, repeats - 2, last, own))
        if repeats > 1:
            cases.append((repeats - 1, 1, last, after))
        for first, count, front, behind in cases:
            at = offset + first * span
            inner = self._places(child, base + at, front, behind)
            if inner:
                yield Place(at, span, count, inner)

    def _neighbours(
        self, groups: tuple[Group, ...], index: int, node: Node, before: int | None, after: Pages
    ) -> tuple[int | None, Pages]:
        """The page before a group of entries, and the pages behind it."""
        graph, group = self._graph, groups[index]
        entries, span = 1 << graph.form.levels[node.depth].bits, graph.span(node.depth)
        front: int | None = None
        behind: Pages = (None,) * self._following
        if group.first == 0:
            front = before
        elif index and groups[index - 1].first + groups[index - 1].repeats == group.first:
            other = groups[index - 1]
            front = (
                self.tail(graph.child(node, other)) if other.is_table else other.target + other.repeats * span - PAGE
            )
        end = group.first + group.repeats
        if end == entries:
            behind = after
        elif index + 1 < len(groups) and groups[index + 1].first == end:
            behind = self._head_of(node, groups[index + 1])
        return front, behind

    def _head_of(self, node: Node, group: Group) -> Pages:
        """The first pages that a group of entries maps."""
        if group.is_table:
            return self.head(self._graph.child(node, group))
        held = min(self._following, group.repeats * self._graph.span(node.depth) // PAGE)
        pages = tuple(group.target + PAGE * number for number in range(held))
        return pages + (None,) * (self._following - held)

    def _head(self, node: Node) -> Pages:
        """The first pages of what a table maps, as many as a match can reach into."""
        graph = self._graph
        found: list[int | None] = [None] * self._following
        per_entry = graph.span(node.depth) // PAGE
        for group in graph.groups(node):
            first = group.first * per_entry
            if first >= self._following:
                break
            pages = self._head_of(node, group)
            if group.is_table and group.repeats > 1 and per_entry < self._following:
                pages = (pages[:per_entry] * group.repeats)[: self._following]
            for number, page in enumerate(pages[: self._following - first]):
                if page is not None:
                    found[first + number] = page
        return tuple(found)

    def _tail(self, node: Node) -> int | None:
        """The last page of what a table maps, None where its end is not mapped."""
        graph = self._graph
        groups = graph.groups(node)
        if not groups or groups[-1].first + groups[-1].repeats != 1 << graph.form.levels[node.depth].bits:
            return None
        last = groups[-1]
        if last.is_table:
            return self.tail(graph.child(node, last))
        return last.target + last.repeats * graph.span(node.depth) - PAGE

    def _search(
        self, groups: tuple[Group, ...], node: Node, base: int, before: int | None, after: Pages
    ) -> Iterator[Place]:
        """Search what these entries map, with the pages around it; addresses are moved by a page to stay positive."""
        span = self._graph.span(node.depth)
        first = groups[0].first * span
        end = (groups[-1].first + groups[-1].repeats) * span
        move = PAGE - first
        pages = [(0, before, PAGE)] if before is not None and not first else []
        pages += [(group.first * span + move, group.target, group.repeats * span) for group in groups]
        whole = end == span << self._graph.form.levels[node.depth].bits
        if whole or len(groups) == 1:
            pages += [(end + move + PAGE * number, page, PAGE) for number, page in enumerate(after) if page is not None]
        blocks = stream(self._memory.backing, _parts(self._memory, pages), 1)

        def watched() -> Iterator[object]:
            for block in blocks:
                for gap in block.gaps:
                    low, high = max(gap.start, PAGE), min(gap.end, end + move)
                    if gap.reason in NOT_SEARCHED and low < high:
                        self._gap(MemoryGap(base + low - move, base + high - move, gap.reason))
                yield block

        for at in search(watched(), self._pattern):  # type: ignore[arg-type]
            if PAGE <= at < end + move:
                yield Place(at - move, 1, 1, None)
        self._searched += sum(group.repeats for group in groups) * span
        if self._progress is not None:
            self._progress(self._searched)


def _parts(memory: GuestPhysicalMemory, pages: list[tuple[int, int, int]]) -> Iterator[Part]:
    """(address, guest physical address, size) of memory as parts of a stream, with gaps where nothing is."""
    at = 0
    for address, gpa, size in pages:
        if at < address:
            yield MemoryGap(at, address, Reason.UNMAPPED)
        for run in memory.runs(gpa, size):
            place = address + run.gpa - gpa
            if run.position is None:
                yield MemoryGap(place, place + run.size, Reason.HOLE)
            else:
                yield Kept(place, run.size, run.position)
        at = address + size


def _expand(places: Places, base: int, start: int, end: int) -> Iterator[int]:
    """The addresses of matches between two addresses, ascending."""
    for place in places:
        first = base + place.offset
        low = max(0, (start - first) // place.stride) if start > first else 0
        for number in range(low, place.repeats):
            at = first + number * place.stride
            if at >= end:
                return
            if place.inner is not None:
                yield from _expand(place.inner, at, start, end)
            elif at >= start:
                yield at
