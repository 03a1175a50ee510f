"""Random page tables: every way to ask must give one answer, whatever the tables say."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guests import tables as generator
from paging.test_forms import answers
from support.tables import memory_of, space_of
from vmsavedstate import AddressSpace, GuestMemoryError, PageNotMapped
from vmsavedstate.paging.tiles import Tiles

RAM = [(0, 0x400000), (0x800000, 0x100000)]
FORMS = [*generator.X86_CASES, *generator.ARM64_CASES]
PAGES = [0x100000 + (number << 16) for number in range(8)]


def random_space(case: Any, seed: int) -> tuple[AddressSpace, list[int]]:
    """An address space over random tables, and addresses that lead into them."""
    chance = random.Random(seed)
    arm = isinstance(case, generator.Arm64Case)
    form = case.form(False) if arm else case.form

    def entry() -> int:
        if isinstance(case, generator.Arm64Case):
            return generator.arm64_entry(chance, PAGES, 0, case.granule, case.wide)
        return generator.x86_entry(chance, PAGES, 0, form.entry_size)

    content = generator.fill(chance, PAGES, form, entry)
    pages = {
        start + at: generator.packed(words, form.entry_size)[at : at + 4096]
        for start, words in content.items()
        for at in range(0, 1 << form.granule, 4096)
    }
    memory = memory_of(pages, RAM)
    root = chance.choice(PAGES)
    if arm:
        registers = {"sctlr_el1": 1, "tcr_el1": case.tcr, "ttbr0_el1": root, "ttbr1_el1": chance.choice(PAGES)}
        space = space_of(memory, "arm64", **registers)
    else:
        space = space_of(memory, cr0=0x80010001, cr3=root | case.cr3_low, cr4=case.cr4, efer=case.efer)
    asked = [address & (1 << 64) - 1 for address in generator.ask(chance, content, root, form, 60)]
    if arm:
        asked += [address & (1 << 64) - 1 for address in generator.ask(chance, content, root, case.form(True), 60)]
    return space, asked


@pytest.mark.parametrize("case", FORMS, ids=lambda case: case.name)
@settings(max_examples=12)
@given(seed=st.integers(0, 1 << 32))
def test_every_way_to_ask_gives_one_answer(case: Any, seed: int) -> None:
    space, asked = random_space(case, seed)
    found = answers(space, asked)  # translate, translate_many and walk
    for gva, gpa in zip(asked, found, strict=True):
        walk = space.walk(gva)
        assert len(walk.steps) <= 5
        page = gva & ~0xFFF
        runs = list(space.mappings(page, page + 0x1000))
        if gpa is None:
            assert walk.access == 0 and walk.size > 0
            for size in (min(walk.size, 1 << 40), walk.size, walk.size // 3 + 1):
                assert space.walk(gva + size - 1).gpa is None, "so many bytes are not mapped"
        assert [run.gpa + gva - run.gva for run in runs] == ([] if gpa is None else [gpa])
        assert [run.access for run in runs] == ([] if gpa is None else [walk.access])
        if gpa is not None:
            assert list(space.reverse(gpa, page, page + 0x1000)) == [gva]


@pytest.mark.parametrize("case", FORMS[::3], ids=lambda case: case.name)
@settings(max_examples=6)
@given(seed=st.integers(0, 1 << 32), data=st.data())
def test_reads_are_the_pages_one_by_one(case: Any, seed: int, data: st.DataObject) -> None:
    space, asked = random_space(case, seed)
    gva = data.draw(st.sampled_from(asked))
    size = min(data.draw(st.integers(1, 40000)), (1 << 64) - gva)
    expected, gaps = bytearray(), []
    for at in range(gva, gva + size):
        if not expected or at % 4096 == 0 or at == gva:
            try:
                page_gpa: int | None = space.translate(at)
                space._memory.require(page_gpa or 0, 1)
            except (PageNotMapped, GuestMemoryError):
                page_gpa = None
            piece = min(4096 - at % 4096, gva + size - at)
            if page_gpa is None:
                gaps.append((at, at + piece))
            expected += b"\xee" * piece if page_gpa is None else space._memory.read(page_gpa, piece)
        if len(expected) >= size:
            break
    assert space.read(gva, size, fill=0xEE) == expected
    told = [(gap.start, gap.end) for gap in space.gaps(gva, size)]
    assert sum(end - start for start, end in told) == sum(end - start for start, end in gaps)
    if gaps:
        with pytest.raises((PageNotMapped, GuestMemoryError)):
            space.read(gva, size)
        with pytest.raises((PageNotMapped, GuestMemoryError)):
            space.require(gva, size)
    else:
        assert space.read(gva, size) == expected


@pytest.mark.parametrize("limit", [4, 64, 500])
def test_a_pool_that_is_full_begins_anew(limit: int) -> None:
    """However few tiles are kept, the answers are the same."""
    space, asked = random_space(generator.X86_CASES[4], 7)
    chance = random.Random(limit)
    elsewhere = [chance.getrandbits(47) for _ in range(300)]
    many = np.array([*asked, *asked, *elsewhere, *asked], dtype=np.uint64)
    expected, there = space.translate_many(many)
    views: dict[int, memoryview] = {}
    small = Tiles(space._memory, space._regime, views, limit=limit)
    for _ in range(3):
        found, known = small.translate(many)
        assert np.array_equal(found, expected) and np.array_equal(known, there)
        for gva in chance.sample(many.tolist(), 20):
            assert bool(small.tile(gva)[gva >> 12 & 511]) == bool(there[many == gva][0])
    assert len(views) <= 4 * limit + 64


def test_answers_of_any_shape() -> None:
    space, asked = random_space(generator.X86_CASES[4], 3)
    grid = np.array(asked[:60], dtype=np.uint64).reshape(3, 4, 5)
    found, there = space.translate_many(grid)
    assert found.shape == there.shape == (3, 4, 5)
    assert found.dtype == np.dtype(np.uint64) and there.dtype == np.dtype(np.bool_)
    assert not found[~there].any()
    empty, nothing = space.translate_many([])
    assert empty.shape == nothing.shape == (0,)
