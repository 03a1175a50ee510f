"""ScanMemoryForDosImages: what is found, in which order, and what ends it. Real images: the UEFI guest of tests/guests."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider.doors import Door, Failure
from support.samples import Samples
from support.tables import memory_of, placed, space_of, table
from vmsavedstate import AddressSpace, SavedStateWriter
from vmsavedstate.provider.images import image_at

MIB, PAGE = 1 << 20, 4096
Found = list[tuple[str, int, int, int]]


def image(size: int, timestamp: int, *, record: bytes = b"", magic: int = 0x20B, at: int = 0x80) -> bytes:
    """The headers of a PE file by Microsoft's published format, one page; ``record`` is its CodeView record."""
    optional_size = 240 if magic == 0x20B else 224
    head = bytearray(PAGE)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, at)
    struct.pack_into("<4sHHIIIHH", head, at, b"PE\0\0", 0x8664, 1, timestamp, 0, 0, optional_size, 0x22)
    optional = at + 24
    struct.pack_into("<H", head, optional, magic)
    struct.pack_into("<I", head, optional + 56, size)
    if record:
        directories = optional + (112 if magic == 0x20B else 96)
        struct.pack_into("<I", head, directories - 4, 16)
        struct.pack_into("<II", head, directories + 6 * 8, 0x800, 2 * 28)
        struct.pack_into("<IIHHIIII", head, 0x800, 0, 0, 0, 0, 4, 16, 0x900, 0x900)  # another kind stands before
        struct.pack_into("<IIHHIIII", head, 0x800 + 28, 0, 0, 0, 0, 2, len(record), 0xA00, 0xA00)
        head[0xA00 : 0xA00 + len(record)] = record
    return bytes(head)


RSDS = b"RSDS" + bytes(20) + "c:\\b\\größe.pdb".encode() + b"\0"
NB10 = b"NB10" + bytes(12) + b"old.pdb\0"
IMAGES = {  # page number in memory: what stands there
    3: image(0x5000, 0x11111111, record=RSDS),
    7: image(0x2000, 0x22222222, record=NB10, magic=0x10B, at=0xE8),
    9: image(0x1000, 0x33333333),
    11: b"MZ" + bytes(PAGE - 2),  # no image: DOS alone
    12: image(0x1000, 0x44444444, magic=0x107),  # a ROM image has another header
    20: image(0x7000, 0x55555555),
}
BASE = 0xFFFFF80000000000
MAPPED = (3, 7, 9, 11, 12, 20)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Every page of IMAGES mapped at BASE + 2 MiB x its number, so that there are holes between them."""
    memory = bytearray(MIB)
    for page, content in IMAGES.items():
        memory[page * PAGE : (page + 1) * PAGE] = content
    struct.pack_into("<Q", memory, 0x80000 + (BASE >> 39 & 511) * 8, 0x81007)
    struct.pack_into("<Q", memory, 0x81000, 0x82007)
    for page in MAPPED:
        struct.pack_into("<Q", memory, 0x82000 + page * 8, 0x90000 + page * PAGE | 7)
        struct.pack_into("<Q", memory, 0x90000 + page * PAGE, page * PAGE | 7)
    path = tmp_path / "images.vmrs"
    with SavedStateWriter(path) as writer:
        writer.add_processor(0, {"rip": 0, "cr0": 1 << 31, "cr3": 0x80000, "cr4": 0x20, "efer": 0x500})
        writer.add_memory(0, MIB, lambda offset, size: bytes(memory[offset : offset + size]))
    return path


@pytest.fixture
def handle(door_2021: Door, state: Path) -> Iterator[int]:
    handle = door_2021.load(state)
    yield handle
    door_2021.call("ReleaseSavedStateFiles", handle)


def where(page: int) -> int:
    return BASE + page * 2 * MIB


ALL: Found = [
    ("", where(20), 0x7000, 0x55555555),
    ("", where(9), 0x1000, 0x33333333),
    ("old.pdb", where(7), 0x2000, 0x22222222),
    ("c:\\b\\größe.pdb", where(3), 0x5000, 0x11111111),
]


def scan(door: Door, handle: int, start: int, end: int, *, alone: tuple[int, ...] = (), stop_after: int = 99) -> Found:
    found: Found = []

    def tell(item: tuple[str, int, int, int]) -> bool:
        found.append(tuple(item))  # type: ignore[arg-type]
        return len(found) >= stop_after

    door.scan(handle, 0, start, end, tell, alone)
    return found


def test_downward(door_2021: Door, handle: int) -> None:
    assert scan(door_2021, handle, (1 << 64) - 1, BASE) == ALL
    assert scan(door_2021, handle, (1 << 64) - 1, 0) == ALL
    assert scan(door_2021, handle, where(9), where(7)) == ALL[1:3], "both ends belong to it"
    assert scan(door_2021, handle, where(9) - 1, where(7) + 1) == []
    assert scan(door_2021, handle, where(9) + 5, where(7)) == ALL[1:3]


def test_the_callback_ends_it(door_2021: Door, handle: int) -> None:
    assert scan(door_2021, handle, (1 << 64) - 1, 0, stop_after=2) == ALL[:2]


def test_standalone_addresses_come_first(door_2021: Door, handle: int) -> None:
    alone = (where(3), where(11), 0, (1 << 64) - 1, where(7))
    assert scan(door_2021, handle, where(20), where(9), alone=alone) == [ALL[3], ALL[2], ALL[0], ALL[1]]
    assert scan(door_2021, handle, where(20), where(9), alone=alone, stop_after=1) == [ALL[3]]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (5, 6), (0, (1 << 64) - 1)])
def test_the_wrong_way_round(door_2021: Door, handle: int, start: int, end: int) -> None:
    with pytest.raises(Failure) as caught:
        scan(door_2021, handle, start, end)
    assert caught.value.hresult == 0x80070057


@pytest.mark.real
def test_more_is_mapped_than_there_is(door_2021: Door, samples: Samples) -> None:
    """A real ARM64 guest whose tables map 768 GiB onto 128 MiB of memory and devices: holes are passed over whole."""
    handle = door_2021.load(samples("guest-uboot-arm64.vmrs"))
    found: list[int] = []

    def tell(item: tuple[str, int, int, int]) -> bool:
        found.append(item[1])
        return False

    door_2021.scan(handle, 0, (1 << 48) - 1, 0, tell)
    door_2021.call("ForcePagingMode", handle, 0, 1)
    door_2021.scan(handle, 0, (1 << 64) - 1, 0, tell)
    assert found == sorted(found, reverse=True)
    door_2021.call("ReleaseSavedStateFiles", handle)


def test_standalone_ones_do_not_wait_for_the_tables(
    door_2021: Door, handle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object, **named: object) -> None:
        raise AssertionError("the tables are not needed")

    monkeypatch.setattr(AddressSpace, "mappings", unreachable)
    assert scan(door_2021, handle, (1 << 64) - 1, 0, alone=(where(3),), stop_after=1) == [ALL[3]]


def test_released_by_the_callback(door_2021: Door, state: Path) -> None:
    handle = door_2021.load(state)
    seen: list[int] = []

    def tell(item: tuple[str, int, int, int]) -> bool:
        if not seen:
            door_2021.call("ReleaseSavedStateFiles", handle)
        seen.append(item[1])
        return False

    door_2021.scan(handle, 0, (1 << 64) - 1, 0, tell)
    assert seen == [item[1] for item in ALL]


ROOT = {0x1000: table({0: 0x2007}), 0x2000: table({0: 0x3007}), 0x3000: table({0: 0x4007}), 0x4000: table({0: 0x5007})}


@pytest.mark.peer
@pytest.mark.parametrize("page", [3, 7, 9, 20])
def test_pefile_reads_the_same(page: int) -> None:
    """An independent reader takes our images for what they are meant to be."""
    pefile = pytest.importorskip("pefile")
    content = IMAGES[page]
    space = space_of(
        memory_of(placed({**ROOT, 0x5000: content}), [(0, 0x10000)]), cr0=1 << 31, cr3=0x1000, cr4=0x20, efer=0x500
    )
    found, other = image_at(space, 0), pefile.PE(data=content)
    assert found is not None
    assert (found.size, found.timestamp) == (other.OPTIONAL_HEADER.SizeOfImage, other.FILE_HEADER.TimeDateStamp)
    debug = [item.entry for item in getattr(other, "DIRECTORY_ENTRY_DEBUG", [])]
    records = [entry.PdbFileName for entry in debug if hasattr(entry, "PdbFileName")]
    assert found.pdb_name.encode() == (records[0].rstrip(b"\0") if records else b"")


@given(st.binary(max_size=64), st.integers(0, PAGE - 64), st.binary(max_size=8), st.integers(0, 300))
def test_damaged_headers_are_no_images_or_images(noise: bytes, at: int, more: bytes, where_more: int) -> None:
    """Whatever stands there, the answer is an image or none, never an error."""
    page = bytearray(image(0x5000, 1, record=RSDS))
    page[at : at + len(noise)] = noise
    page[where_more : where_more + len(more)] = more
    page[:2] = b"MZ"
    memory = memory_of(placed({**ROOT, 0x5000: bytes(page)}), [(0, 0x10000)])
    space = space_of(memory, cr0=1 << 31, cr3=0x1000, cr4=0x20, efer=0x500)
    found = image_at(space, 0)
    assert found is None or found.base == 0
