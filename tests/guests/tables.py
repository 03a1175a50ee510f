"""Random page tables for a stopped machine: every form, with what real guests do not use.

The tables are a handful of pages full of random entries that mostly point to each other, so that each of them serves at
every level. Addresses to ask about are found by walking them blindly: an index of some entry that is not zero, whatever
it means.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

TOP = 1 << 64
PSE, PAE, LA57, PCIDE, SMEP = 1 << 4, 1 << 5, 1 << 12, 1 << 17, 1 << 20
LONG_MODE, NXE = 0x500, 0x800
PE, WP, PG = 1, 1 << 16, 1 << 31


class TableForm(NamedTuple):
    """How to fill and walk tables without knowing what entries mean.

    Attributes:
        entry_size: bytes; ``granule``: address bits in a table.
        indices: (lowest bit, width) of each level's index in an address, from the root.
        top: what to do with the bits above the indices: the address is completed by it.
    """

    entry_size: int
    granule: int
    indices: tuple[tuple[int, int], ...]
    top: Callable[[int], int]


class X86Case(NamedTuple):
    """Control registers, and the form of the tables they mean. ``root`` may lie inside of a page."""

    name: str
    cr4: int
    efer: int
    form: TableForm
    root_step: int = 4096
    cr3_low: int = 0


def _canonical(bits: int) -> Callable[[int], int]:
    return lambda address: address | (TOP - (1 << bits) if address >> bits - 1 & 1 else 0)


def _same(address: int) -> int:
    return address


_TWO = TableForm(4, 12, ((22, 10), (12, 10)), _same)
_THREE = TableForm(8, 12, ((30, 2), (21, 9), (12, 9)), _same)
_FOUR = TableForm(8, 12, ((39, 9), (30, 9), (21, 9), (12, 9)), _canonical(48))
_FIVE = TableForm(8, 12, ((48, 9), *_FOUR.indices), _canonical(57))

X86_CASES = (
    X86Case("32 bit, with CR4.PSE (4 MiB, PSE-36)", PSE, 0, _TWO),
    X86Case("32 bit, without CR4.PSE", 0, 0, _TWO, cr3_low=0xFFF),
    X86Case("PAE, unaligned root", PAE, NXE, _THREE, root_step=32),
    X86Case("PAE, without NX", PAE | PSE, 0, _THREE, root_step=32),
    X86Case("long, 4 levels", PAE, LONG_MODE | NXE, _FOUR),
    X86Case("long, PCID, without NX", PAE | PCIDE | SMEP, LONG_MODE, _FOUR, cr3_low=0xABC),
    X86Case("long, 5 levels", PAE | LA57, LONG_MODE | NXE, _FIVE),
)


class Arm64Case(NamedTuple):
    """The fields of TCR_EL1 that shape the tables, for both halves."""

    granule: int
    sizes: tuple[int, int]
    ips: int
    wide: bool = False
    top_byte_ignored: bool = False
    disabled: int | None = None
    hierarchical_disabled: bool = False

    @property
    def name(self) -> str:
        """What it is, for people."""
        more = [word for word, there in (("52 bits", self.ips == 6), ("TBI", self.top_byte_ignored),
                                         ("HPD", self.hierarchical_disabled)) if there]  # fmt: skip
        disabled = [] if self.disabled is None else [f"EPD{self.disabled}"]
        return " ".join(
            [f"ARM64 {1 << self.granule - 10} KiB", f"T0SZ {self.sizes[0]} T1SZ {self.sizes[1]}", *more, *disabled]
        )

    @property
    def tcr(self) -> int:
        """The register."""
        tg0, tg1 = {12: (0, 2), 14: (2, 1), 16: (1, 3)}[self.granule]
        value = self.sizes[0] | self.sizes[1] << 16 | tg0 << 14 | tg1 << 30 | self.ips << 32 | int(self.wide) << 59
        if self.top_byte_ignored:
            value |= 3 << 37
        if self.disabled is not None:
            value |= 1 << (23 if self.disabled else 7)
        return value | (3 << 41 if self.hierarchical_disabled else 0)

    def form(self, upper: bool) -> TableForm:
        """The tables of one half."""
        bits, stride = 64 - self.sizes[upper], self.granule - 3
        levels = -(-(bits - self.granule) // stride)
        indices = [(self.granule + stride * number, stride) for number in reversed(range(levels))]
        indices[0] = (indices[0][0], bits - indices[0][0])
        return TableForm(8, self.granule, tuple(indices), lambda address: address | (TOP - (1 << bits) if upper else 0))


ARM64_CASES = (
    Arm64Case(12, (16, 16), 5),
    Arm64Case(12, (25, 25), 2, hierarchical_disabled=True),
    Arm64Case(12, (33, 39), 1, top_byte_ignored=True),
    Arm64Case(12, (20, 34), 0, disabled=0),
    Arm64Case(12, (44, 47), 1),  # smaller than the last level's whole table
    Arm64Case(16, (43, 47), 2),
    Arm64Case(14, (16, 17), 5, top_byte_ignored=True),
    Arm64Case(14, (28, 38), 4, disabled=1),
    Arm64Case(16, (16, 22), 5),
    Arm64Case(16, (33, 39), 3, hierarchical_disabled=True),
    Arm64Case(16, (12, 12), 6),
    Arm64Case(12, (12, 12), 6, wide=True),
    Arm64Case(12, (16, 21), 6, wide=True),
    Arm64Case(14, (12, 16), 6, wide=True),
)


def x86_entry(chance: random.Random, tables: list[int], memory: int, size: int) -> int:
    """A random entry of 4 or 8 bytes: present three times of four, any other bit, mostly pointing to a table."""
    entry = chance.getrandbits(8 * size) & ~0x000F_FFFF_FFFF_F001 if size == 8 else chance.getrandbits(12) & ~1
    place = _place(chance, tables, memory) if size == 8 or chance.random() < 0.95 else chance.getrandbits(32)
    entry |= place & (0x000F_FFFF_FFFF_F000 if size == 8 else 0xFFFFF000)
    if chance.random() < 0.6:
        entry &= ~0x80
    return entry | (chance.random() < 0.75)


def arm64_entry(chance: random.Random, tables: list[int], memory: int, granule: int, wide: bool) -> int:
    """A random descriptor: mostly a table or page, any attributes, the access flag mostly set."""
    address = _place(chance, tables, memory)
    entry = chance.getrandbits(64) & 0xFFF0_0000_0000_0FFC
    entry |= address & 0x000F_FFFF_FFFF_F000 & ~((1 << granule) - 1)
    if granule == 16:  # bits 15 to 12 are the top of a 52-bit address, or nothing
        entry = entry & ~(0xF << 48) | chance.choice((0, 0, 0, chance.getrandbits(4))) << 12
    elif wide:
        entry = entry & ~(3 << 50) & ~0x300 | chance.choice((0, 0, 0, chance.getrandbits(2))) << 8
    else:
        entry &= ~(0xF << 48)
    if chance.random() < 0.9:
        entry |= 1 << 10
    return entry | chance.choice((3, 3, 3, 3, 1, 1, 2, 0))


def _place(chance: random.Random, tables: list[int], memory: int) -> int:
    kind = chance.random()
    if kind < 0.8:
        return chance.choice(tables)
    if kind < 0.93:
        return memory + chance.randrange(0, 16 << 20, 4096)
    # Where neither machine has anything: its devices do not read as memory.
    return (1 << 41 | chance.getrandbits(chance.choice((42, 46, 52)))) & ~0xFFF


def fill(
    chance: random.Random, tables: list[int], form: TableForm, entry: Callable[[], int]
) -> dict[int, tuple[int, ...]]:
    """The content of each table: about forty random entries, at the ends too, zeros between."""
    count = (1 << form.granule) // form.entry_size
    content = {}
    for table in tables:
        words = [0] * count
        for index in {0, 1, count // 2, count - 1, *(chance.randrange(count) for _ in range(40))}:
            words[index] = entry()
        content[table] = tuple(words)
    return content


def packed(words: tuple[int, ...], size: int) -> bytes:
    """A table as bytes."""
    return struct.pack(f"<{len(words)}{'Q' if size == 8 else 'I'}", *words)


def ask(
    chance: random.Random, content: dict[int, tuple[int, ...]], root: int, form: TableForm, count: int
) -> Iterator[int]:
    """Addresses that lead through entries that are not zero, as far as these point to our tables."""
    mask = 0x000F_FFFF_FFFF_FFFF & ~((1 << form.granule) - 1)
    for _ in range(count):
        address, table = chance.getrandbits(form.indices[-1][0]), root
        for shift, width in form.indices:
            words = content.get(table & ~((1 << form.granule) - 1), ())
            first = (table & (1 << form.granule) - 1) // form.entry_size
            inside = words[first : first + (1 << width)]
            filled = [number for number, word in enumerate(inside) if word]
            index = chance.choice(filled) if filled and chance.random() < 0.97 else chance.randrange(1 << width)
            address |= index << shift
            table = inside[index] & mask if index < len(inside) else 0
        address = form.top(address)
        yield address if chance.random() < 0.98 else address ^ 1 << chance.randrange(64)
