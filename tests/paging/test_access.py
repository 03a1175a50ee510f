"""Rights along the walk: every entry can only take away, and what is left follows the architecture."""

from __future__ import annotations

from itertools import product

import pytest

from paging.test_forms import RAM, arm, tcr
from support.tables import LEGACY, LONG, PAE, memory_of, placed, space_of, table
from vmsavedstate import Access
from vmsavedstate.paging.access import ALL

W, U, NX = 2, 4, 1 << 63


def long_space(entries: tuple[int, int, int, int], **registers: int) -> Access:
    """The rights of address 0 through four entries with these flags."""
    pages = {
        0x1000 * (number + 1): table({0: 0x1000 * (number + 2) | 1 | flags}) for number, flags in enumerate(entries)
    }
    space = space_of(memory_of(placed(pages), RAM), **{**LONG, "cr3": 0x1000, **registers})
    access = space.walk(0).access
    assert [run.access for run in space.mappings(0, 0x1000)] == [access]
    return access


@pytest.mark.parametrize("denied", list(product(range(4), (W, U, NX))))
def test_any_level_denies(denied: tuple[int, int]) -> None:
    level, bit = denied
    entries = [W | U] * 4
    entries[level] ^= bit
    expected = {W: "rwx r-x", U: "rwx ---", NX: "rw- rw-"}[bit]
    if bit == W:
        expected = "r-x r-x"
    assert str(long_space((entries[0], entries[1], entries[2], entries[3]))) == expected


@pytest.mark.parametrize(
    ("registers", "flags", "expected"),
    [
        ({"cr0": 0x80000001}, U, "rwx r-x"),  # without CR0.WP the kernel writes what it likes
        ({"cr0": 0x80010001}, U, "r-x r-x"),
        ({"cr4": 0x100020}, U | W, "rw- rwx"),  # SMEP: the kernel does not execute pages of the user
        ({"cr4": 0x100020}, W, "rwx ---"),
        ({"efer": 0x500}, U | W | NX, "rwx rwx"),  # without EFER.NXE bit 63 denies nothing
    ],
)
def test_control_registers_decide(registers: dict[str, int], flags: int, expected: str) -> None:
    assert str(long_space((W | U, W | U, W | U, flags), **registers)) == expected


def test_directory_pointers_of_pae_have_no_rights() -> None:
    pages = {0x1000: table({0: 0x2001}), 0x2000: table({0: 0x3007}), 0x3000: table({0: 0x9007, 1: 0x9007 | NX})}
    space = space_of(memory_of(placed(pages), RAM), **PAE, cr3=0x1000)
    assert [str(run.access) for run in space.mappings(0, 0x2000)] == ["rwx rwx", "rw- rw-"]


def test_a_large_page_of_32_bit() -> None:
    space = space_of(memory_of(placed({0x1000: table({0: 0x85, 1: 0x87}, size=4)}), RAM), **LEGACY, cr3=0x1000)
    assert [str(space.walk(gva).access) for gva in (0, 0x400000)] == ["r-x r-x", "rwx rwx"]


UXN, PXN, AP1, AP2 = 1 << 54, 1 << 53, 1 << 6, 1 << 7
UXN_TABLE, PXN_TABLE, NO_EL0_TABLE, READ_ONLY_TABLE = 1 << 60, 1 << 59, 1 << 61, 1 << 62


@pytest.mark.parametrize(
    ("table_flags", "page_flags", "more", "sctlr", "expected"),
    [
        (0, 0x400, 0, 1, "rwx --x"),
        (0, 0x400 | AP1, 0, 1, "rw- rwx"),  # what user mode may write the kernel may not execute
        (0, 0x400 | AP2, 0, 1, "r-x --x"),
        (0, 0x400 | AP1 | AP2, 0, 1, "r-x r-x"),
        (0, 0x400 | AP1 | AP2 | UXN, 0, 1, "r-x r--"),
        (0, 0x400 | AP1 | AP2 | PXN, 0, 1, "r-- r-x"),
        (UXN_TABLE | PXN_TABLE, 0x400 | AP1, 0, 1, "rw- rw-"),
        (NO_EL0_TABLE, 0x400 | AP1, 0, 1, "rwx --x"),
        (READ_ONLY_TABLE, 0x400 | AP1, 0, 1, "r-x r-x"),
        (READ_ONLY_TABLE | UXN_TABLE, 0x400 | AP1, 1 << 41, 1, "rw- rwx"),  # TCR.HPD0: tables deny nothing
        (0, 0x400, 0, 1 | 1 << 19, "rw- --x"),  # SCTLR.WXN: nothing writable is executable
        (0, AP1, 0, 1, "--- ---"),  # the access flag is clear
        (0, AP1, 1 << 39, 1, "rw- rwx"),  # and TCR.HA lets the hardware set it
    ],
)
def test_arm64(table_flags: int, page_flags: int, more: int, sctlr: int, expected: str) -> None:
    pages = {0x1000: table({0: 0x2003 | table_flags}), 0x2000: table({0: 0x40000001 | page_flags})}
    registers = arm(tcr(16, 16, 12, more=more), 0x1000) | {"sctlr_el1": sctlr}
    space = space_of(memory_of(placed(pages), RAM), "arm64", **registers)
    assert str(space.walk(0).access) == expected
    assert space.translate(0x123) == 0x40000123, "rights never make a page unmapped"
    assert [str(run.access) for run in space.mappings(0, 1 << 30)] == [expected]


def test_reserved_bits_are_told_and_not_judged() -> None:
    pages = {0x1000: table({0: 0x20E7}), 0x2000: table({0: 0x3007}), 0x3000: table({0: 0x1E00_00E7 | 1 << 13})}
    space = space_of(memory_of(placed(pages), RAM), **LONG, cr3=0x1000)
    walk = space.walk(0x234)
    assert walk.gpa == 0x1E000234
    assert [step.reserved for step in walk.steps] == [0x80, 0, 1 << 13]
    assert walk.steps[2].flags == ("P", "RW", "US", "A", "D", "PS")


def test_all_rights_are_six_bits() -> None:
    """Without paging everything may be done; a number that numpy can hold, on every version of Python."""
    assert ALL == 0b111111
    assert str(Access(ALL)) == "rwx rwx"
