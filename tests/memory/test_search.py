"""Finding bytes and regular expressions: against a naive search of the same bytes, across every kind of border."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmsavedstate
from support.states import write_state
from support.tables import LONG, memory_of, placed, space_of, table
from vmsavedstate import GuestMemoryError, InvalidArgumentError, SavedStateWriter
from vmsavedstate.memory import MemoryBlock, MemoryGap
from vmsavedstate.memory.search import search
from vmsavedstate.vocabulary import Reason

BLOCK = 1 << 20
module = importlib.import_module("vmsavedstate.memory.search")


def blocks_of(data: bytes, cuts: list[int], start: int = 0) -> Iterator[MemoryBlock]:
    """``data`` at address ``start``, in blocks that end at ``cuts``."""
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return (MemoryBlock(start + low, data[low:high]) for low, high in pairwise(edges))


def naive(data: bytes, pattern: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(pattern, at)]


@settings(max_examples=150)
@given(
    data=st.binary(max_size=300).map(lambda raw: bytes(byte & 3 for byte in raw)),
    pattern=st.binary(min_size=1, max_size=6).map(lambda raw: bytes(byte & 3 for byte in raw)),
    cuts=st.lists(st.integers(0, 300)),
)
def test_bytes(data: bytes, pattern: bytes, cuts: list[int]) -> None:
    """Whatever the blocks, down to single bytes, each match is yielded once and in order."""
    found = list(search(blocks_of(data, cuts, 1000), pattern))
    assert found == [1000 + at for at in naive(data, pattern)]


@settings(max_examples=150)
@given(
    data=st.binary(max_size=300).map(lambda raw: bytes(97 + (byte & 3) for byte in raw)),
    regex=st.sampled_from(
        [
            rb"ab",
            rb"a[bc]d",
            rb"(?<=a)b",
            rb"aa?b{1,3}",
            rb"(?<!a)c+",
            rb"d.{0,5}a",
            rb"a(?!b)",
            rb"b(?=a)",
            rb"a[ab]{3}",
        ]
    ),
    cuts=st.lists(st.integers(0, 300)),
)
def test_regular_expressions(data: bytes, regex: bytes, cuts: list[int]) -> None:
    """As re finds them in the whole, as long as no match is longer than the reach."""
    pattern = re.compile(regex, re.DOTALL)
    expected = [match.start() for match in pattern.finditer(data)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REACH", 32)
        patch.setattr(module, "BEFORE", 8)
        found = list(search(blocks_of(data, cuts), pattern))
    if not any(len(match[0]) > 30 for match in pattern.finditer(data)):
        assert found == expected


def test_a_match_at_the_end_of_a_window_waits_for_what_follows() -> None:
    """What a look-ahead would see lies in the next window: the match is judged there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REACH", 8)
        patch.setattr(module, "BEFORE", 8)
        for at in range(30, 70):
            data = b"c" * at + b"ab" + b"c" * 40
            for cut in (at - 1, at, at + 1, at + 2):
                assert list(search(blocks_of(data, [cut, 40]), re.compile(rb"a(?!b)"))) == []


def test_stretches_are_not_joined_over_gaps() -> None:
    gap = MemoryBlock(3, b"", (MemoryGap(3, 4, Reason.HOLE),))
    for pattern in (b"eed", re.compile(b"eed")):
        assert list(search(iter([MemoryBlock(0, b"nee"), gap, MemoryBlock(4, b"dle")]), pattern)) == []
        assert list(search(iter([MemoryBlock(0, b"nee"), MemoryBlock(3, b"dle")]), pattern)) == [1]


@pytest.mark.parametrize("compress", [False, True])
def test_across_blocks_and_holes_of_a_state(tmp_path: Path, compress: bool) -> None:
    """The pattern over a block border, at the first and the last byte, twice overlapping; not across a hole."""
    data = bytearray(random.Random(1).randbytes(3 * BLOCK))
    for at in (0, BLOCK - 3, 2 * BLOCK - 1, 3 * BLOCK - 6):
        data[at : at + 6] = b"needle"
    data[5000:5006] = b"ababab"
    path = tmp_path / "x.vmrs"
    with SavedStateWriter(path, compress=compress) as writer:
        writer.add_processor(0, {"rax": 1})
        writer.add_memory(0, 2 * BLOCK, lambda at, size: bytes(data[at : at + size]))
        writer.add_memory(3 * BLOCK, BLOCK, lambda at, size: bytes(data[2 * BLOCK + at : 2 * BLOCK + at + size]))
    done: list[int] = []
    with vmsavedstate.open(path) as state:
        memory = state.memory
        assert list(memory.find(b"needle", progress=done.append)) == [0, BLOCK - 3, 4 * BLOCK - 6]
        assert done[-1] == 3 * BLOCK and done == sorted(done)
        assert list(memory.find(b"abab")) == [5000, 5002]
        assert list(memory.find(re.compile(rb"nee(d|x)le"))) == [0, BLOCK - 3, 4 * BLOCK - 6]
        assert list(memory.find(b"needle", 1, 4 * BLOCK - 1)) == [BLOCK - 3], "whole matches inside of the range"
        assert list(memory.find(b"needle", 4 * BLOCK)) == []


def test_lost_memory_is_not_searched_and_not_zero(tmp_path: Path) -> None:
    blocks = {0: b"A" * BLOCK, 2: b"\xff" * 100, 3: b"A" * BLOCK}
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata_pages(1024)], blocks=blocks)
    with vmsavedstate.open(path) as state:
        assert list(state.memory.find(b"\0")) == [], "missing and damaged blocks do not read as zeros"
        assert list(state.memory.find(b"A", BLOCK - 1)) == [BLOCK - 1, *range(3 * BLOCK, 4 * BLOCK)]
        assert state.findings
    memory = memory_of({}, [(0, 0x3000)], lost={(0x1000, 0x1800): "damaged"}, strict=True)
    with pytest.raises(GuestMemoryError, match="0x1000 to 0x17ff cannot be read") as caught:
        list(memory.find(b"x"))
    assert (caught.value.start, caught.value.end) == (0x1000, 0x1800)
    pages, there = memory_of({0x1000: b"x" * 4096}, [(0, 0x3000)], lost={(0x1004, 0x1010): "damaged"}).pages([0, 1, 2])
    assert there.tolist() == [True, False, True] and not pages.any(), "a page that is lost in part is lost"
    tolerant = memory_of({0x1000: b"x" * 4096}, [(0, 0x3000)], lost={(0x1004, 0x1FFE): "damaged"})
    assert list(tolerant.find(b"x")) == [0x1000, 0x1001, 0x1002, 0x1003, 0x1FFE, 0x1FFF]


def metadata_pages(count: int) -> bytes:
    from support.partition import metadata

    return metadata(count)


@pytest.mark.parametrize("pattern", [b"", "text", re.compile("text"), re.compile(rb"x*"), b"x" * (BLOCK + 1), None])
def test_patterns_that_are_none(pattern: object) -> None:
    with pytest.raises(InvalidArgumentError):
        memory_of({}, [(0, 0x1000)]).find(pattern)  # type: ignore[arg-type]


def test_virtual_memory_in_its_own_order() -> None:
    """A match over two pages that lie apart and in reverse; a device between does not stop the search."""
    tables = {0x1000: table({0: 0x2007}), 0x2000: table({0: 0x3007}), 0x3000: table({0: 0x4007}),
              0x4000: table({1: 0x9007, 2: 0x8007, 3: 0xFEE00007, 4: 0x9007})}  # fmt: skip
    pages = placed(tables) | {0x9000: b"le".ljust(4093, b".") + b"nee", 0x8000: b"dle".ljust(4096, b"-")}
    memory = memory_of(pages, [(0, 0x10000)])
    space = space_of(memory, **LONG, cr3=0x1000)
    assert list(space.find(b"needle")) == [0x1FFD]
    assert list(memory.find(b"needle")) == []
    assert list(space.find(b"nee")) == [0x1FFD, 0x4FFD]
    assert list(space.find(b"nee", 0x2000)) == [0x4FFD]
    assert list(space.find(re.compile(rb"ne+dle-"))) == [0x1FFD]


@pytest.mark.parametrize("behind", [1, 2, 200, 256])
def test_a_look_behind_sees_the_bytes_before_a_window(behind: int) -> None:
    """A window begins where the certain part of the last one ends; look-behind sees 256 bytes before that."""
    data = bytearray(3 * BLOCK)
    places = [BLOCK - module.REACH + step for step in range(-2, 3)] + [
        2 * BLOCK - module.REACH,
        2 * BLOCK - module.REACH + 1,
    ]
    for place in places:
        for at in range(place - behind, place):
            data[at] = data[at] or ord("a")
        data[place] = ord("b")
    pattern = re.compile(rb"(?<=a.{%d})b" % (behind - 1), re.DOTALL)
    whole = [match.start() for match in pattern.finditer(bytes(data))]
    assert whole
    blocks = blocks_of(bytes(data), [BLOCK, 2 * BLOCK])
    assert list(search(blocks, pattern)) == whole


def test_matches_that_overlap_where_two_blocks_meet() -> None:
    """Every one of them, as inside of a block."""
    data = b"." * (BLOCK - 5) + b"a" * 10 + b"." * 20
    assert list(search(blocks_of(data, [BLOCK]), b"aaaa")) == naive(data, b"aaaa") == list(range(BLOCK - 5, BLOCK + 2))
