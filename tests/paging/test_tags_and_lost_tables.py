"""ARM64 addresses with a tag in the ignored top byte, and page tables that are lost: what is listed, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from paging.test_forms import arm, tcr
from support.partition import (
    control,
    envelope,
    epilog,
    general,
    metadata,
    prolog,
    segments,
    vp,
    vp_indices,
    vp_vtl,
)
from support.states import BLOCK, write_state
from support.tables import memory_of, space_of, table
from vmsavedstate import GuestMemoryError, LostTable, PageNotMapped

AF = 1 << 10
TBI = 3 << 37
TOP = 1 << 64
UPPER = TOP - (1 << 39)
TEXT = b"a secret behind a tag"


def tagged_space(ignored: int = TBI) -> Any:
    """T0SZ 25, T1SZ 25: three levels; one page at 0x5000 of the lower half, one at 0x7000 of the upper."""
    pages = {
        0x1000: table({0: 0x2003}), 0x2000: table({0: 0x3003}), 0x3000: table({5: 0x8003 | AF}),
        0x4000: table({0: 0x5003}), 0x5000: table({0: 0x6003}), 0x6000: table({7: 0x9003 | AF}),
        0x8000: TEXT.ljust(4096, b"."), 0x9000: TEXT.ljust(4096, b"."),
    }  # fmt: skip
    registers = arm(tcr(25, 25, 12, more=ignored), 0x1000, 0x4000)
    return space_of(memory_of(pages, [(0, 0x10000)]), "arm64", **registers)


@pytest.mark.parametrize("tag", [0x01, 0x7F, 0x80, 0xB5, 0xFE])
def test_a_range_with_a_tag(tag: int) -> None:
    space = tagged_space()
    lower = tag << 56 | 0x5000
    upper = tag << 56 | (UPPER + 0x7000) & (1 << 56) - 1
    for gva, gpa in ((lower, 0x8000), (upper, 0x9000)):
        assert space.translate(gva) == gpa
        start, end = gva - 0x2000, gva + 0x3000
        (run,) = space.mappings(start, end)
        assert (run.gva, run.gpa, run.size) == (gva, gpa, 0x1000)
        assert list(space.find(TEXT, start, end)) == [gva]
        assert list(space.reverse(gpa + 5, start, end)) == [gva + 5]
        assert [(block.start, block.size) for block in space.blocks(start, end) if not block.gaps] == [(gva, 0x1000)]
        assert [(gap.start, gap.end) for gap in space.gaps(start, end - start)] == [(start, gva), (gva + 0x1000, end)]
    (first, second) = space.mappings(tag << 56, tag + 1 << 56)  # all of one tag
    assert (first.gva, second.gva) == (lower, upper)


def test_a_larger_range_gives_every_page_once() -> None:
    space = tagged_space()
    for start, end in ((0, TOP), (0, 3 << 56)):
        found = [run.gva for run in space.mappings(start, end)]
        assert found == ([0x5000, UPPER + 0x7000] if end == TOP else [0x5000])


def test_without_ignored_bytes_there_are_no_aliases() -> None:
    space = tagged_space(0)
    assert list(space.mappings(0x0100000000000000, 0x0200000000000000)) == []
    with pytest.raises(PageNotMapped):
        space.translate(0x0100000000005000)


@pytest.mark.parametrize("ignored", [0, 1 << 37, 1 << 38, TBI])
@pytest.mark.parametrize(
    "gva", [1 << 40, 1 << 55, 0x01 << 56 | 1 << 41, 0xFE << 56 | 1 << 50, 0xFF << 56, 0xFF << 56 | 1]
)
def test_what_is_unmapped_ends_at_the_next_alias(ignored: int, gva: int) -> None:
    """The size never reaches over addresses that some tree serves, aliases included, and always up to the next."""
    space = tagged_space(ignored)
    size = space.walk(gva).size
    regime = space._regime

    def served(address: int) -> bool:
        return any(tree.start <= regime.normal(address) < tree.end for tree in regime.trees)

    if served(gva):  # an alias of the other half
        assert space.walk(gva).steps
        return
    assert size > 0 and not served(gva + size - 1) and not served(gva + size // 2)
    assert gva + size == TOP or served(gva + size)


# Three tables of long mode; the last one maps one page and lies in a block that the file has not.
def lost_table_state(path: Path, **options: Any) -> vmsavedstate.SavedState:
    row = [vp_indices([0]), vp(0), vp_vtl(0), general(1), control(0x80010011, 0, 0x1000, 0x20, efer=0xD00), segments()]
    first = bytearray(BLOCK)
    first[0x1000:0x2000] = table({0: 0x2003, 256: 0x2003})
    first[0x2000:0x3000] = table({0: 0x3003})
    first[0x3000:0x4000] = table({0: 0x4003, 1: BLOCK + 0x5000 | 3, 2: 0x4003})
    first[0x4000:0x5000] = table({0: 0x8003})
    write_state(
        path, blob=envelope(prolog() + b"".join(row) + epilog()), ranges=[metadata(512)], blocks={0: bytes(first)}
    )
    return vmsavedstate.open(path, **options)


LOST_AT = 1 << 21  # what the lost table maps, in both halves


@pytest.mark.parametrize("strict", [False, True])
def test_a_lost_table_is_named(tmp_path: Path, strict: bool) -> None:
    """Table, address, file and the reason as it is: also in strict mode, where all tables of a level are read at once."""
    path = tmp_path / "x.vmrs"
    with lost_table_state(path, strict=strict) as state:
        space = state.processors[0].address_space()
        for call in (
            lambda: list(space.mappings()),
            lambda: list(space.reverse(0x8000)),
            lambda: list(space.find(b"x")),
        ):
            with pytest.raises(
                GuestMemoryError, match=r"page table at 0x105000, for guest virtual addresses from 0x200000"
            ) as told:
                call()
            assert (told.value.reason, told.value.file) == ("missing", str(path))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, TOP, [(LOST_AT, 1 << 21), (TOP - (1 << 47) + LOST_AT, 1 << 21)]),
        (LOST_AT + 0x5000, LOST_AT + 0x9000, [(LOST_AT + 0x5000, 0x4000)]),
        (0, LOST_AT + 0x1000, [(LOST_AT, 0x1000)]),
        (0, LOST_AT, []),
        (2 * LOST_AT, TOP >> 1, []),
    ],
)
def test_lost_tables_are_cut_to_the_range(
    tmp_path: Path, start: int, end: int, expected: list[tuple[int, int]]
) -> None:
    lost: list[LostTable] = []
    with lost_table_state(tmp_path / "x.vmrs") as state:
        space = state.processors[0].address_space()
        list(space.mappings(start, end, lost=lost.append))
        assert [(item.gva, item.size) for item in lost] == expected
        if not expected:
            assert list(space.mappings(start, end)), "what is not asked for is no error"


def test_a_root_that_is_lost_is_said_of_each_half(tmp_path: Path) -> None:
    lost: list[LostTable] = []
    with lost_table_state(tmp_path / "x.vmrs") as state:
        space = state.processors[0].address_space(root=BLOCK + 0x5000)
        assert list(space.mappings(lost=lost.append)) == []
    assert [(item.gva, item.size) for item in lost] == [(0, 1 << 47), (TOP - (1 << 47), 1 << 47)]


def test_advice_is_given_where_it_can_be_followed() -> None:
    """A fill byte is advised by calls that take one."""
    space = tagged_space()
    memory = space._memory
    calls: list[tuple[Callable[[], object], bool]] = [
        (lambda: memory.read(1 << 40, 1), True), (lambda: memory.require(1 << 40, 1), False),
        (lambda: memory.raw_offset(1 << 40), False), (lambda: memory.read_into(1 << 40, bytearray(1)), True),
    ]  # fmt: skip
    for call, advised in calls:
        with pytest.raises(GuestMemoryError) as caught:
            call()
        assert bool(caught.value.remedy) is advised


@pytest.mark.parametrize("start", [LOST_AT - 0x1000, LOST_AT, LOST_AT + 0x3000, LOST_AT + 0x1FF000])
@pytest.mark.parametrize("half", [0, TOP - (1 << 47)])
def test_gaps_over_a_lost_table(tmp_path: Path, start: int, half: int) -> None:
    """From anywhere in what it speaks for up to its end, and on behind it."""
    with lost_table_state(tmp_path / "x.vmrs") as state:
        space, end = state.processors[0].space, 2 * LOST_AT + 0x2000
        found = space.gaps(half + start, end - start)
        gaps = [(gap.start - half, gap.end - half, str(gap.reason)) for gap in found]
        before = [(start, LOST_AT, "unmapped")] if start < LOST_AT else []
        lost = [(max(start, LOST_AT), 2 * LOST_AT, "missing")]
        assert gaps == [*before, *lost, (2 * LOST_AT + 0x1000, end, "unmapped")]
