"""Searching virtual memory that many entries share: what is mapped again and again is searched once, addresses are lazy.

A match begins in one table's memory and may reach into what follows, so the matches of a table depend on as many pages
behind it as a match can reach. Whether there are any is remembered for each table and what is behind it; the addresses are
made while they are listed, so that thousands of millions of them need no memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from ..cache import ByteCache
from ..errors import GuestMemoryError
from ..memory import GuestPhysicalMemory, MemoryBlock, MemoryGap, Pattern, Progress
from ..memory.blocks import Kept, Part, stream
from ..memory.search import NOT_SEARCHED, REACH, search
from ..vocabulary import Reason
from .shared import PAGE, Graph, Group, Node, places_of

Pages = tuple[int | None, ...]  # guest physical addresses of pages that follow each other, None where nothing is mapped
GapCallback = Callable[[MemoryGap], object]

EVERYWHERE = (0, 1 << 65)
KEPT_MATCHES = 32 << 20  # bytes of matches of tables that are kept
FEW = 256  # matches in one page, or large page, that are kept
REMEMBERED = 1 << 18  # tables of which it is known whether they have a match


class Around(NamedTuple):
    """The page before some memory, and the pages behind it."""

    before: int | None
    after: Pages


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
        self._length = 1 if isinstance(pattern, re.Pattern) else len(pattern)
        reach = REACH if isinstance(pattern, re.Pattern) else self._length - 1
        self._following = -(-reach // PAGE)  # pages that a match can reach into
        # A short literal: pages are searched one by one, and what is behind one only where a match may begin at its end.
        self._by_page = isinstance(pattern, bytes) and self._following < 2
        self._nothing = Around(None, (None,) * self._following)
        self._none: dict[tuple[Node, Around], bool] = {}
        self._tables: ByteCache[tuple[Node, Around], tuple[int, ...]] = ByteCache(KEPT_MATCHES)
        self._known: dict[tuple[object, ...], tuple[int, ...] | None] = {}
        self._interesting = np.zeros(0, dtype=np.uint64)  # pages of last tables that have a match, or may begin one
        self.head = cache(self._head)
        self.tail = cache(self._tail)
        self.may_begin = cache(self._may_begin)

    def addresses(self, start: int, end: int) -> Iterator[int]:
        """The addresses at which matches begin, ascending; those of bytes lie wholly between two addresses."""
        graph, last = self._graph, end - self._length
        graph.report_lost(start, end)
        found = self._below(graph.root, graph.base, self._nothing, start, end)
        return (at for at in found if start <= at <= last)

    def _below(self, node: Node, base: int, around: Around, start: int, end: int) -> Iterator[int]:
        """The matches in what a table maps from ``base`` on, and some more of the tables that lie at the bounds."""
        graph = self._graph
        if node.depth and not graph.entries(node).is_table.any():
            yield from (base + offset for offset in self._of_table(node, base, around))
            return
        if self._by_page and graph.entries(node).is_table.all() and self._are_dead(node, base):
            return
        span = graph.span(node.depth)
        groups = graph.groups(node)
        for index, group in enumerate(groups):
            first, size = base + group.first * span, group.repeats * span
            if first >= end or first + size <= start:
                continue
            own = self._around(groups, index, node, around)
            if group.is_table:
                yield from self._repeated(graph.child(node, group), first, span, group.repeats, own, start, end)
            else:
                yield from self._of_pages(group.target, size, first, own)

    def _repeated(
        self, child: Node, first: int, span: int, repeats: int, around: Around, start: int, end: int
    ) -> Iterator[int]:
        """A table that several neighbouring entries point to: its first, all middle ones, and its last."""
        own, last = self.head(child), self.tail(child)
        cases = [(0, 1, Around(around.before, own if repeats > 1 else around.after))]
        if repeats > 2:
            cases.append((1, repeats - 2, Around(last, own)))
        if repeats > 1:
            cases.append((repeats - 1, 1, Around(last, around.after)))
        for number, count, case in cases:
            case = self._relevant(child, case)
            begin = first + number * span
            places = places_of(begin, span, count, start, end)
            if places and not self._has_none(child, places[0], case):
                for at in places:
                    yield from self._below(child, at, case, start, end)

    def _are_dead(self, node: Node, base: int) -> bool:
        """Whether no table that a table points to has a match, whatever is behind it."""
        places = self._graph.first_places(node, base, *EVERYWHERE)
        return all(
            self._relevant(child, self._nothing) is self._nothing and self._has_none(child, at, self._nothing)
            for child, at in places.items()
        )

    def _has_none(self, node: Node, base: int, around: Around) -> bool:
        """Whether a table has no match; looked for once. ``base`` is where it is met first, for reports."""
        found = self._none.get((node, around))
        if found is None:
            found = next(self._below(node, base, around, *EVERYWHERE), None) is None
            if len(self._none) >= REMEMBERED:
                self._none.clear()
            self._none[node, around] = found
        return found

    def _relevant(self, node: Node, around: Around) -> Around:
        """What of the pages around a table makes a difference to its matches."""
        if not self._by_page:
            return around
        tail = self.tail(node)
        open_ended = self._following and tail is not None and self.may_begin(tail + PAGE)
        return Around(None, around.after) if open_ended else self._nothing

    def _around(self, groups: tuple[Group, ...], index: int, node: Node, around: Around) -> Around:
        """The pages around a group of entries."""
        graph, group = self._graph, groups[index]
        span = graph.span(node.depth)
        before, after = self._nothing
        if group.first == 0:
            before = around.before
        elif index and groups[index - 1].first + groups[index - 1].repeats == group.first:
            other = groups[index - 1]
            before = (
                self.tail(graph.child(node, other)) if other.is_table else other.target + other.repeats * span - PAGE
            )
        end = group.first + group.repeats
        if end == 1 << graph.form.levels[node.depth].bits:
            after = around.after
        elif index + 1 < len(groups) and groups[index + 1].first == end:
            after = self._head_of(node, groups[index + 1])
        return Around(before, after)

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
            for number, page in enumerate(self._head_of(node, group)[: self._following - first]):
                if page is not None:
                    found[first + number] = page
        return tuple(found)

    def _tail(self, node: Node) -> int | None:
        """The last page of what a table maps, None where its end is not mapped."""
        graph = self._graph
        entries = graph.entries(node)
        if not len(entries.numbers) or entries.numbers[-1] + 1 != 1 << graph.form.levels[node.depth].bits:
            return None
        target = int(entries.targets[-1])
        if entries.is_table[-1]:
            return self.tail(Node(node.depth + 1, target, int(entries.values[-1])))
        return target + graph.span(node.depth) - PAGE

    def _may_begin(self, end: int) -> bool:
        """Whether a match of bytes may begin in the last of the memory before a physical address, and go on behind it."""
        assert isinstance(self._pattern, bytes)
        size = min(self._length - 1, PAGE)
        try:
            data = self._memory.read(end - size, size, fill=0)
        except GuestMemoryError:  # strict mode: the search itself finds it
            return True
        return size == PAGE or any(data.endswith(self._pattern[:length]) for length in range(1, size + 1))

    def _of_table(self, node: Node, base: int, around: Around) -> tuple[int, ...]:
        """The offsets of matches in what a last table maps."""
        key = (node, around)
        found = self._tables.get(key)
        if found is None:
            made = (
                self._page_by_page(node, base, around.after) if self._by_page else self._as_a_whole(node, base, around)
            )
            found = tuple(made)
            self._tables.put(key, found, 100 + 40 * len(found))
        return found

    def _as_a_whole(self, node: Node, base: int, around: Around) -> Iterator[int]:
        span, groups = self._graph.span(node.depth), self._graph.groups(node)
        pages = [(group.first * span, group.target, group.repeats * span) for group in groups]
        return self._search(pages, span << self._graph.form.levels[node.depth].bits, base, around)

    def _page_by_page(self, node: Node, base: int, after: Pages) -> Iterator[int]:
        """The matches of a short literal: each page of memory is searched once, in whatever tables it is."""
        entries, span = self._graph.entries(node), self._graph.span(node.depth)
        numbers, targets = entries.numbers, entries.targets
        for page in np.unique(targets).tolist():
            if (page, span) not in self._known:
                first = int(numbers[int(np.argmax(targets == page))])
                found = self._keep((page, span), self._inside(page, span, base + first * span, self._nothing))
                if found != () or (self._following and self.may_begin(page + span)):
                    self._interesting = np.append(self._interesting, np.uint64(page))
        last = (1 << self._graph.form.levels[node.depth].bits) - 1
        for index in np.flatnonzero(np.isin(targets, self._interesting)).tolist():
            page, number = int(targets[index]), int(numbers[index])
            known = self._known[page, span]
            matches = self._inside(page, span, base + number * span, self._nothing) if known is None else iter(known)
            yield from (number * span + at for at in matches)
            if self._following and self.may_begin(page + span):
                behind = after if number == last else (None,)
                if index + 1 < len(numbers) and numbers[index + 1] == number + 1:
                    behind = (int(targets[index + 1]),)
                yield from (number * span + at for at in self._seam(page, span, behind))

    def _of_pages(self, target: int, size: int, address: int, around: Around) -> Iterator[int]:
        """The addresses of matches in large pages: what lies in them is the same wherever they are mapped."""
        is_bytes = isinstance(self._pattern, bytes)
        key = (target, size) if is_bytes else (target, size, around)
        own = self._nothing if is_bytes else around
        if key not in self._known:
            self._keep(key, self._inside(target, size, address, own))
        known = self._known[key]
        matches = self._inside(target, size, address, own) if known is None else iter(known)
        yield from (address + at for at in matches)
        if is_bytes and self._following and (self._following > 1 or self.may_begin(target + size)):
            yield from (address + at for at in self._seam(target, size, around.after))

    def _keep(self, key: tuple[object, ...], matches: Iterator[int]) -> tuple[int, ...] | None:
        """Remember matches if they are few; None stands for many, which are looked for again."""
        found: list[int] = []
        for at in matches:
            found.append(at)
            if len(found) > FEW:
                self._known[key] = None
                return None
        self._known[key] = tuple(found)
        return self._known[key]

    def _inside(self, target: int, size: int, address: int, around: Around) -> Iterator[int]:
        """The offsets of matches that begin in memory that lies in one piece; of bytes, those that also end in it."""
        last = size - self._length if isinstance(self._pattern, bytes) else size - 1
        found = self._search([(0, target, size)], size, address, around)
        return (at for at in found if at <= last)

    def _seam(self, target: int, size: int, after: Pages) -> Iterator[int]:
        """The offsets at which bytes begin at the end of memory that lies in one piece and end in the pages behind it."""
        length = min(PAGE * self._following, size)
        pages = [(0, target + size - length, length)]
        pages += [(length + PAGE * number, page, PAGE) for number, page in enumerate(after) if page is not None]
        found = search(stream(self._memory.backing, _parts(self._memory, pages), 1), self._pattern)
        return (size - length + at for at in found if length - self._length < at < length)

    def _search(self, pages: list[tuple[int, int, int]], size: int, address: int, around: Around) -> Iterator[int]:
        """The offsets of matches that begin in (offset, guest physical address, size), with the pages around that."""
        whole = [(PAGE + offset, target, length) for offset, target, length in pages]
        if around.before is not None:
            whole.insert(0, (0, around.before, PAGE))
        behind = enumerate(around.after)
        whole += [(PAGE + size + PAGE * number, page, PAGE) for number, page in behind if page is not None]
        blocks = stream(self._memory.backing, _parts(self._memory, whole), 1)
        for at in search(self._watched(blocks, size, address), self._pattern):
            if PAGE <= at < PAGE + size:
                yield at - PAGE
        self._searched += size
        if self._progress is not None:
            self._progress(self._searched)

    def _watched(self, blocks: Iterator[MemoryBlock], size: int, address: int) -> Iterator[MemoryBlock]:
        """The same blocks; what of them cannot be searched is reported."""
        for block in blocks:
            for gap in block.gaps:
                low, high = max(gap.start, PAGE), min(gap.end, PAGE + size)
                if gap.reason in NOT_SEARCHED and low < high:
                    self._gap(MemoryGap(address + low - PAGE, address + high - PAGE, gap.reason))
            yield block


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
