"""Paging forms as data: what each level of a table tree looks like. One walker reads them all; no logic stands here.

Sources: SDM volume 3, 4.3 to 4.5; Arm ARM D8.3 (VMSAv8-64 descriptors).
"""

from __future__ import annotations

from typing import NamedTuple

from .access import NO_EXECUTE, NO_KERNEL_EXECUTE, NO_USER, NO_USER_EXECUTE, NOT_ACCESSED, READ_ONLY, Rights


class Field(NamedTuple):
    """Bits of an entry that hold part of an address: ``(entry & mask) << shift``."""

    mask: int
    shift: int = 0


class Test(NamedTuple):
    """An entry is of a kind when ``entry & mask == value``."""

    mask: int
    value: int


class Denial(NamedTuple):
    """Bit ``bit`` of an entry denies ``denied`` when it is set, or with ``when_clear`` when it is clear."""

    bit: int
    denied: int
    when_clear: bool = False


NEVER = Test(0, 1)


class Level(NamedTuple):
    """One level of tables.

    Attributes:
        name: the name of its entries in the manuals.
        shift, bits: the index into the table is bits ``shift`` to ``shift + bits - 1`` of the virtual address; an
            entry spans ``1 << shift`` bytes.
        is_table, is_page: which entries point to a further table, and which map memory; never both; all others map nothing.
        table, page: where the address stands in each kind.
        table_denials, page_denials: what entries of each kind deny.
        table_reserved, page_reserved: bits that must be zero in each kind; they are reported, never judged.
    """

    name: str
    shift: int
    bits: int
    is_table: Test
    is_page: Test
    table: tuple[Field, ...] = ()
    page: tuple[Field, ...] = ()
    table_denials: tuple[Denial, ...] = ()
    page_denials: tuple[Denial, ...] = ()
    table_reserved: int = 0
    page_reserved: int = 0


class Form(NamedTuple):
    """A tree of tables.

    Attributes:
        name: for people, such as ``long, 4 levels``.
        entry_size: bytes.
        levels: from the root to the leaves.
        address_bits: physical addresses of more bits are a fault.
        rights: what is left by denials, a table of :mod:`.access`.
        flags: names of single bits of entries, for people.
    """

    name: str
    entry_size: int
    levels: tuple[Level, ...]
    address_bits: int
    rights: Rights
    flags: tuple[tuple[int, str], ...]


def bits(high: int, low: int) -> int:
    """A mask of bits ``high`` down to ``low``."""
    return (1 << high + 1) - (1 << low)


PRESENT, PAGE_SIZE_BIT = 1, 0x80
_PRESENT = Test(PRESENT, PRESENT)
_LARGE = Test(PRESENT | PAGE_SIZE_BIT, PRESENT | PAGE_SIZE_BIT)
_NOT_LARGE = Test(PRESENT | PAGE_SIZE_BIT, PRESENT)
_X86_FLAGS = ((0, "P"), (1, "RW"), (2, "US"), (3, "PWT"), (4, "PCD"), (5, "A"), (6, "D"), (7, "PS"), (8, "G"))
_NX_FLAG = ((63, "NX"),)
_RIGHTS = (Denial(1, READ_ONLY, when_clear=True), Denial(2, NO_USER, when_clear=True))
_NX = (Denial(63, NO_EXECUTE),)
_ADDRESS = (Field(bits(51, 12)),)
X86_ADDRESS_BITS = 52


def x86_32bit(rights: Rights, *, large_pages: bool) -> Form:
    """Two levels of 4-byte entries; with CR4.PSE pages of 4 MiB, whose bits 20 to 13 are bits 39 to 32 (PSE-36)."""
    address = (Field(bits(31, 12)),)
    directory = Level(
        "PDE", 22, 10,
        is_table=_NOT_LARGE if large_pages else _PRESENT, is_page=_LARGE if large_pages else NEVER,
        table=address, page=(Field(bits(31, 22)), Field(bits(20, 13), 19)),
        table_denials=_RIGHTS, page_denials=_RIGHTS, page_reserved=1 << 21,
    )  # fmt: skip
    table = Level("PTE", 12, 10, is_table=NEVER, is_page=_PRESENT, page=address, page_denials=_RIGHTS)
    return Form("32 bit, 2 levels", 4, (directory, table), 40, rights, _X86_FLAGS)


def x86_pae(rights: Rights, *, no_execute: bool) -> Form:
    """Four directory pointers, whose entries have no rights of their own, then two levels of 8-byte entries."""
    denials = _RIGHTS + (_NX if no_execute else ())
    reserved = bits(62, 52) | (0 if no_execute else 1 << 63)
    pointers = Level(
        "PDPTE", 30, 2, is_table=_PRESENT, is_page=NEVER, table=_ADDRESS,
        table_reserved=bits(63, 52) | bits(8, 5) | bits(2, 1),
    )  # fmt: skip
    return Form("PAE, 3 levels", 8, (pointers, *_lower_levels(denials, reserved)), X86_ADDRESS_BITS, rights,
                _X86_FLAGS + _NX_FLAG)  # fmt: skip


def x86_long(rights: Rights, *, levels: int, no_execute: bool) -> Form:
    """Four or five levels of 8-byte entries, pages of 1 GiB, 2 MiB and 4 KiB."""
    denials = _RIGHTS + (_NX if no_execute else ())
    reserved = 0 if no_execute else 1 << 63
    upper = [
        Level(name, shift, 9, is_table=_PRESENT, is_page=NEVER, table=_ADDRESS, table_denials=denials,
              table_reserved=reserved | PAGE_SIZE_BIT)
        for name, shift in (("PML5E", 48), ("PML4E", 39))
    ]  # fmt: skip
    pointers = Level(
        "PDPTE", 30, 9, is_table=_NOT_LARGE, is_page=_LARGE, table=_ADDRESS, page=(Field(bits(51, 30)),),
        table_denials=denials, page_denials=denials, table_reserved=reserved, page_reserved=reserved | bits(29, 13),
    )  # fmt: skip
    return Form(f"long, {levels} levels", 8, (*upper[5 - levels :], pointers, *_lower_levels(denials, reserved)),
                X86_ADDRESS_BITS, rights, _X86_FLAGS + _NX_FLAG)  # fmt: skip


def _lower_levels(denials: tuple[Denial, ...], reserved: int) -> tuple[Level, Level]:
    """The directory and the page table of all forms with 8-byte entries."""
    directory = Level(
        "PDE", 21, 9, is_table=_NOT_LARGE, is_page=_LARGE, table=_ADDRESS, page=(Field(bits(51, 21)),),
        table_denials=denials, page_denials=denials, table_reserved=reserved, page_reserved=reserved | bits(20, 13),
    )  # fmt: skip
    table = Level("PTE", 12, 9, is_table=NEVER, is_page=_PRESENT, page=_ADDRESS, page_denials=denials,
                  page_reserved=reserved)  # fmt: skip
    return directory, table


_ARM_TABLE, _ARM_BLOCK = Test(3, 3), Test(3, 1)
_ARM_FLAGS = ((0, "VALID"), (6, "AP1"), (7, "AP2"), (10, "AF"), (11, "nG"), (50, "GP"), (51, "DBM"), (52, "CONTIG"),
              (53, "PXN"), (54, "UXN"), (59, "PXNTable"), (60, "UXNTable"), (61, "APTable0"), (62, "APTable1"),
              (63, "NSTable"))  # fmt: skip
_ARM_TABLE_DENIALS = (Denial(59, NO_KERNEL_EXECUTE), Denial(60, NO_USER_EXECUTE), Denial(61, NO_USER),
                      Denial(62, READ_ONLY))  # fmt: skip
_ARM_PAGE_DENIALS = (Denial(6, NO_USER, when_clear=True), Denial(7, READ_ONLY), Denial(53, NO_KERNEL_EXECUTE),
                     Denial(54, NO_USER_EXECUTE), Denial(10, NOT_ACCESSED, when_clear=True))  # fmt: skip
# At EL2 without VHE and at EL3 there is one privilege level: AP1, PXN and their bits in tables mean nothing, UXN is XN.
_ARM_TABLE_DENIALS_OF_ONE = (Denial(60, NO_KERNEL_EXECUTE), Denial(62, READ_ONLY))
_ARM_PAGE_DENIALS_OF_ONE = (Denial(7, READ_ONLY), Denial(54, NO_KERNEL_EXECUTE),
                            Denial(10, NOT_ACCESSED, when_clear=True))  # fmt: skip
_GRANULE_NAMES = {12: "4 KiB", 14: "16 KiB", 16: "64 KiB"}


def arm64_stage1(
    rights: Rights,
    *,
    granule: int,
    input_bits: int,
    address_bits: int,
    wide: bool,
    hierarchical: bool,
    one_level: bool = False,
) -> Form:
    """Stage 1: levels of one granule each, as many as ``input_bits`` need.

    ``granule`` is the number of address bits in a page: 12, 14 or 16. ``wide`` says that addresses have 52 bits: with
    a granule of 16 bits 15 to 12 of an entry hold bits 51 to 48, else bits 9 and 8 hold bits 51 and 50 (TCR_EL1.DS).
    ``hierarchical`` is whether entries of tables deny anything (TCR_EL1.HPDn clear), ``one_level`` whether the regime has
    one privilege level instead of those of kernel and user.
    """
    stride = granule - 3
    first = 3 - (input_bits - granule - 1) // stride
    high = _arm_high_bits(granule, wide)
    # The level whose entries may map blocks: 2, with a large enough block above it for 52-bit addresses or 4 KiB (D8.3).
    largest = {12: 0 if wide else 1, 14: 1 if wide else 2, 16: 1 if wide else 2}[granule]
    table_denials = _ARM_TABLE_DENIALS_OF_ONE if one_level else _ARM_TABLE_DENIALS
    page_denials = _ARM_PAGE_DENIALS_OF_ONE if one_level else _ARM_PAGE_DENIALS
    levels = []
    for number in range(first, 4):
        shift = granule + stride * (3 - number)
        width = min(stride, input_bits - shift)
        top = 49 if wide and granule != 16 else 47
        last = number == 3
        block = not last and number >= largest
        levels.append(
            Level(
                f"level {number}", shift, width,
                is_table=Test(0, 1) if last else _ARM_TABLE,
                is_page=_ARM_TABLE if last else _ARM_BLOCK if block else NEVER,
                table=(Field(bits(top, granule)), *high), page=(Field(bits(top, shift)), *high),
                table_denials=table_denials if hierarchical else (), page_denials=page_denials,
                table_reserved=bits(51, top + 1), page_reserved=bits(49, top + 1) if top < 49 else 0,
            )
        )  # fmt: skip
    name = f"ARM64 stage 1, {_GRANULE_NAMES[granule]}, {len(levels)} levels"
    return Form(name, 8, tuple(levels), address_bits, rights, _ARM_FLAGS)


def _arm_high_bits(granule: int, wide: bool) -> tuple[Field, ...]:
    if not wide:
        return ()
    return (Field(bits(15, 12), 36),) if granule == 16 else (Field(bits(9, 8), 42),)
