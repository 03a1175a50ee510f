"""Every paging form as a table of addresses and answers, each with an invalid counterpart: the bit that ends the walk."""

# ruff: noqa: E501  # tables of addresses

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from support.tables import LEGACY, LONG, PAE, memory_of, placed, space_of, table
from vmsavedstate import AddressSpace, PageNotMapped
from vmsavedstate.paging import sparing

RAM = [(0, 0x100000)]
TOP = 1 << 64


class Case(NamedTuple):
    """A form: registers, tables, what is mapped, and the entry whose present bit is cleared in the counterpart."""

    name: str
    family: str
    registers: dict[str, Any]
    tables: dict[int, bytes]
    mapped: dict[int, int]
    unmapped: dict[int, tuple[str | None, int]]  # address -> the level that ends the walk, and how much is not mapped
    size: int
    counterpart: tuple[int, ...]  # address of an entry, and the addresses of ``mapped`` that it is for
    counterpart_level: str


def tcr(size0: int, size1: int, granule: int, ips: int = 5, more: int = 0) -> int:
    tg0, tg1 = {12: (0, 2), 14: (2, 1), 16: (1, 3)}[granule]
    return size0 | size1 << 16 | tg0 << 14 | tg1 << 30 | ips << 32 | more


def arm(tcr_value: int, ttbr0: int = 0, ttbr1: int = 0) -> dict[str, int]:
    return {"sctlr_el1": 1, "tcr_el1": tcr_value, "ttbr0_el1": ttbr0, "ttbr1_el1": ttbr1}


AF = 1 << 10
CASES = [
    Case(
        "none", "x86", {"cr0": 0x11}, {}, {0: 0, 0x1234: 0x1234, 0xFFFFFFFF: 0xFFFFFFFF}, {1 << 32: (None, TOP - (1 << 32))},
        8, (0, -1), "",
    ),
    Case(
        "32 bit", "x86", LEGACY | {"cr3": 0x1FFF},
        {0x1000: table({1: 0x2067, 2: 0x5A0E3, 3: 0x3067}, size=4), 0x2000: table({0: 0x9067, 0x3FF: 0x8067}, size=4)},
        # A 4 MiB page keeps bits 39 to 32 of its address in bits 20 to 13 (PSE-36): 0x5A0E3 -> 0x2D << 32.
        {0x400123: 0x9123, 0x7FFFFC: 0x8FFC, 0x812345: 0x2D00012345},
        {0: ("PDE", 0x400000), 0x401000: ("PTE", 0x1000), 0xC00000: ("PTE", 0x1000), 1 << 32: (None, TOP - (1 << 32))},
        4, (0x2FFC, 0x7FFFFC), "PTE",
    ),
    Case(
        "32 bit without CR4.PSE", "x86", LEGACY | {"cr4": 0, "cr3": 0x1000},
        {0x1000: table({2: 0x20E3}, size=4), 0x2000: table({0x12: 0x7067}, size=4)},
        {0x812345: 0x7345}, {0x811000: ("PTE", 0x1000)}, 4, (0x1008, 0x812345), "PDE",
    ),
    Case(
        "PAE", "x86", PAE | {"cr3": 0x1FE0},
        {0x1000: table({0x1FC: 0x2001, 0x1FD: 0x2001, 0x1FF: 0x2001}), 0x2000: table({0: 0x3067, 1: 0x12000E3, 2: 0x7FFFFF000067}),
         0x3000: table({5: 0x8000000000009067})},
        {0x5678: 0x9678, 0x40005678: 0x9678, 0xC0200000: 0x1200000, 0xC03FFFFF: 0x13FFFFF},
        {0x80000000: ("PDPTE", 0x40000000), 0x600000: ("PDE", 0x200000), 0x400000: ("PTE", 0x1000), 1 << 32: (None, TOP - (1 << 32))},
        8, (0x1FF8, 0xC0200000, 0xC03FFFFF), "PDPTE",
    ),
    Case(
        "long, 4 levels", "x86", LONG | {"cr3": 0x6000000000001ABC},  # LAM bits above, PCID below
        {0x1000: table({0: 0x2067, 511: 0x2067}), 0x2000: table({0: 0x3067, 1: 0x400000E3, 511: 0x3067}),
         0x3000: table({0: 0x4067, 1: 0x8A000E3}), 0x4000: table({0: 0x9067, 511: 0xFFFFF00000A067})},
        {0xFFF: 0x9FFF, 0x1FF000: 0xFFFF00000A000,  # bits above 51 are no address
          0x200000: 0x8A00000, 0x3FFFFF: 0x8BFFFFF, 0x40000000: 0x40000000,
         0x7FFFFFFF: 0x7FFFFFFF, TOP - 0x40000000: 0x9000, TOP - (1 << 39): 0x9000},
        {0x1000: ("PTE", 0x1000), 0x400800: ("PDE", 0x1FF800), 0x80000000: ("PDPTE", 0x40000000), 1 << 39: ("PML4E", 1 << 39),
         1 << 47: (None, TOP - (1 << 48)), TOP - (1 << 47) - 1: (None, 1)},
        8, (0x4FF8, 0x1FF000), "PTE",
    ),
    Case(
        "long, 5 levels", "x86", LONG | {"cr4": 0x1020, "cr3": 0x1000},
        {0x1000: table({0: 0x2067, 0xFF: 0x2067, 511: 0x2067}), 0x2000: table({0: 0x3067}), 0x3000: table({0: 0x4067}),
         0x4000: table({0: 0x5067}), 0x5000: table({1: 0x9067})},
        {0x1010: 0x9010, (0xFF << 48) + 0x1010: 0x9010, TOP - (1 << 48) + 0x1FFF: 0x9FFF},
        {1 << 48: ("PML5E", 1 << 48), 1 << 39: ("PML4E", 1 << 39), 1 << 56: (None, TOP - (1 << 57))},
        8, (0x17F8, (0xFF << 48) + 0x1010), "PML5E",
    ),
    Case(
        "ARM64, 4 KiB", "arm64", arm(tcr(16, 25, 12), 0xABCD000000001001, 0x3000),
        {0x1000: table({0: 0x2003, 511: 0x2003}), 0x2000: table({0: 0x40000401, 1: 0x2003}), 0x3000: table({0: 0x4003, 511: 0x4003}),
         0x4000: table({0: 0x5003, 1: 0x8200401}), 0x5000: table({0: 0x9403, 1: 0xA401, 511: 0xB403})},
        {0x123: 0x40000123, 0x3FFFFFFF: 0x7FFFFFFF, (1 << 48) - (1 << 39): 0x40000000, TOP - (1 << 39) + 0x10: 0x9010,
         TOP - (1 << 39) + 0x1FF000: 0xB000, TOP - (1 << 30) + 0x200000: 0x8200000},
        {1 << 39: ("level 0", 1 << 39), 0x80000000: ("level 1", 1 << 30), TOP - (1 << 39) + 0x1000: ("level 3", 0x1000),
         1 << 48: (None, TOP - (1 << 48) - (1 << 39)), TOP - (1 << 39) - 1: (None, 1)},
        8, (0x5FF8, TOP - (1 << 39) + 0x1FF000), "level 3",
    ),
    Case(
        "ARM64, 16 KiB", "arm64", arm(tcr(17, 16, 14), 0x4000, 0),
        {0x4000: table({0: 0x8003, 2047: 0x8003}, pages=4), 0x8000: table({0: 0xC003, 1: 0x2000401}, pages=4),
         0xC000: table({0: 0x10403, 2047: 0x14403}, pages=4)},
        {0x3FFF: 0x13FFF, 0x1FFC000: 0x14000, 0x2000000: 0x2000000, 0x3FFFFFF: 0x3FFFFFF, (1 << 47) - (1 << 36): 0x10000},
        {0x4000: ("level 3", 0x4000), 0x4000000: ("level 2", 1 << 25), 1 << 36: ("level 1", 1 << 36), TOP - 1: ("level 0", 1)},
        8, (0xFFF8, 0x1FFC000), "level 3",
    ),
    Case(
        "ARM64, 64 KiB, 52 bits", "arm64", arm(tcr(12, 39, 16, ips=6), 0x10000, 0),
        {0x10000: table({0: 0x20003, 1023: 0x20003}, pages=16), 0x20000: table({0: 0x30003, 1: 0x2000A401}, pages=16),
         0x30000: table({1: 0x5F403, 8191: 0x40403}, pages=16)},
        # Bits 15 to 12 of a descriptor are bits 51 to 48 of the address.
        {0x10001: 0xF000000050001, 0x1FFF0000: 0x40000, 0x20000000: 0xA000020000000, (1 << 52) - (1 << 42) + 0x1FFFFFFF: 0x4FFFF},
        {0: ("level 3", 0x10000), 0x40000000: ("level 2", 1 << 29), 1 << 42: ("level 1", 1 << 42), 1 << 52: (None, TOP - (1 << 52) - (1 << 25))},
        8, (0x3FFF8, 0x1FFF0000, (1 << 52) - (1 << 42) + 0x1FFFFFFF), "level 3",
    ),
    Case(
        "ARM64, 4 KiB, 52 bits", "arm64", arm(tcr(12, 16, 12, ips=6, more=1 << 59), 0x1000, 0),
        {0x1000: table({0: 0x2003, 15: 0x2003}), 0x2000: table({0: 0x3003, 1: 0x8000000701}), 0x3000: table({0: 0x4003}),
         0x4000: table({0: 0x5003}), 0x5000: table({0: 0x3000000009603})},
        # Bits 9 and 8 are bits 51 and 50; level 0 may map blocks of 512 GiB.
        {0x10: 0xB000000009010, 15 << 48: 0xB000000009000, 1 << 39: 0xC008000000000 , (2 << 39) - 1: 0xC00FFFFFFFFFF},
        {0x1000: ("level 3", 0x1000), 1 << 48: ("level -1", 1 << 48)},
        8, (0x1078, 15 << 48), "level -1",
    ),
]  # fmt: skip


def answers(space: AddressSpace, addresses: list[int]) -> list[int | None]:
    """What translate_many says; translate, with numpy and without, and walk must say the same."""
    found, there = space.translate_many(np.array(addresses, dtype=np.uint64))
    at_once = [gpa if known else None for gpa, known in zip(found.tolist(), there.tolist(), strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparing, "without_numpy", lambda: True)
        space._views.clear()  # so that each is looked up
        without_numpy = [translated(space, gva) for gva in addresses]
    single = [translated(space, gva) for gva in addresses]
    assert at_once == single == without_numpy == [space.walk(gva).gpa for gva in addresses]
    return single


def translated(space: AddressSpace, gva: int) -> int | None:
    """The physical address, None where there is none."""
    try:
        return space.translate(gva)
    except PageNotMapped:
        return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_form(case: Case) -> None:
    space = space_of(memory_of(placed(case.tables), RAM), case.family, **case.registers)
    assert answers(space, list(case.mapped)) == list(case.mapped.values())
    assert answers(space, list(case.unmapped)) == [None] * len(case.unmapped)
    for gva, (level, size) in case.unmapped.items():
        with pytest.raises(PageNotMapped) as caught:
            space.translate(gva)
        assert (caught.value.gva, caught.value.level, caught.value.unmapped_size) == (gva, level, size)
        assert caught.value.hresult == 0xC0370505
        step = space.walk(gva).steps[-1] if level else None
        assert caught.value.entry == (step.entry if step else None)
        assert (caught.value.entry is None) == (step is None or step.kind == "outside")
    runs = list(space.mappings())
    for gva, gpa in case.mapped.items():
        assert [gva - run.gva + run.gpa for run in runs if run.gva <= gva < run.gva + run.size] == [gpa]
        assert gva in space.reverse(gpa)
    for gva in case.unmapped:
        assert not any(run.gva <= gva < run.gva + run.size for run in runs)


@pytest.mark.parametrize("case", [case for case in CASES if case.tables], ids=lambda case: case.name)
def test_the_invalid_counterpart(case: Case) -> None:
    """One cleared present bit, and just the addresses behind that entry are gone."""
    entry_at, *lost = case.counterpart
    pages = {start: bytearray(data) for start, data in placed(case.tables).items()}
    pages[entry_at & ~0xFFF][entry_at & 0xFFF] &= 0xFE
    space = space_of(
        memory_of({start: bytes(data) for start, data in pages.items()}, RAM), case.family, **case.registers
    )
    expected = [None if gva in lost else gpa for gva, gpa in case.mapped.items()]
    assert answers(space, list(case.mapped)) == expected
    for gva in lost:
        with pytest.raises(PageNotMapped) as caught:
            space.translate(gva)
        assert caught.value.level == case.counterpart_level
        assert caught.value.entry is not None and not caught.value.entry & 1


def test_reserved_encodings_of_arm64() -> None:
    """A descriptor 01 at level 3, and a block at level 0 of 4 KiB tables without 52 bits, map nothing."""
    tables = {
        0x1000: table({0: 0x2003, 1: 0x40000401}),
        0x2000: table({0: 0x3003}),
        0x3000: table({0: 0x4003}),
        0x4000: table({0: 0x9401}),
    }
    space = space_of(memory_of(placed(tables), RAM), "arm64", **arm(tcr(16, 16, 12), 0x1000))  # fmt: skip
    assert answers(space, [0, 1 << 39]) == [None, None]
    assert [space.walk(gva).steps[-1].kind for gva in (0, 1 << 39)] == ["absent", "absent"]


@pytest.mark.parametrize(("ips", "gpa"), [(0, None), (1, 0x900000000), (5, 0x900000000)])
def test_addresses_beyond_the_output_size_fault(ips: int, gpa: int | None) -> None:
    tables = {0x1000: table({0: 0x2003}), 0x2000: table({0: 0x900000401})}
    space = space_of(memory_of(placed(tables), RAM), "arm64", **arm(tcr(16, 16, 12, ips=ips), 0x1000))
    assert answers(space, [0]) == [gpa]
    if gpa is None:
        assert space.walk(0).steps[-1].kind == "too high"


@pytest.mark.parametrize("half", [0, 1])
def test_top_byte_ignored_and_walks_disabled(half: int) -> None:
    tables = {
        0x1000: table({0: 0x2003}),
        0x2000: table({0: 0x3003}),
        0x3000: table({0: 0x4003}),
        0x4000: table({0: 0x9403}),
    }
    memory = memory_of(placed(tables), RAM)
    base = TOP - (1 << 48) if half else 0
    tagged = base ^ 0xA5 << 56 | 0x10
    plain = space_of(memory, "arm64", **arm(tcr(16, 16, 12), 0x1000, 0x1000))
    assert answers(plain, [base + 0x10, tagged]) == [0x9010, None]
    ignoring = space_of(memory, "arm64", **arm(tcr(16, 16, 12, more=1 << 37 + half), 0x1000, 0x1000))
    assert answers(ignoring, [base + 0x10, tagged, tagged ^ 1 << 55]) == [0x9010, 0x9010, None]
    assert ignoring.read(tagged, 8) == plain.read(base + 0x10, 8)
    disabled = space_of(memory, "arm64", **arm(tcr(16, 16, 12, more=1 << (23 if half else 7)), 0x1000, 0x1000))
    assert answers(disabled, [base + 0x10, (TOP - (1 << 48) if not half else 0) + 0x10]) == [None, 0x9010]


@pytest.mark.parametrize(("size", "granule"), [(48, 12), (47, 12), (44, 12), (48, 14), (46, 14), (47, 16), (44, 16)])
def test_trees_smaller_than_a_last_level_table(size: int, granule: int) -> None:
    """At the beginning and at the end of the address space; the first and the last page, and their neighbours."""
    page, span = 1 << granule, 1 << 64 - size
    count = span >> granule
    entries = table({0: 0x90000403, count - 1: 0xA0000403}, pages=16)
    registers = arm(tcr(size, size, granule), 0x10000, 0x10000)
    space = space_of(memory_of(placed({0x10000: entries}), RAM), "arm64", **registers)
    for base in (0, TOP - span):
        asked = [base + 5, base + page - 1, base + span - page, base + span - 1]
        assert answers(space, asked) == [0x90000005, 0x90000000 + page - 1, 0xA0000000, 0xA0000000 + page - 1]
        assert [(run.gva, run.gpa) for run in space.mappings(base, base + span)] == [
            (base, 0x90000000),
            (asked[2], 0xA0000000),
        ]
    assert answers(space, [span, TOP - span - 1, 0x200000, TOP - 0x200000 - 1]) == [None] * 4
    assert space.translate(np.uint64(TOP - 1)) == 0xA0000000 + page - 1


def test_a_root_is_aligned_to_its_own_size() -> None:
    """T0SZ 33: two entries at level 1, so the table may stand anywhere on 16 bytes."""
    tables = {0x1000: table({0x4E: 0x40000401, 0x4F: 0x80000401})}
    space = space_of(memory_of(placed(tables), RAM), "arm64", **arm(tcr(33, 33, 12), 0x1270))
    assert answers(space, [0x10, 0x40000010, 0x80000000]) == [0x40000010, 0x80000010, None]
