"""Memory of a dump byte by byte: ranges that begin and end inside pages, second copies, and what no header covers."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmsavedstate
from support.command import vmrs
from support.elf import X86_64, Segment, elf, note, prstatus_x86_64
from vmsavedstate import GuestMemoryError, SavedState
from vmsavedstate.formats.qemu_elf import headers

CPU = prstatus_x86_64(0)
ODD = b"odd bytes" * 1000


def opened(segments: list[Segment], *, strict: bool = True) -> SavedState:
    return vmsavedstate.open(io.BytesIO(elf(X86_64, CPU, segments)), strict=strict)


def test_a_range_that_begins_and_ends_inside_a_page() -> None:
    """Every byte of it can be read; the rest of its first and last page are holes, not damage."""
    start, end = 0x1803, 0x1803 + len(ODD)
    with opened([Segment(start, ODD)]) as state:
        assert state.findings == () and state.verify().sound
        assert [(item.start, item.end) for item in state.memory.chunks] == [(0x1000, -(-end // 4096) * 4096)]
        assert state.memory.read(start, len(ODD)) == ODD and state.memory.is_valid(start, len(ODD))
        assert state.memory.read(end - 1, 1) == ODD[-1:]
        assert [tuple(gap) for gap in state.memory.gaps(0x1000, 0x3000)] == [
            (0x1000, start, "hole"), (end, 0x4000, "hole"),
        ]  # fmt: skip
        for address in (0x1000, start - 1, end):
            with pytest.raises(GuestMemoryError) as caught:
                state.memory.read(address, 1)
            assert (caught.value.start, caught.value.reason) == (address, "hole")
        filled = state.memory.read(0x1000, 0x3000, fill=0xAA)  # strict: a fill byte stands for holes
        assert filled == b"\xaa" * 0x803 + ODD + b"\xaa" * (0x4000 - end)
        assert list(state.memory.find(b"odd bytes")) == list(range(start, end, 9))
        buffer = bytearray(3)
        state.memory.read_into(start, buffer)
        assert buffer == b"odd"


def test_pages_that_are_held_in_part() -> None:
    """A batch of pages is of whole ones: strict mode does not refuse the others either, as for every hole."""
    with opened([Segment(0x1803, ODD)]) as state:
        pages, mask = state.memory.pages([1, 2, 3, 4])
        assert mask.tolist() == [False, True, False, False]
        assert bytes(pages[1]) == ODD[0x2000 - 0x1803 :][:4096] and not np.any(pages[[0, 2, 3]])


def test_neighbours_in_one_page() -> None:
    """A page that two segments share is one page; what lies between them is a hole."""
    with opened([Segment(0, b"a" * 0x1400), Segment(0x1400, b"b" * 0x200), Segment(0x1800, b"c" * 0x100)]) as state:
        assert [tuple(item) for item in state.memory.chunks] == [(0, 2)]
        assert state.memory.read(0x13FF, 0x201) == b"a" + b"b" * 0x200
        assert state.memory.read(0x1800, 0x100) == b"c" * 0x100
        assert [tuple(gap) for gap in state.memory.gaps(0, 0x2000)] == [
            (0x1600, 0x1800, "hole"), (0x1900, 0x2000, "hole"),
        ]  # fmt: skip
        assert state.memory.raw_offset(0x1800) == 0x1800


@given(st.lists(st.tuples(st.integers(0, 0x5000), st.integers(1, 0x3000)), min_size=1, max_size=6))
def test_any_set_of_segments_against_a_picture_of_bytes(places: list[tuple[int, int]]) -> None:
    """Reads, gaps and the flat view agree with bytes that are put down one by one; of two copies the first counts."""
    content = [bytes([number + 1]) * size for number, (_, size) in enumerate(places)]
    segments = [Segment(start, data) for (start, _), data in zip(places, content, strict=True)]
    picture: list[int | None] = [None] * 0x9000
    for segment in segments:
        for at, byte in enumerate(segment.data, segment.gpa):
            picture[at] = byte if picture[at] is None else picture[at]
    with opened(segments, strict=False) as state:
        read = state.memory.read(0, 0x9000, fill=0)
        assert read == bytes(byte or 0 for byte in picture)
        holes = {at for gap in state.memory.gaps(0, 0x9000) for at in range(gap.start, gap.end)}
        assert holes == {at for at, byte in enumerate(picture) if byte is None}
        first = min(start for start, _ in places)
        assert state.memory.read(first, 1) == bytes([picture[first] or 0])


def test_proc_vmcore() -> None:
    """System RAM that ends inside a page, the kernel's text a second time, task ids: all of it sound."""
    ram, text = b"r" * 0x9FC00, b"r" * 0x8000
    notes = prstatus_x86_64(4711) + prstatus_x86_64(-1) + note("VMCOREINFO", 0, b"OSRELEASE=6.1\n")
    content = elf(X86_64, notes, [Segment(0x100000, text), Segment(0, ram), Segment(0x100000, b"r" * 0x100123)])
    with vmsavedstate.open(io.BytesIO(content), strict=True) as state:
        assert state.memory.read(0x9FBFF, 1) == b"r" and state.memory.read(0x100000 + 0x100122, 1) == b"r"
        assert [item.code for item in state.findings] == ["elf.memory.copy"]
        result = state.verify()
        assert result.sound and [item.code for item in result.findings] == ["elf.memory.copy"]
        assert {gap.reason for gap in result.unreadable} == {"hole"}


def test_copies_that_differ() -> None:
    """The first counts; only a check of everything compares them."""
    with opened([Segment(0, b"a" * 0x3000), Segment(0x1000, b"a" * 0x800 + b"b" * 0x800)]) as state:
        assert state.memory.read(0x17FF, 2) == b"aa"
        result = state.verify()
        assert [item.code for item in result.findings] == ["elf.memory.copy", "elf.memory.copy-differs"]
        assert result.sound


def test_a_truncated_range_keeps_every_byte() -> None:
    content = elf(X86_64, CPU, [Segment(0x800, b"t" * 0x2000)])[:-5]
    with vmsavedstate.open(io.BytesIO(content)) as state:
        assert state.memory.read(0x800, 0x2000 - 5) == b"t" * (0x2000 - 5)
        assert [(gap.start, gap.reason) for gap in state.memory.gaps(0x800, 0x2000)] == [(0x27FB, "missing")]
        assert not state.verify().sound


def test_a_limited_dump_is_not_sound(tmp_path: Path) -> None:
    """It claims memory that it lacks: ``verify`` says which, and ends with 1."""
    path = tmp_path / "limited.elf"
    path.write_bytes(elf(X86_64, CPU, [Segment(0, bytes(0x1000), 0x3000)]))
    with vmsavedstate.open(path, strict=True) as state:
        assert [item.code for item in state.findings] == ["elf.memory.limited"]
    done = vmrs("verify", path)
    assert done.code == 1 and b"guest memory 0x1000 to 0x2fff cannot be read (missing)" in done.out


def test_bytes_that_no_header_covers(tmp_path: Path) -> None:
    path = tmp_path / "paging.elf"
    whole = elf(X86_64, CPU, [Segment(0, bytes(0x4000))])
    path.write_bytes(whole + bytes(0x11000))
    with vmsavedstate.open(path, strict=True) as state:
        (finding,) = state.findings
        assert finding.code == "elf.file.uncovered" and finding.offset == len(whole)
        assert finding.found == f"0x11000 bytes, the first at {len(whole):#x}"
        assert re.search("dump again without", finding.message)
    assert b"no header covers" in vmrs("info", path).out
    path.write_bytes(whole + bytes(0xFFF))  # less than a page is padding
    with vmsavedstate.open(path) as state:
        assert state.findings == ()


def test_uncovered_bytes_between_segments() -> None:
    raw = bytearray(elf(X86_64, CPU, [Segment(0, bytes(0x4000)), Segment(0x8000, bytes(0x4000))]))
    raw[64 + 56 + 32 : 64 + 56 + 48] = (0x1000).to_bytes(8, "little") * 2  # the first names a quarter of its bytes
    with vmsavedstate.open(io.BytesIO(raw)) as state:
        assert [item.code for item in state.findings] == ["elf.file.uncovered"]
        assert (state.findings[0].found or "").startswith("0x3000 bytes")
    raw[64 + 2 * 56 + 48 : 64 + 2 * 56 + 56] = (0x4000).to_bytes(8, "little")  # the next is aligned: padding
    with vmsavedstate.open(io.BytesIO(raw)) as state:
        assert state.findings == ()


def test_more_headers_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is called a limit, not damage; a number that the file cannot hold is damage."""
    monkeypatch.setattr(headers, "MAX_HEADERS", 4)
    segments = [Segment(number * 0x1000, bytes(0x1000)) for number in range(4)]
    with opened(segments[:3]):
        pass
    with pytest.raises(vmsavedstate.LimitError, match=r"5 program headers, more than the 4 that are read") as caught:
        opened(segments)
    assert "limit of this reader" in (caught.value.remedy or "")
    raw = bytearray(elf(X86_64, CPU, segments))
    raw[56:58] = (0xFFF0).to_bytes(2, "little")
    with pytest.raises(vmsavedstate.CorruptFileError, match="65,520 program headers, which would end behind"):
        vmsavedstate.open(io.BytesIO(raw))
