"""Page tables that point outside of memory, at themselves, or into lost blocks: errors that say so, and never a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paging.test_forms import RAM, arm, tcr
from support.tables import LONG, memory_of, placed, space_of, table
from vmsavedstate import GuestMemoryError, LostTable, PageNotMapped, PageTablesError
from vmsavedstate.paging import sparing
from vmsavedstate.vocabulary import Reason

TABLES = {
    0x1000: table({0: 0x2007, 3: 0x500000007}),
    0x2000: table({0: 0x3007}),
    0x3000: table({0: 0x4007, 1: 0x200E7, 2: 0x6007}),
    0x4000: table({5: 0x9007}),
    0x6000: table({0: 0xA007}),
}


def test_a_table_outside_of_memory_maps_nothing() -> None:
    space = space_of(memory_of(placed(TABLES), RAM), **LONG, cr3=0x1000)
    gva = (3 << 39) + 0x1234
    with pytest.raises(PageNotMapped, match=r"PDPTE at 0x500000000 is outside of the saved memory") as caught:
        space.translate(gva)
    assert (caught.value.level, caught.value.entry, caught.value.unmapped_size) == ("PDPTE", None, (1 << 30) - 0x1234)
    assert space.walk(gva).steps[-1].kind == "outside"
    assert not space.translate_many([gva])[1].any()
    lost: list[LostTable] = []
    assert len(list(space.mappings(lost=lost.append))) == 3
    assert lost == [LostTable(3 << 39, 1 << 39, 0x500000000, Reason.HOLE)]
    assert len(list(space.mappings())) == 3, "the processor would find a device there, or nothing"


@pytest.mark.parametrize("reason", ["missing", "damaged"])
def test_a_lost_table_is_an_error_that_names_it(reason: str) -> None:
    space = space_of(memory_of(placed(TABLES), RAM, lost={(0x4000, 0x5000): reason}), **LONG, cr3=0x1000)
    for call in (space.translate, space.walk, lambda gva: space.read(gva, 8), lambda gva: space.require(gva, 8)):
        with pytest.raises(
            GuestMemoryError, match=r"PTE of guest virtual address 0x5.*, in a page table at 0x4000"
        ) as caught:
            call(0x5010)
        assert (caught.value.reason, caught.value.start, caught.value.end) == (reason, 0x4000, 0x5000) or (
            caught.value.start == 0x4028
        )
    found, there = space.translate_many([0x5010, 0x400000, 0x200000])
    assert there.tolist() == [False, True, True] and found.tolist() == [0, 0xA000, 0]
    with pytest.raises(GuestMemoryError, match="the page table at 0x4000, for guest virtual addresses from 0x0 on"):
        list(space.mappings())
    with pytest.raises(GuestMemoryError):
        list(space.reverse(0x9000))
    lost: list[LostTable] = []
    assert [run.gva for run in space.mappings(lost=lost.append)] == [0x200000, 0x400000]
    assert sorted(lost) == [
        LostTable(0, 0x200000, 0x4000, Reason(reason)),
        LostTable(3 << 39, 1 << 39, 0x500000000, Reason.HOLE),
    ]
    assert space.read(0x5000, 16, fill=0xAB) == b"\xab" * 16
    assert [tuple(gap) for gap in space.gaps(0x5000, 0x10)] == [(0x5000, 0x5010, reason)]


@pytest.mark.parametrize("lost", [(0x4000, 0x5000), (0x4000, 0x4008), (0x4100, 0x4200), (0x2000, 0x3000)])
def test_the_same_error_with_numpy_and_without(monkeypatch: pytest.MonkeyPatch, lost: tuple[int, int]) -> None:
    """A table that is lost in part, too, whichever of its entries is asked for."""

    def asked(without: bool) -> list[object]:
        monkeypatch.setattr(sparing, "without_numpy", lambda: without)
        space = space_of(memory_of(placed(TABLES), RAM, lost={lost: "damaged"}), **LONG, cr3=0x1000)
        answers: list[object] = []
        for gva in (0x5010, 0x0, 0x20000, 0x400000, 3 << 39, 1 << 50):
            try:
                answers.append(space.translate(gva))
            except GuestMemoryError as error:
                answers.append((str(error), error.start, error.end, error.reason, error.steps, error.hresult))
            except PageNotMapped as error:
                answers.append((str(error), error.level, error.entry, error.unmapped_size))
        return answers

    assert asked(True) == asked(False)
    assert isinstance(asked(True)[0], tuple)


def test_lost_tables_stay_unknown_in_a_full_pool() -> None:
    """Tiles that cannot be read, among as many that can as a pool has room for, and among unmapped ones."""
    directory = {number: number << 21 | 0x83 for number in range(500)} | {500: 0x4003, 501: 0x5003}
    tables = {
        0x1000: table({0: 0x2003}),
        0x2000: table({0: 0x3003}),
        0x3000: table(directory),
        0x4000: table({0: 0x9003}),
    }
    space = space_of(memory_of(placed(tables), RAM, lost={(0x4000, 0x5000): "damaged"}), **LONG, cr3=0x1000)
    for count in (1, 62, 63, 64, 127, 254, 500):
        asked = [*(number << 21 for number in range(count)), 500 << 21, 501 << 21, 502 << 21, 505 << 21]
        for _ in range(2):
            found, there = space.translate_many(asked)
            assert found[:count].tolist() == asked[:count]
            assert there.tolist() == [True] * count + [False] * 4


def test_rows_that_are_given_back_are_empty() -> None:
    """Unmapped tiles take no row of the pool; what was written there must not show in the next ones."""
    tables = {
        0x1000: table({0: 0x2003}),
        0x2000: table({0: 0x3003}),
        0x3000: table(dict.fromkeys(range(0, 40, 2), 131)),
    }
    space = space_of(memory_of(placed(tables), RAM), **LONG, cr3=0x1000)
    for first in (0, 3, 40, 80):
        asked = [number << 21 for number in range(first, first + 37)]
        expected = [number < 40 and number % 2 == 0 for number in range(first, first + 37)]
        assert space.translate_many(asked)[1].tolist() == expected


def test_very_many_tiles_do_not_make_a_very_large_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmsavedstate.paging import tiles as module

    monkeypatch.setattr(module, "PIECE", 64)
    monkeypatch.setattr(module, "SPAN", 1024)
    directory = table({number: number << 21 | 0x83 for number in range(512)})
    tables = {0x1000: table({0: 0x2003}), 0x2000: table({0: 0x3003, 1: 0x3003}), 0x3000: directory}
    space = space_of(memory_of(placed(tables), RAM), **LONG, cr3=0x1000)
    small = module.Tiles(space._memory, space._regime, {}, limit=64)
    asked = np.arange(0, 1 << 31, 1 << 21, dtype=np.uint64)
    found, there = small.translate(asked)
    assert there.all() and np.array_equal(found, asked & np.uint64((1 << 30) - 1))
    assert len(small._pool.rows) <= 256


def test_large_pages_are_read_from_their_middle() -> None:
    """1 GiB pages whose neighbours lie elsewhere: a range that begins inside ends where the page does."""
    tables = {0x1000: table({0: 0x2003}), 0x2000: table({0: 0x40000083, 1: 0x83, 2: 0x80000083})}
    memory = memory_of(placed(tables), [(0, 0x100000), (0x7FFFF000, 0x2000)])
    space = space_of(memory, **LONG, cr3=0x1000)
    for start in (0x3FE00000, 0x3FFFF000, 0x20000000, 0x3FFFFFFF):
        size = 0x40002000 - start
        gaps = [tuple(gap) for gap in space.gaps(start, size)]
        assert gaps == ([(start, 0x3FFFF000, "hole")] if start < 0x3FFFF000 else [])
    assert list(space.gaps(0x3FE00000, 0x300000)) == list(space.gaps(0x3FE00000, 0x1FF000))
    assert space.read(0x3FFFF000, 0x2000) == bytes(0x1000) + memory.read(0, 0x1000)
    assert [tuple(gap) for gap in space.gaps(0x40000000, 0x80000000)] == [
        (0x40100000, 0x80000000, "hole"), (0x80001000, 0xC0000000, "hole"),
    ]  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
def test_what_a_failed_call_filled_does_not_show_later(strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {0x1000: table({0: 0x2003}), 0x2000: table({0: 0x3003}), 0x3000: table({0: 0x200083, 1: 0x4003})}
    memory = memory_of(placed(tables), RAM, lost={(0x4000, 0x5000): "damaged"}, strict=strict)
    space = space_of(memory, **LONG, cr3=0x1000)
    if strict:
        with pytest.raises(GuestMemoryError):
            space.translate_many([0, 0x200000])
    else:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(memory, "pages", failing_after(memory.pages, 3))
            space.translate_many([0, 0x200000])
    found, there = space.translate_many([0xA00000, 0xC00000])
    assert not there.any() and not found.any()


def failing_after(call: Any, count: int) -> Any:
    """``call``, which works so many times and then fails."""
    left = iter([True] * count)

    def wrapped(*arguments: Any) -> Any:
        if not next(left, False):
            raise RuntimeError("the medium")
        return call(*arguments)

    return wrapped


def test_strict_memory_does_not_pass_over_lost_tables() -> None:
    space = space_of(
        memory_of(placed(TABLES), RAM, lost={(0x4000, 0x5000): "damaged"}, strict=True), **LONG, cr3=0x1000
    )
    with pytest.raises(GuestMemoryError):
        space.translate_many([0x5010])
    with pytest.raises(GuestMemoryError):
        space.read(0x5000, 16, fill=0xAB)


def test_a_table_that_is_its_own_child() -> None:
    """As Windows maps its tables: finite, since each level is one step."""
    tables = {
        0x1000: table({0: 0x2007, 511: 0x1007}),
        0x2000: table({0: 0x3007}),
        0x3000: table({0: 0x4007}),
        0x4000: table({5: 0x9007}),
    }
    space = space_of(memory_of(placed(tables), RAM), **LONG, cr3=0x1000)  # fmt: skip
    assert space.translate((1 << 64) - 0x1000) == 0x1000
    runs = list(space.mappings())
    assert [(run.gva, run.gpa, run.size) for run in runs] == [
        (0x5000, 0x9000, 0x1000), ((1 << 64) - (1 << 39), 0x4000, 0x1000), ((1 << 64) - 0x40000000, 0x3000, 0x1000),
        ((1 << 64) - 0x200000, 0x2000, 0x1000), ((1 << 64) - 0x1000, 0x1000, 0x1000),
    ]  # fmt: skip
    assert list(space.reverse(0x4008)) == [(1 << 64) - (1 << 39) + 8]


def test_a_claim_of_very_much_memory_does_not_lift_the_bound() -> None:
    words = table(dict.fromkeys(range(512), 0x1007))
    space = space_of(memory_of({0x1000: words}, [(0, 1 << 50)]), **LONG, cr3=0x1000)
    with pytest.raises(PageTablesError, match=r"8,7\d\d were visited, and no more than 1 are different"):
        list(space.reverse(0x5000))


def test_many_different_tables_are_sound() -> None:
    """More tables than are granted to any set, each of them once."""
    directories = {}
    for number in range(20):
        entries = {index: 0x10000000 + (number << 21) + (index << 12) | 3 for index in range(512)}
        directories[0x200000 + (number << 12)] = table(entries)
    pointers = table({number: 0x200000 + (number << 12) | 3 for number in range(20)})
    pages = placed({0x1000: table({0: 0x2003}), 0x2000: pointers, **directories})
    leaf = table({0: 0x9003})
    for number in range(20 * 512):
        pages[0x10000000 + (number << 12)] = leaf
    memory = memory_of(pages, [(0, 0x400000), (0x10000000, 20 * 512 * 4096)])
    assert sum(1 for _ in space_of(memory, **LONG, cr3=0x1000).mappings()) == 20 * 512


@pytest.mark.parametrize("family", ["x86", "arm64"])
def test_enumeration_of_tables_that_all_point_at_themselves_is_bounded(family: str) -> None:
    """512 to the power of 4 mappings in one page: told, not gone through."""
    if family == "x86":
        space = space_of(memory_of({0x1000: table(dict.fromkeys(range(512), 0x1007))}, RAM), **LONG, cr3=0x1000)
    else:
        words = table(dict.fromkeys(range(512), 0x1403))
        space = space_of(memory_of({0x1000: words}, RAM), "arm64", **arm(tcr(16, 16, 12), 0x1000, 0x1000))
    assert space.translate(0x1234) == 0x1234
    count = 0
    with pytest.raises(PageTablesError, match=r"up to 0x[0-9a-f]+ only") as caught:
        for _ in space.mappings():
            count += 1
    assert count > 1000 and caught.value.remedy is not None
    assert len(list(space.mappings(0x40000000, 0x40200000))) == 512, "a smaller range is"
    with pytest.raises(PageTablesError):
        list(space.reverse(0x5000))


def test_arguments_that_are_no_addresses() -> None:
    from vmsavedstate import InvalidArgumentError

    space = space_of(memory_of(placed(TABLES), RAM), **LONG, cr3=0x1000)
    for call in (space.translate, space.walk, space.reverse, space.mappings, lambda at: space.read(at, 1)):
        for bad in (-1, 1 << 64):
            with pytest.raises(InvalidArgumentError):
                list(call(bad))  # type: ignore[arg-type]
    for bad_read in ((0, -1, None), (0, (1 << 32) + 1, None), ((1 << 64) - 1, 2, None), (0, 1, 256)):
        with pytest.raises(InvalidArgumentError):
            space.read(*bad_read[:2], fill=bad_read[2])
    for values in ([-1], [1 << 64], ["x"], np.array([1.5]), np.array([-1]), [None], [1.0]):
        with pytest.raises(InvalidArgumentError):
            space.translate_many(values)  # type: ignore[arg-type]
    assert space.translate_many([0x400000, (1 << 64) - 1])[1].tolist() == [True, False], (
        "small and large ones in a list"
    )
    assert space.read(0x400000, 0) == b"" and list(space.gaps(0, 0)) == [] and list(space.mappings(5, 5)) == []


def test_memory_behind_a_mapping_that_is_not_saved() -> None:
    """A device: the translation stands, reading says where and why not."""
    tables = dict(TABLES) | {0x4000: table({5: 0x9007, 6: 0xFEE00007})}
    space = space_of(memory_of(placed(tables), RAM), **LONG, cr3=0x1000)
    assert space.translate(0x6020) == 0xFEE00020
    with pytest.raises(
        GuestMemoryError, match="guest virtual address 0x6020 is mapped, but guest physical addresses"
    ) as caught:
        space.read(0x6020, 8)
    assert (caught.value.reason, caught.value.start) == ("hole", 0xFEE00020)
    with pytest.raises(GuestMemoryError):
        space.require(0x5000, 0x2000)
    assert space.read(0x5FFC, 8, fill=0x11) == bytes(4) + b"\x11" * 4
    assert [tuple(gap) for gap in space.gaps(0x4000, 0x4000)] == [
        (0x4000, 0x5000, "unmapped"), (0x6000, 0x7000, "hole"), (0x7000, 0x8000, "unmapped"),
    ]  # fmt: skip


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("reason", ["missing", "damaged"])
def test_the_error_of_a_lost_table_names_it(reason: str, strict: bool) -> None:
    """Which table, for which addresses, and why: also where strict mode raises while the page is read."""
    pages = placed({0x1000: table({0: 0x2007, 1: 0x3007}), 0x2000: table({0: 0x4007}), 0x3000: table({})})
    memory = memory_of(pages, [(0, 0x10000)], lost={(0x3000, 0x4000): reason}, strict=strict)
    space = space_of(memory, **LONG, cr3=0x1000)
    with pytest.raises(GuestMemoryError) as caught:
        list(space.mappings())
    error = caught.value
    assert error.message.startswith(
        "the page table at 0x3000, for guest virtual addresses from 0x8000000000 on, cannot be read: "
    )
    assert f"its block is {reason}" in error.message
    assert (error.start, error.end, error.reason) == (0x3000, 0x4000, reason)
