"""What is left of a .vmrs that was cut short or overwritten in part: what it shows is right, and never passes for whole."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmsavedstate
from support import partition as p
from support.command import vmrs
from support.samples import Samples
from support.states import BLOCK, numbered_pages, write_state
from vmsavedstate import CorruptFileError, SavedState, SavedStateWriter, VmSavedStateError

REAL = "no-os-252mib.vmrs"


def codes(state: SavedState) -> set[str]:
    return {item.code for item in state.findings}


def check(left: SavedState, whole: SavedState) -> int:
    """Everything that can be read is what the whole file has; bytes that can be read."""
    readable = 0
    for block in left.memory.blocks():
        if not block.gaps:
            assert whole.memory.read(block.start, block.size) == block.data
            readable += block.size
    for vp in left.processors:
        assert dict(vp.registers) == dict(whole.processors[vp.id].registers)
    return readable


def zeroed(raw: bytes, start: int, end: int) -> bytes:
    return raw[:start] + bytes(end - start) + raw[end:]


@pytest.fixture(scope="module")
def real(samples: Samples) -> Iterator[tuple[bytes, SavedState]]:
    path = samples(REAL)
    with vmsavedstate.open(path) as state:
        yield path.read_bytes(), state


LOST = {
    # what is zero: (readable MiB, processors, codes)
    "both headers": (0, 0x2000, 252, 4, {"hvs.header.lost"}),
    "first object table": (0x2000, 0x3000, 252, 4, {"hvs.object-table.lost"}),
    "first half": (0, 0x51B800, 252, 4, {"hvs.header.lost", "hvs.object-table.lost"}),
    "a key table": (0x3000, 0x4000, 252, 4, set()),  # the replay log has a copy
    "partition state and its key table": (0x89E000, 0x8A0000, 252, 0, set()),
}


@pytest.mark.parametrize("case", LOST)
def test_a_real_state_overwritten_in_part(real: tuple[bytes, SavedState], case: str) -> None:
    raw, whole = real
    start, end, size, processors, expected = LOST[case]
    content = zeroed(raw, start, end)
    with vmsavedstate.open(io.BytesIO(content)) as left:
        assert left.salvaged and "state.salvaged" in codes(left) and expected <= codes(left)
        assert len(left.findings) < 20
        assert check(left, whole) == size << 20 and len(left.processors) == processors
        if not processors:
            assert left.no_processors is not None and "partition state" in left.no_processors
        assert not left.verify().sound
    for strict, salvage in ((True, True), (False, False)):
        with pytest.raises(VmSavedStateError):
            vmsavedstate.open(io.BytesIO(content), strict=strict, salvage=salvage)


@pytest.mark.parametrize(
    ("cut", "least"),
    [(0x8F0000, 13), (0x947000, 60), (0x960000, 85), (0x9C0000, 180), (0x9D8000, 203), (0xA00000, 241)],
)
def test_a_real_state_cut_short(real: tuple[bytes, SavedState], cut: int, least: int) -> None:
    raw, whole = real
    with vmsavedstate.open(io.BytesIO(raw[:cut])) as left:
        assert check(left, whole) >= least << 20
        assert len(left.processors) == 4 and "hvs.truncated" in codes(left)


def test_nothing_is_left_of_memory(real: tuple[bytes, SavedState]) -> None:
    """The error is that of the file, and says what objects there are."""
    raw, _ = real
    with pytest.raises(CorruptFileError, match="218 of its 227 objects lie behind its end"):
        vmsavedstate.open(io.BytesIO(raw[:0x51B800]))


@settings(max_examples=25)
@given(st.data())
def test_any_part_of_a_real_state_lost(real: tuple[bytes, SavedState], data: st.DataObject) -> None:
    """Cut anywhere, pages zeroed anywhere: no traceback, and never a wrong byte or register.

    Memory blocks have no checksum, so bytes lost inside of one may decode to something else: those are left alone.
    """
    raw, whole = real
    first_block = 0x8AD000
    content = raw[: data.draw(st.integers(first_block + 0x10000, len(raw)))]
    for page in data.draw(st.lists(st.integers(0, first_block // 4096 - 1), max_size=8)):
        content = zeroed(content, page * 4096, page * 4096 + 4096)
    try:
        left = vmsavedstate.open(io.BytesIO(content))
    except VmSavedStateError:
        return
    with left:
        place = data.draw(st.integers(0, 251)) << 20
        for block in left.memory.blocks(place, min(place + (8 << 20), 252 << 20), 1):
            assert block.gaps or whole.memory.read(block.start, block.size) == block.data


@pytest.mark.parametrize("sizes", [False, True], ids=["plain", "compressed"])
def test_a_block_that_is_cut(tmp_path: Path, sizes: bool) -> None:
    """What the file has of a block can be read: bytes of a plain one, pages of a compressed one."""
    content = b"".join(random.Random(page).randbytes(2048) + bytes(2048) for page in range(256))
    path = tmp_path / "x.vmrs"
    with SavedStateWriter(path, compress=sizes) as writer:
        writer.add_processor(0, {"rax": 1})
        writer.add_memory(0, BLOCK, lambda offset, size: content[offset : offset + size])
    with vmsavedstate.open_store(path) as store:
        entry = store["/savedstate/RamBlock0"]
        at, size = entry.value_offset, entry.size
    raw = path.read_bytes()
    # The block goes to the end of the file, and the file ends inside of it.
    moved = bytearray(raw + raw[at : at + size])
    place = moved.find(at.to_bytes(8, "little"), 0x3000)
    while place >= 0:
        moved[place : place + 8] = len(raw).to_bytes(8, "little")
        place = moved.find(at.to_bytes(8, "little"), place + 8)
    short = bytes(moved[: len(raw) + size // 2 + 5])
    with vmsavedstate.open(io.BytesIO(short)) as state:
        (lost,) = state.memory.gaps(0, BLOCK)
        assert lost.reason == "damaged" and lost.end == BLOCK and BLOCK // 4 < lost.start < BLOCK * 3 // 4
        assert state.memory.read(0, lost.start) == content[: lost.start]
        assert state.memory.read(lost.start - 5, 5) == content[lost.start - 5 : lost.start]
        if not sizes:
            assert lost.start == size // 2 + 5
        with pytest.raises(vmsavedstate.GuestMemoryError):
            state.memory.read(lost.start, 1)


def test_the_map_of_memory_is_lost(tmp_path: Path) -> None:
    """Blocks are shown where their numbers are, and a finding says that this need not be where the guest had them."""
    path = write_state(tmp_path / "x.vmrs", ranges=[], blocks={0: numbered_pages(0), 2: numbered_pages(2)})
    raw = bytearray(path.read_bytes())
    raw[0:4] = raw[0x1000:0x1004] = bytes(4)
    with vmsavedstate.open(io.BytesIO(raw)) as left:
        assert {"memory.map.lost", "state.salvaged"} <= codes(left)
        assert [(item.start_page, item.page_count) for item in left.memory.chunks] == [(0, 256), (512, 256)]
        assert left.memory.read(2 << 20, 4096) == numbered_pages(2)[:4096]


def test_a_key_table_in_guest_memory_is_none(tmp_path: Path) -> None:
    """The guest may hold the file of another machine: what lies in a block of memory is not a table of this file."""
    other = write_state(tmp_path / "other.vmrs", blocks={0: numbered_pages(7)}).read_bytes()
    planted = other[-0x4000:].ljust(BLOCK, b"\0") if len(other) < BLOCK else other[:BLOCK]
    tables = [at for at in range(0, len(other), 4096) if other[at : at + 2] == b"\2\0"]
    planted = b"".join(other[at : at + 4096] for at in tables).ljust(BLOCK, b"\xee")
    path = write_state(tmp_path / "x.vmrs", blocks={0: planted})
    raw = bytearray(path.read_bytes())
    raw[0:4] = raw[0x1000:0x1004] = bytes(4)
    with vmsavedstate.open(io.BytesIO(raw)) as left:
        assert left.memory.read(0, BLOCK) == planted
        assert left.store is not None and "state.key.twice" not in codes(left)


def test_a_damaged_state_whose_container_is_sound_is_refused_as_before(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", blob=p.envelope(p.prolog() + p.epilog()))
    with pytest.raises(vmsavedstate.NoVirtualProcessorError):
        vmsavedstate.open(path)


def test_the_commands_end_with_1(samples: Samples, tmp_path: Path) -> None:
    raw = samples(REAL).read_bytes()
    path = tmp_path / "half.vmrs"
    path.write_bytes(zeroed(raw, 0, 0x51B800))
    for arguments in (
        ["info"], ["info", "--json"], ["chunks"], ["regs"], ["read", "--gpa", "0", "--size", "16", "--hex"], ["verify"],
        ["find", "BIOS"], ["convert", "--out"],
    ):  # fmt: skip
        command, *more = arguments
        if command == "convert":
            answer = vmrs("convert", path, tmp_path / "out.vmrs")
        elif command == "find":
            answer = vmrs("find", path, *more)
        else:
            answer = vmrs(command, path, *more)
        assert answer.code == 1, (arguments, answer.err)
        assert answer.out or command == "convert"
        assert "damage" in answer.err or b"damage" in answer.out, arguments
        assert vmrs(command, path, *more, "--strict").code in (1, 2)
    with vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as state, vmsavedstate.open(samples(REAL)) as whole:
        assert check(state, whole) == 252 << 20
    assert vmrs("keys", path).code == 0
    assert path.read_bytes() == zeroed(raw, 0, 0x51B800)
