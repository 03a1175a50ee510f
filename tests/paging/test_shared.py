"""A region that many entries share, as the shadow of a kernel with KASAN: all of it is listed, and in seconds."""

from __future__ import annotations

import re
import time
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmsavedstate
from support.tables import LONG, memory_of, placed, space_of, table
from vmsavedstate import Access, AddressSpace, LostTable
from vmsavedstate.memory import MemoryGap

TOP = 1 << 64
SHADOW = 0xFFFFEC0000000000
SHADOW_SIZE = 16 << 40
TEXT = 0xFFFFFFFF81000000
NEEDLE = b"kernel text that is mapped above the shadow"
RAM = [(0, 0x40000)]
NX = 1 << 63


def kasan(extra: dict[int, int] | None = None, content: bytes = b"") -> AddressSpace:
    """One PUD, one PMD and one PTE page serve 16 TiB of one page of zeros; kernel text of 2 MiB pages is above."""
    first = SHADOW >> 39 & 511
    root = dict.fromkeys(range(first, first + 32), 8195) | {511: 0x6003} | (extra or {})
    pages = {
        0x1000: table(root), 0x2000: table(dict.fromkeys(range(512), 0x3003)),
        0x3000: table(dict.fromkeys(range(512), 0x4003)), 0x4000: table(dict.fromkeys(range(512), 0x5003 | NX)),
        0x5000: content.ljust(4096, b"\0"), 0x6000: table({510: 0x7003}), 0x7000: table({8: 0x8003}),
        0x8000: table({0: 0x9003, 1: 0xA003}),
        0x9000: bytes(4096 - 10) + NEEDLE[:10], 0xA000: (NEEDLE[10:] + b"..." + NEEDLE).ljust(4096, b"\0"),
    }  # fmt: skip
    return space_of(memory_of(placed(pages), RAM), **LONG, cr3=0x1000)


@pytest.fixture
def in_seconds() -> Any:
    begin = time.process_time()
    yield
    assert time.process_time() - begin < 30, "three times what it may take"


@pytest.mark.usefixtures("in_seconds")
def test_regions_give_all_of_it() -> None:
    found = [(item.gva, item.size, str(item.access)) for item in kasan().regions()]
    assert found == [(SHADOW, SHADOW_SIZE, "rw- ---"), (TEXT, 0x2000, "rwx ---")]


@pytest.mark.usefixtures("in_seconds")
def test_mappings_are_listed_lazily_and_in_order() -> None:
    runs = list(islice(kasan().mappings(), 100_000))
    assert [run.gva for run in runs] == [SHADOW + 0x1000 * number for number in range(100_000)]
    assert {run.gpa for run in runs} == {0x5000}
    (text,) = kasan().mappings(TEXT, TOP)
    assert (text.gva, text.gpa, text.size) == (TEXT, 0x9000, 0x2000)
    end = SHADOW + SHADOW_SIZE
    assert sum(run.size for run in kasan().mappings(end - (1 << 30), TOP)) == (1 << 30) + 0x2000


@pytest.mark.usefixtures("in_seconds")
def test_reverse_gives_all_of_it() -> None:
    space = kasan()
    assert list(space.reverse(0xA123)) == [TEXT + 0x1123]
    assert list(space.reverse(0xB000)) == []
    first = list(islice(space.reverse(0x5004), 50_000))
    assert first == [SHADOW + 4 + 0x1000 * number for number in range(50_000)]


@pytest.mark.usefixtures("in_seconds")
@pytest.mark.parametrize("pattern", [NEEDLE, re.compile(rb"kernel (text) that")], ids=["bytes", "regex"])
def test_find_gives_all_of_it(pattern: Any) -> None:
    gaps: list[MemoryGap] = []
    assert list(kasan().find(pattern, unread=gaps.append)) == [TEXT + 0xFF6, TEXT + 0x1000 + len(NEEDLE) - 10 + 3]
    assert gaps == []


@pytest.mark.usefixtures("in_seconds")
def test_a_page_that_is_mapped_four_thousand_million_times_is_searched_once() -> None:
    space = kasan(content=b"x" + bytes(4090) + b"hello")
    assert list(islice(space.find(b"hello"), 10_000)) == [SHADOW + 4091 + 0x1000 * number for number in range(10_000)]
    # across the end of the page into the same one: it does so 2**32 - 1 times
    assert list(islice(space.find(b"hellox"), 10_000)) == [SHADOW + 4091 + 0x1000 * number for number in range(10_000)]
    end = SHADOW + SHADOW_SIZE
    assert list(space.find(b"hello", end - 0x3000, end)) == [end - 5 - 0x1000 * number for number in (2, 1, 0)]
    assert list(space.find(b"hellox", end - 0x3000)) == [end - 5 - 0x1000 * number for number in (2, 1)]


@pytest.mark.usefixtures("in_seconds")
def test_beside_a_map_of_its_own_tables() -> None:
    """As Windows has: one entry that points back to the root, in which everything is once more."""
    space = kasan({300: 0x1003})
    assert [item.gva for item in space.regions(TEXT)] == [TEXT]
    assert list(space.reverse(0xA123, TEXT)) == [TEXT + 0x1123]


def lost_shadow() -> AddressSpace:
    """The table of the last level is lost."""
    first = SHADOW >> 39 & 511
    root = dict.fromkeys(range(first, first + 32), 8195) | {511: 0x6003}
    pages = {
        0x1000: table(root), 0x2000: table(dict.fromkeys(range(512), 0x3003)),
        0x3000: table(dict.fromkeys(range(512), 0x4003)), 0x6000: table({510: 0x7003}), 0x7000: table({8: 0x8003}),
        0x8000: table({0: 0x9003}),
    }  # fmt: skip
    memory = memory_of(placed(pages), RAM, lost={(0x4000, 0x5000): "damaged"})
    return space_of(memory, **LONG, cr3=0x1000)


@pytest.mark.usefixtures("in_seconds")
@pytest.mark.parametrize("what", ["regions", "mappings", "reverse", "find"])
def test_a_lost_table_that_is_shared(what: str) -> None:
    """Reported at the addresses where it is met first; what is behind it is listed."""
    space = lost_shadow()
    lost: list[LostTable] = []
    if what in ("regions", "mappings"):
        found = list(getattr(space, what)(lost=lost.append))
        assert [item.gva for item in found] == [TEXT]
        assert {item.table for item in lost} == {0x4000} and lost[0].gva == SHADOW
        assert isinstance(lost[0], LostTable)
    elif what == "find":
        gaps: list[MemoryGap] = []
        assert list(space.find(b"zzz", unread=gaps.append)) == []
        assert gaps and gaps[0].start == SHADOW and {gap.reason for gap in gaps} == {"damaged"}
    else:
        with pytest.raises(Exception, match="page table at 0x4000"):
            list(space.reverse(0x9000))


# Small trees whose tables are met again at random: the graph yields what the plain enumeration yields.
@settings(max_examples=60)
@given(st.data())
def test_the_graph_agrees_with_the_enumeration(data: st.DataObject) -> None:
    """Tables of a few entries that point to a few tables, at any level, under any rights."""
    from vmsavedstate.paging import enumeration, shared

    names = [0x1000 * number for number in range(1, 7)]
    entry = st.builds(
        lambda place, bits: place | bits,
        st.sampled_from([*names, 0x20000, 0x21000, 0x22000, 0x200000, 0x40000000]),
        st.sampled_from([1, 3, 5, 7, 0x83, 0x87, 7 | NX, 3 | NX, 0]),
    )
    tables = {
        place: table(data.draw(st.dictionaries(st.sampled_from([0, 1, 2, 3, 255, 256, 510, 511]), entry, max_size=5)))
        for place in names
    }
    for place in (0x20000, 0x21000, 0x22000):
        tables[place] = bytes([place >> 12 & 0xFF]) * 4096
    space = space_of(memory_of(placed(tables), RAM), **LONG, cr3=0x1000)
    regime = space._regime
    low = data.draw(st.sampled_from([0, 0x1000, 1 << 21, 0xFFFF800000000000, TOP - (1 << 30)]))
    high = data.draw(st.sampled_from([1 << 22, 1 << 47, TOP - 0x1000, TOP]))
    expected = list(space.mappings(low, high)) if low < high else []

    def of_graphs(what: Any, *more: Any) -> list[Any]:
        found = []
        for tree in regime.trees:
            start, end = max(low, tree.start), min(high, tree.end)
            if start < end:
                found += list(what(shared.Graph(space._memory, tree, enumeration._ignored), *more, start, end))
        return found

    from vmsavedstate.paging.runs import mapped_regions, mapped_runs

    batches = of_graphs(shared.runs)
    assert list(mapped_runs(iter(batches))) == expected
    regions = [(gva, size, Access(access)) for gva, size, access in of_graphs(shared.regions)]
    joined = [tuple(item) for item in mapped_regions(iter(batches))]
    assert regions == joined == [tuple(item) for item in (space.regions(low, high) if low < high else [])]
    for gpa in (0x20000, 0x21004, 0x1008, 0x200123, 0x40200000):
        answers = [run.gva + gpa - run.gpa for run in expected if run.gpa <= gpa < run.gpa + run.size]
        assert of_graphs(shared.reverse, gpa) == answers
        assert (list(space.reverse(gpa, low, high)) if low < high else []) == answers


SOME = re.compile(rb"ab+c")


@settings(max_examples=40)
@given(st.data())
def test_searching_the_graph_finds_what_the_stream_finds(data: st.DataObject) -> None:
    """Pages with the begin, the middle and the end of patterns, mapped in any order by tables that are met again."""
    from vmsavedstate.paging import enumeration, shared, shared_search

    whole = 0x1000
    contents = [b"abc".ljust(whole, b"-"), b"-" * (whole - 2) + b"ab", b"c" * 3 + b"-" * (whole - 3), b"b" * whole,
                b"bc".ljust(whole - 1, b"-") + b"a", b"-" * whole]  # fmt: skip
    frames = [0x1FF000, 0x200000, 0x3FF000, *(0x20000 + 0x1000 * number for number in range(len(contents) - 3))]
    contents = data.draw(st.permutations(contents))  # at the begin and the end of large pages, too
    names = [0x1000 * number for number in range(1, 6)]
    leaf = st.lists(st.sampled_from([*frames, 0x90000, 0]), min_size=1, max_size=12)
    starts = st.sampled_from([0, 1, 250, 500])
    pages = dict(zip(frames, contents, strict=True))
    for place in names[3:]:
        first, row = data.draw(starts), data.draw(leaf)
        pages[place] = table({first + at: frame | 3 for at, frame in enumerate(row) if frame and first + at < 512})
        if data.draw(st.booleans()):  # up to the end, so that matches go on in the next table
            pages[place] = table({index: data.draw(st.sampled_from(frames)) | 3 for index in (0, 1, 510, 511)})
    for place, below in ((0x1000, [0x2000]), (0x2000, [0x3000]), (0x3000, [*names[3:], 0x80, 0x200080])):
        entry = st.lists(st.sampled_from(below), min_size=1, max_size=5)
        first = data.draw(st.sampled_from([0, 1, 255, 507]))
        pages[place] = table({first + at: target | 3 for at, target in enumerate(data.draw(entry))})
    space = space_of(memory_of(placed(pages), [(0, 0x400000)]), **LONG, cr3=0x1000)
    for pattern in (b"abc", b"a", b"bbbb" * 1030, b"-ab", SOME):
        low = data.draw(st.sampled_from([0, 0x1000, 0x200800, 0xFFFF800000000000]))
        high = data.draw(st.sampled_from([0x203000, 1 << 47, TOP]))
        if low >= high:
            continue
        expected = list(space.find(pattern, low, high))
        found: list[int] = []
        for tree in space._regime.trees:
            start, end = max(low, tree.start), min(high, tree.end)
            if start < end:
                graph = shared.Graph(space._memory, tree, enumeration._ignored)
                search = shared_search.SharedSearch(graph, space._memory, pattern, list, None)
                found += search.addresses(start, end)
        if pattern is SOME:  # where a match overlaps the next table, each of the two looks on its own
            assert set(expected) <= set(found)
        else:
            assert found == expected


@pytest.mark.parametrize("strict", [False, True])
def test_matches_across_the_ends_of_large_pages(strict: bool) -> None:
    """A page that is mapped twice is searched once; what begins at its end depends on what is behind it."""
    from vmsavedstate.paging import enumeration, shared, shared_search

    pages = {
        0x1000: table({0: 0x2003}), 0x2000: table({0: 0x3003}),
        0x3000: table({0: 0x200083, 1: 0x400083, 2: 0x200083, 4: 0x400083, 5: 0x4003, 6: 0x200083}),
        0x4000: table({511: 0x5FF003}), 0x3FF000: b"-" * 4094 + b"ab", 0x400000: b"cd".ljust(4096, b"-"),
        0x5FF000: b"-" * 4093 + b"dab", 0x200000: b"cc".ljust(4096, b"-"),
    }  # fmt: skip
    memory = memory_of(placed(pages), [(0, 0x600000)], strict=strict)
    space = space_of(memory, **LONG, cr3=0x1000)
    tree = space._regime.trees[0]
    for pattern in (b"abc", b"abcd", b"dabcc", b"bc", b"-dab"):
        expected = list(space.find(pattern, 0, tree.end))
        graph = shared.Graph(memory, tree, enumeration._ignored)
        found = list(shared_search.SharedSearch(graph, memory, pattern, list, None).addresses(0, tree.end))
        assert found == expected != [], pattern


@pytest.mark.usefixtures("in_seconds")
def test_a_tagged_range_of_a_shared_region() -> None:
    """ARM64 with software tags: 512 GiB through one table of each level, text above it, asked for with a tag."""
    from paging.test_forms import arm, tcr

    flags = 0x403
    pages = {
        0x1000: table(dict.fromkeys(range(511), 0x2003) | {511: 0x6003}), 0x2000: table(dict.fromkeys(range(512), 0x3003)),
        0x3000: table(dict.fromkeys(range(512), 0x5000 | flags)), 0x5000: bytes(4096),
        0x6000: table({511: 0x7003}), 0x7000: table({511: 0x8000 | flags}), 0x8000: NEEDLE.ljust(4096, b"."),
    }  # fmt: skip
    registers = arm(tcr(25, 25, 12, more=3 << 37), 0x1000, 0x1000)
    space = space_of(memory_of(placed(pages), RAM), "arm64", **registers)
    end, tag = 1 << 39, 0xB4 << 56
    assert space._is_shared
    assert list(space.find(NEEDLE, 0, end)) == [end - 0x1000]
    assert list(space.find(NEEDLE, tag, tag + end)) == [tag + end - 0x1000]
    assert list(space.reverse(0x8000, tag, tag + end)) == [tag + end - 0x1000]
    assert [(item.gva, item.size) for item in space.regions(tag, tag + end)] == [
        (tag, 511 << 30), (tag + end - 0x1000, 0x1000),
    ]  # fmt: skip


@pytest.mark.usefixtures("in_seconds")
def test_tables_that_are_part_of_themselves() -> None:
    """All of them are too many to search, and the error says so at once; a smaller range, as it advises, is searched."""
    words = table(dict.fromkeys(range(511), 0x1007) | {511: 0x2007})
    space = space_of(memory_of({0x1000: words, 0x2000: NEEDLE.ljust(4096, b".")}, RAM), **LONG, cr3=0x1000)
    with pytest.raises(vmsavedstate.PageTablesError, match="point into each other") as caught:
        list(space.find(NEEDLE))
    assert "a smaller range" in (caught.value.remedy or "")
    last = 511 << 12  # the last entry of a last table
    assert list(space.find(NEEDLE, 0, 1 << 21)) == [last]
    assert list(space.find(NEEDLE, 5 << 21, 7 << 21)) == [(5 << 21) + last, (6 << 21) + last]
