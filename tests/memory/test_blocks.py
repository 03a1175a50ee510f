"""Memory as a stream of blocks: they tile what was asked for, and say why the rest is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmsavedstate
from paging.test_forms import RAM
from paging.test_hostile import TABLES
from support.partition import metadata
from support.samples import Samples
from support.states import damaged_state, numbered_pages, write_state
from support.tables import LONG, memory_of, placed, space_of, table
from vmsavedstate import InvalidArgumentError, Memory, MemoryBlock, MemoryGap, Reason, codec

TOP = 1 << 64
# Memory from 0 to 0x8000 and from 0x10000 to 0x14000; of it two stretches are lost.
PAGES = {page * 0x1000: bytes([page + 1]) * 0x1000 for page in range(0x14)}
RANGES = [(0, 0x8000), (0x10000, 0x4000)]
LOST = {(0x2800, 0x3000): "damaged", (0x11000, 0x13000): "missing"}


def check_tiling(blocks: Iterator[MemoryBlock], memory: Memory, start: int, end: int) -> list[MemoryBlock]:
    """The blocks, which must tile start to end, hold what a read gives, and have the gaps that ``gaps`` yields."""
    kept, at, gaps = [], start, []
    for block in blocks:
        assert block.address == block.start == block.gpa == at
        assert block.size == block.end - block.start > 0
        if block.gaps:
            (gap,) = block.gaps
            assert block.data == b"" and (gap.start, gap.end) == (block.start, block.end)
            gaps.append(gap)
        else:
            assert block.size == len(block.data) <= 1 << 20
            assert block.data == memory.read(block.address, block.size)
        at = block.end
        kept.append(block)
    assert at == max(start, end)
    if end - start < 1 << 40:
        assert gaps == list(memory.gaps(start, max(0, end - start)))
    for one, two in pairwise(gaps):
        assert (one.end, one.reason) != (two.start, two.reason), "neighbours of one reason are one gap"
    return kept


@given(st.integers(0, 0x16000), st.integers(0, 0x16000), st.integers(1, 4), st.booleans())
def test_physical_blocks_tile_any_range(start: int, end: int, workers: int, strict: bool) -> None:
    memory = memory_of(PAGES, RANGES, lost=LOST, strict=strict)
    check_tiling(memory.blocks(start, end, workers), memory, start, end)


def test_all_of_physical_memory() -> None:
    memory = memory_of(PAGES, RANGES, lost=LOST)
    blocks = check_tiling(memory.blocks(), memory, 0, 0x14000)
    assert [block.gaps[0] for block in blocks if block.gaps] == [
        (0x2800, 0x3000, "damaged"), (0x8000, 0x10000, "hole"), (0x11000, 0x13000, "missing"),
    ]  # fmt: skip
    assert len(blocks) == 7
    behind = list(memory.blocks(0x13800, TOP))
    assert [(block.start, block.end, bool(block.data)) for block in behind] == [
        (0x13800, 0x14000, True), (0x14000, TOP, False),
    ]  # fmt: skip
    assert list(memory.blocks(0x20000)) == list(memory.blocks(5, 5)) == list(memory.blocks(9, 3)) == []
    assert list(memory.blocks(0x20000, 0x30000)) == [(0x20000, b"", (MemoryGap(0x20000, 0x30000, Reason.HOLE),))]


@given(
    st.integers(0, 0x700000), st.integers(0, 0x700000), st.sampled_from([1, 3]), st.sampled_from(["missing", "damaged"])
)
def test_virtual_blocks_tile_any_range(start: int, end: int, workers: int, reason: str) -> None:
    pages = placed(TABLES) | {0x9000: b"\x09" * 0x1000, 0xA000: b"\x0a" * 0x1000}
    memory = memory_of(pages, RAM, lost={(0x4000, 0x4800): reason})
    space = space_of(memory, **LONG, cr3=0x1000)
    check_tiling(space.blocks(start, end, workers), space, start, end)


def test_all_of_virtual_memory_with_a_lost_table() -> None:
    memory = memory_of(placed(TABLES), RAM, lost={(0x4000, 0x5000): "damaged"})
    space = space_of(memory, **LONG, cr3=0x1000)
    blocks = check_tiling(space.blocks(), space, 0, TOP)
    assert [(block.start, block.end, block.gaps[0].reason) for block in blocks if block.gaps] == [
        (0, 0x200000, "damaged"), (0x204000, 0x205000, "damaged"), (0x300000, 0x400000, "hole"),
        (0x401000, TOP, "unmapped"),
    ]  # fmt: skip
    assert sum(len(block.data) for block in blocks) == 0x100000 - 0x1000 + 0x1000


def test_scattered_pages_of_virtual_memory_come_in_order() -> None:
    """Pages that are scattered over memory are read together; each virtual page is where its table says."""
    tables = {
        0x1000: table({0: 0x2007}), 0x2000: table({0: 0x3007}), 0x3000: table({0: 0x4007}),
        0x4000: table({page: (0x10000 + (page * 37 % 256) * 0x1000) | 7 for page in range(256) if page % 7}),
    }  # fmt: skip
    pages = placed(tables) | {0x10000 + page * 0x1000: bytes([page]) * 0x1000 for page in range(256)}
    space = space_of(memory_of(pages, [(0, 1 << 21)]), **LONG, cr3=0x1000)
    blocks = check_tiling(space.blocks(0, 1 << 21), space, 0, 1 << 21)
    data = b"".join(block.data or bytes(block.size) for block in blocks)
    assert all(data[page << 12] == (page * 37 % 256 if page % 7 else 0) for page in range(256))


def test_blocks_unpack_and_stay_valid(tmp_path: Path) -> None:
    path = write_state(
        tmp_path / "x.vmrs", ranges=[metadata(768)],
        blocks={number: codec.active().encode_block(numbered_pages(256 * number)) for number in range(3)},
    )  # fmt: skip
    with vmsavedstate.open(path) as state:
        kept = list(state.memory.blocks())
        whole = state.memory.read(0, 3 << 20)
    address, data, gaps = kept[1]
    assert (address, len(data), gaps) == (1 << 20, 1 << 20, ())
    assert b"".join(block.data for block in kept) == whole, "also after the state was closed"
    assert "1048576 to" not in repr(kept[1]) and len(repr(kept[1])) < 80


@pytest.mark.parametrize("workers", [0, -3, True, 2.0, "all"])
def test_workers_is_one_or_more(tmp_path: Path, workers: Any) -> None:
    memory = memory_of(PAGES, RANGES)
    with pytest.raises(InvalidArgumentError, match="workers"):
        memory.blocks(workers=workers)
    with pytest.raises(InvalidArgumentError, match="workers"):
        space_of(memory, **LONG, cr3=0).blocks(workers=workers)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (TOP, None), (0, -1), ("0", 5), (0, 5.0)])
def test_bounds_that_cannot_be_meant(start: Any, end: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        memory_of(PAGES, RANGES).blocks(start, end)


@pytest.mark.parametrize("how", ["break", "exception", "close"])
def test_leaving_the_loop_early_ends_all_threads(tmp_path: Path, how: str) -> None:
    before = set(threading.enumerate())
    blocks = {number: numbered_pages(256 * number) for number in range(40)}
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata(256 * 40)], blocks=blocks)
    with vmsavedstate.open(path) as state:
        stream = state.memory.blocks(workers=6)
        try:
            for count, _ in enumerate(stream):
                assert len(set(threading.enumerate()) - before) == 6
                if count == 3 and how == "exception":
                    raise KeyboardInterrupt
                if count == 3:
                    break
        except KeyboardInterrupt:
            pass
        if how == "close":
            state.close()
            with pytest.raises(vmsavedstate.VmSavedStateError, match="closed"):
                list(stream)
        del stream
    assert set(threading.enumerate()) <= before


def test_damage_and_what_is_missing_of_a_file(tmp_path: Path) -> None:
    with vmsavedstate.open(damaged_state(tmp_path / "x.vmrs")) as state:
        blocks = check_tiling(state.memory.blocks(), state.memory, 0, 3 << 20)
        assert [(block.start, block.gaps) for block in blocks][1] == (
            1 << 20, (MemoryGap(1 << 20, 2 << 20, Reason.MISSING),)
        )  # fmt: skip


def test_a_claim_of_many_terabytes_is_one_block(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata(1 << 34)], blocks={0: numbered_pages(0)})
    with vmsavedstate.open(path) as state:
        assert [block.size for block in state.memory.blocks()] == [1 << 20, (1 << 46) - (1 << 20)]


@pytest.mark.parametrize("workers", [1, None])
def test_a_real_guest(samples: Samples, workers: int | None) -> None:
    with vmsavedstate.open(samples("linux-amd64-612.vmrs")) as state:
        at = 0
        for block in state.memory.blocks(workers=workers):
            assert block.address == at
            at = block.end
            if block.data:
                assert block.data[:64] == state.memory.read(block.address, 64)
        assert at == state.memory.end
        at = 0
        for block in state.processors[0].space.blocks(workers=workers):
            assert block.address == at
            at = block.end
        assert at == TOP
