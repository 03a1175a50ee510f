"""Memory with fixes laid over it, and with blocks kept: the same answers as memory that was written, or read afresh."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tables import PageStore, memory_of
from vmsavedstate import GuestPhysicalMemory
from vmsavedstate.errors import GuestMemoryError
from vmsavedstate.snapshot import MemoryRange, Unreadable

PAGE = 4096
SIZE = 4 * PAGE
BASE = 0x10000
MIB = 1 << 20


def plain(content: bytes, lost: dict[tuple[int, int], str] | None = None) -> GuestPhysicalMemory:
    pages = {BASE + at: content[at : at + PAGE] for at in range(0, SIZE, PAGE)}
    return memory_of(pages, [(BASE, SIZE)], lost=lost or {})


CONTENT = bytes(number % 251 for number in range(SIZE))
FIXES = st.lists(st.tuples(st.integers(0, SIZE - 60), st.binary(min_size=1, max_size=60)), max_size=6)


@given(FIXES, st.integers(0, SIZE - 1), st.integers(0, SIZE))
def test_as_if_it_were_written(fixes: list[tuple[int, bytes]], offset: int, size: int) -> None:
    written = bytearray(CONTENT)
    for at, data in fixes:
        written[at : at + len(data)] = data
    size = min(size, SIZE - offset)
    original = plain(CONTENT)
    memory = original.overlaid([(BASE + at, data) for at, data in fixes])
    assert memory.read(BASE + offset, size) == written[offset : offset + size]
    buffer = bytearray(size)
    memory.read_into(BASE + offset, buffer)
    assert buffer == written[offset : offset + size]
    pages, mask = memory.pages(range(BASE // PAGE, (BASE + SIZE) // PAGE))
    assert mask.all() and pages.tobytes() == written
    assert list(memory.find(bytes(written[offset : offset + 16]) or b"\0"))[:1] != []
    assert original.read(BASE, SIZE) == CONTENT


@given(FIXES, st.integers(0, SIZE // PAGE - 1), st.sampled_from(["missing", "damaged"]))
def test_what_is_fixed_can_be_read(fixes: list[tuple[int, bytes]], page: int, reason: str) -> None:
    """A lost page under a fix: just the bytes of the fix are there again."""
    lost = range(page * PAGE, (page + 1) * PAGE)
    memory = plain(CONTENT, {(BASE + lost.start, BASE + lost.stop): reason})
    memory = memory.overlaid([(BASE + at, data) for at, data in fixes])
    fixed = {at + number for at, data in fixes for number in range(len(data))}
    still = [number for number in lost if number not in fixed]
    gaps = list(memory.gaps(BASE, SIZE))
    assert [number for gap in gaps for number in range(gap.start - BASE, gap.end - BASE)] == still
    if still:
        with pytest.raises(GuestMemoryError):
            memory.read(BASE, SIZE)
        assert memory.read(BASE, SIZE, fill=0xEE)[still[0]] == 0xEE


def test_a_fix_into_a_hole_is_refused() -> None:
    memory = plain(CONTENT)
    for gpa in (BASE - 1, BASE + SIZE - 1, 0):
        with pytest.raises(GuestMemoryError, match="not part of the saved memory"):
            memory.overlaid([(gpa, b"xx")])


class Counting(PageStore):
    """Memory that counts how many blocks it is asked for."""

    asked = 0

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        self.asked += 1
        return super().read(position, size)


def counting(size: int, lost: range) -> tuple[Counting, GuestPhysicalMemory]:
    """Pages that hold their own address; ``lost`` is damaged."""
    pages = {at: at.to_bytes(8, "little") * 512 for at in range(0, size, PAGE)}
    backing = Counting(pages, {(lost.start, lost.stop): "damaged"} if lost else {})
    return backing, GuestPhysicalMemory([MemoryRange(0, size // PAGE, 0)], backing)


def test_a_cache_of_blocks_asks_once() -> None:
    backing, plain_memory = counting(4 * MIB, range(0))
    memory = plain_memory.cached(2)
    for _ in range(3):
        assert memory.read(0x1000, 16) == (0x1000).to_bytes(8, "little") * 2
        assert memory.read(MIB - 8, 16) == (MIB - PAGE).to_bytes(8, "little") + MIB.to_bytes(8, "little")
    assert backing.asked == 2
    memory.read(2 * MIB, 8)
    memory.read(MIB, 8)
    assert backing.asked == 3, "the two used last are kept"
    memory.read(0, 8)
    assert backing.asked == 4


@given(st.integers(0, 3 * MIB), st.integers(1, 2 * MIB), st.integers(0, 3))
def test_a_cache_answers_as_without(offset: int, size: int, limit: int) -> None:
    _, plain_memory = counting(5 * MIB, range(MIB + 0x3000, MIB + 0x5000))
    memory = plain_memory.cached(limit)
    for _ in range(2):
        assert memory.read(offset, size, fill=0x77) == plain_memory.read(offset, size, fill=0x77)
        assert list(memory.gaps(offset, size)) == list(plain_memory.gaps(offset, size))
