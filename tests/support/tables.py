"""Page tables in memory of our own: pages of a dictionary, with ranges that are lost, behind the real memory object."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from vmsavedstate import AddressSpace, GuestPhysicalMemory, SegmentRegister
from vmsavedstate.files.ranges import Coverage
from vmsavedstate.paging.selection import select
from vmsavedstate.registers.values import RegisterValue
from vmsavedstate.snapshot import MemoryRange, Unreadable

PAGE = 4096
Ranges = Sequence[tuple[int, int]]


class PageStore:
    """A :class:`vmsavedstate.snapshot.PageBacking` whose positions are guest physical addresses."""

    def __init__(self, pages: Mapping[int, bytes], lost: Mapping[tuple[int, int], str]) -> None:
        self._pages = pages
        self._lost = lost

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        buffer = bytearray(size)
        lost = self.read_into(position, memoryview(buffer))
        return bytes(buffer), lost

    def read_into(self, position: int, buffer: memoryview) -> Sequence[Unreadable]:
        buffer[:] = bytes(len(buffer))
        end = position + len(buffer)
        for page in range(position // PAGE, (end + PAGE - 1) // PAGE):
            data = self._pages.get(page * PAGE)
            if data is not None:
                low, high = max(position, page * PAGE), min(end, (page + 1) * PAGE)
                buffer[low - position : high - position] = data[low - page * PAGE : high - page * PAGE]
        found = []
        for (start, stop), reason in self._lost.items():
            if start < end and position < stop:
                low, high = max(start, position), min(stop, end)
                buffer[low - position : high - position] = bytes(high - low)
                found.append(Unreadable(start, stop, reason, f"its block is {reason}"))
        return found

    def next_stored(self, position: int) -> int | None:
        for (start, stop), reason in self._lost.items():
            if reason == "missing" and start <= position < stop:
                return stop
        return position

    def describe(self) -> dict[str, int]:
        return {}

    def check(self, done: Coverage) -> Iterator[int]:
        yield 0


def memory_of(
    pages: Mapping[int, bytes],
    ranges: Ranges,
    *,
    lost: Mapping[tuple[int, int], str] | None = None,
    strict: bool = False,
) -> GuestPhysicalMemory:
    """Memory in ``ranges`` (start, size) with some pages filled."""
    records = [MemoryRange(start // PAGE, size // PAGE, start // PAGE) for start, size in ranges]
    return GuestPhysicalMemory(records, PageStore(pages, lost or {}), strict=strict)


def table(entries: Mapping[int, int], *, size: int = 8, pages: int = 1) -> bytes:
    """A page table with some entries, of ``pages`` pages."""
    words = [entries.get(index, 0) for index in range(pages * PAGE // size)]
    return struct.pack(f"<{len(words)}{'Q' if size == 8 else 'I'}", *words)


def placed(tables: Mapping[int, bytes]) -> dict[int, bytes]:
    """Tables at their addresses, cut into pages."""
    return {
        start + at: data[at : at + PAGE].ljust(PAGE, b"\0")
        for start, data in tables.items()
        for at in range(0, len(data), PAGE)
    }


def space_of(memory: GuestPhysicalMemory, family: str = "x86", /, **registers: RegisterValue) -> AddressSpace:
    """The address space of a processor with these registers."""
    return AddressSpace(memory, select(family, registers, "VP 0"))


LONG = {"cr0": 0x80010001, "cr4": 0x20, "efer": 0xD00}
PAE = {"cr0": 0x80010001, "cr4": 0x20, "efer": 0x800}
LEGACY = {"cr0": 0x80010001, "cr4": 0x10, "efer": 0}
CODE64 = SegmentRegister(0, 0xFFFFFFFF, 8, 0xA09B)
