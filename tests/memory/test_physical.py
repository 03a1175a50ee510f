"""Reads of guest memory through any layout of ranges and blocks (format specification, section 4)."""

from __future__ import annotations

import random
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmsavedstate
from support.partition import metadata
from support.states import BLOCK, numbered_pages, write_state
from support.tables import memory_of
from vmsavedstate import GuestPhysicalMemory, SavedState, codec
from vmsavedstate.errors import GuestMemoryError, GuestMemoryNotFoundError, InvalidArgumentError
from vmsavedstate.findings import Severity

PAGE = 4096


def packed(block: bytes) -> bytes:
    return codec.active().encode_block(block)


def page_numbers(data: bytes) -> list[int]:
    """The numbers that ``numbered_pages`` wrote into whole pages; -1 for a page of zeros."""
    return [struct.unpack_from("<Q", data, at)[0] - 0xA5A5_0000_0000 if any(data[at : at + PAGE]) else -1
            for at in range(0, len(data), PAGE)]  # fmt: skip


# A guest with a hole at 0xA0000, a partial block before it, and memory above a gap: block N is not GPA / 1 MiB.
LAYOUT = [
    metadata(160, gpa=0, backing=0),
    metadata(300, gpa=0x100, backing=256),
    metadata(256, gpa=0x100000, backing=768),
]
BLOCKS = {
    0: numbered_pages(0, 160),
    1: packed(numbered_pages(0x100)),
    2: packed(numbered_pages(0x200, 44)),
    3: numbered_pages(0x100000),
}


@pytest.fixture
def state(tmp_path: Path) -> SavedState:
    return vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=LAYOUT, blocks=BLOCKS), strict=True)


@pytest.fixture
def memory(state: SavedState) -> GuestPhysicalMemory:
    return state.memory


def test_chunks_and_size(memory: GuestPhysicalMemory) -> None:
    assert [(item.start_page, item.page_count) for item in memory.chunks] == [(0, 160), (0x100, 300), (0x100000, 256)]
    assert [(item.start, item.size) for item in memory.chunks][1] == (0x100000, 300 * PAGE)
    assert memory.size == (160 + 300 + 256) * PAGE
    assert memory.page_size == PAGE


def test_every_page_is_where_the_metadata_says(memory: GuestPhysicalMemory) -> None:
    for chunk in memory.chunks:
        expected = list(range(chunk.start_page, chunk.start_page + chunk.page_count))
        assert page_numbers(memory.read(chunk.start, chunk.size)) == expected
        for page in expected:
            assert page_numbers(memory.read(page * PAGE, PAGE)) == [page]


def test_reads_across_blocks_and_at_odd_addresses(memory: GuestPhysicalMemory) -> None:
    whole = memory.read(0x100000, 300 * PAGE)
    chance = random.Random(1)
    for _ in range(200):
        start = chance.randrange(300 * PAGE)
        size = chance.randrange(1, min(70_000, 300 * PAGE - start) + 1)
        assert memory.read(0x100000 + start, size) == whole[start : start + size]
        buffer = bytearray(size)
        memory.read_into(0x100000 + start, buffer)
        assert buffer == whole[start : start + size]


def test_nothing_is_read_as_nothing(memory: GuestPhysicalMemory) -> None:
    assert memory.read(0, 0) == b""
    assert memory.read(0xA0000, 0) == b""


@pytest.mark.parametrize(
    ("gpa", "size", "start", "end"),
    [
        (0xA0000, 1, 0xA0000, 0xA0001),
        (0x9FFFF, 2, 0xA0000, 0xA0001),
        (0x9F000, 0x100000, 0xA0000, 0x100000),
        (0xFFFFF, 1, 0xFFFFF, 0x100000),
        (0x100000 + 300 * PAGE, 4, 0x100000 + 300 * PAGE, 0x100004 + 300 * PAGE),
        (1 << 60, 10, 1 << 60, (1 << 60) + 10),
    ],
)
def test_a_hole_is_an_error_that_names_the_range(
    memory: GuestPhysicalMemory, gpa: int, size: int, start: int, end: int
) -> None:
    for read in (lambda: memory.read(gpa, size), lambda: memory.read_into(gpa, bytearray(size))):
        with pytest.raises(GuestMemoryError) as caught:
            read()
        assert (caught.value.start, caught.value.end, caught.value.reason) == (start, end, "hole")
        assert hex(start) in str(caught.value)
    with pytest.raises(GuestMemoryError):
        memory.require(gpa, size)


@pytest.mark.parametrize("fill", [0, 0xCC, 255])
def test_holes_filled_on_request(memory: GuestPhysicalMemory, fill: int) -> None:
    data = memory.read(0x9F000, 0x63000, fill=fill)
    assert page_numbers(data[:PAGE]) == [0x9F]
    assert data[PAGE:0x61000] == bytes([fill]) * 0x60000
    assert page_numbers(data[0x61000:]) == [0x100, 0x101]
    buffer = bytearray(0x63000)
    memory.read_into(0x9F000, buffer, fill=fill)
    assert buffer == data


@pytest.mark.parametrize(
    ("gpa", "size", "fill"), [(-1, 1, None), (0, -1, None), (0, (1 << 32) + 1, None), (0, 1, 256), (0, 1, -1)]
)
def test_arguments_outside_of_their_range(memory: GuestPhysicalMemory, gpa: int, size: int, fill: int | None) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        memory.read(gpa, size, fill=fill)
    assert caught.value.hresult == 0x80070057


def test_raw_stream(memory: GuestPhysicalMemory) -> None:
    """The chunks one after another without holes and without the padding of partial blocks (4.4)."""
    raw = b"".join(memory.read(item.start, item.size) for item in memory.chunks)
    assert memory.read_raw(0, memory.size) == raw
    assert memory.read_raw(159 * PAGE, 3 * PAGE) == raw[159 * PAGE : 162 * PAGE]
    assert memory.read_raw(memory.size - 5, 100) == raw[-5:], "short only at the end"
    assert memory.read_raw(memory.size, 1) == b""
    assert memory.read_raw(memory.size + (1 << 40), 1) == b""
    assert memory.raw_offset(0x9FFFF) == 0x9FFFF
    assert memory.raw_offset(0x100000) == 0xA0000
    assert memory.raw_offset(0x100000123) == (160 + 300) * PAGE + 0x123
    with pytest.raises(GuestMemoryError):
        memory.raw_offset(0xA0000)


def test_batch_of_pages(memory: GuestPhysicalMemory) -> None:
    wanted = [0x100001, 5, 0xA0, 0x12B, 5, 0x22B, 0x22C, 1 << 52, 0, 0x1FF, 0x200]
    pages, mask = memory.pages(wanted)
    assert pages.shape == (11, PAGE)
    assert mask.tolist() == [number not in (0xA0, 0x22C, 1 << 52) for number in wanted]
    assert page_numbers(pages.tobytes()) == [
        number if there else -1 for number, there in zip(wanted, mask, strict=True)
    ]


def test_an_empty_batch(memory: GuestPhysicalMemory) -> None:
    pages, mask = memory.pages([])
    assert (pages.shape, mask.shape) == ((0, PAGE), (0,))


def test_batch_refuses_what_is_no_page_number(memory: GuestPhysicalMemory) -> None:
    for wrong in ([-1], [1 << 64], ["a"]):
        with pytest.raises(InvalidArgumentError):
            memory.pages(wrong)  # type: ignore[arg-type]


def test_neighbouring_ranges_are_one_chunk(tmp_path: Path) -> None:
    """NUMA nodes: two metadata values, one chunk, each with its own place in the blocks."""
    ranges = [metadata(256, gpa=256, backing=0, node=1), metadata(256, gpa=0, backing=256)]
    blocks = {0: numbered_pages(256), 1: numbered_pages(0)}
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=ranges, blocks=blocks), strict=True) as state:
        assert [(item.start_page, item.page_count) for item in state.memory.chunks] == [(0, 512)]
        assert page_numbers(state.memory.read(0, 2 * BLOCK)) == list(range(512))
        assert [item.node for item in state.memory.ranges] == [0, 1]


def test_thousands_of_ranges(tmp_path: Path) -> None:
    """3,000 ranges of one page each, every second guest page, kept backwards."""
    count = 3000
    ranges = [metadata(1, gpa=2 * number, backing=count - 1 - number) for number in range(count)]
    block_count = -(-count // 256)
    blocks = {n: numbered_pages(256 * n) for n in range(block_count)}
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=ranges, blocks=blocks), strict=True) as state:
        memory = state.memory
        assert len(memory.chunks) == count
        for number in (0, 1, 17, 1499, 2999):
            assert page_numbers(memory.read(2 * number * PAGE, PAGE)) == [count - 1 - number]
            with pytest.raises(GuestMemoryError):
                memory.read((2 * number + 1) * PAGE, 1)
        assert page_numbers(memory.read_raw(0, 10 * PAGE)) == list(range(count - 1, count - 11, -1))


def test_missing_block_names_its_range(tmp_path: Path) -> None:
    blocks = {0: numbered_pages(0), 2: numbered_pages(512)}
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata(768)], blocks=blocks)
    with vmsavedstate.open(path, strict=True) as state, pytest.raises(GuestMemoryError, match="not in the file"):
        state.memory.read(BLOCK - 1, 2, fill=7)  # in strict mode a fill byte stands for holes alone
    with vmsavedstate.open(path) as state:
        assert [item.severity for item in state.findings] == [Severity.DAMAGE]
        assert "RamBlock1 is missing" in state.findings[0].message
        with pytest.raises(GuestMemoryError) as caught:
            state.memory.read(BLOCK - 1, 2)
        assert (caught.value.start, caught.value.end, caught.value.reason) == (BLOCK, BLOCK + 1, "missing")
        assert state.memory.read(BLOCK - 1, BLOCK + 2, fill=7)[1:-1] == b"\7" * BLOCK
        _, mask = state.memory.pages([0, 256, 511, 512])
        assert mask.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("content", "good_pages"),
    [
        (packed(numbered_pages(0))[:-4] + b"\0\0\0\0", 256),
        (packed(numbered_pages(0))[:2000], None),
        (b"\xff\xff\xff\xff", 0),
        (b"", 0),
        (numbered_pages(0) + b"x", 0),
        (b"\xfe\xff\xff\xff" + bytes(8) + b"\x06\0\0\0" + b"\0\0\0\x80\xff\xff" + b"\xfd\xff\xff\xff" + bytes(8)
         + b"\xfe\0\0\0\xff\xff\xff\xff", 1),
    ],
)  # fmt: skip
def test_a_damaged_block_gives_what_is_whole(tmp_path: Path, content: bytes, good_pages: int | None) -> None:
    blocks = {0: content, 1: numbered_pages(256)}
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=[metadata(512)], blocks=blocks)) as state:
        readable = []
        for page in range(256):
            try:
                state.memory.read(page * PAGE, PAGE)
                readable.append(page)
            except GuestMemoryError as error:
                assert error.reason == "damaged"
                assert (error.start, error.end) == (page * PAGE, (page + 1) * PAGE)
        if good_pages is not None:
            assert readable[:good_pages] == list(range(good_pages))
        else:
            assert 0 < len(readable) < 256
            assert readable == list(range(len(readable)))
        filled = state.memory.read(0, BLOCK, fill=0xEE)
        for page in range(256):
            assert (filled[page * PAGE : (page + 1) * PAGE] == b"\xee" * PAGE) == (page not in readable)
        state.check_memory()
        assert any(item.severity is Severity.DAMAGE for item in state.findings)
        assert page_numbers(state.memory.read(BLOCK, PAGE)) == [256], "the neighbour is whole"
        _, mask = state.memory.pages(range(256))
        assert [page for page in range(256) if mask[page]] == readable


def test_a_read_that_ends_before_the_damage(tmp_path: Path) -> None:
    """Reading one page does not need the rest of its block to be sound."""
    content = packed(numbered_pages(0))[:2000]
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blocks={0: content})) as state:
        assert page_numbers(state.memory.read(0, 2 * PAGE)) == [0, 1]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([metadata(0)], None),
        ([], None),
        ([b"short"], None),
        ([metadata(1 << 60)], None),
        ([metadata(256, gpa=(1 << 52) - 1)], None),
        ([metadata(256), metadata(0, gpa=0x1000)], [(0, 256)]),
        ([metadata(256), metadata(256, gpa=128, backing=0)], [(0, 384)]),
        ([metadata(256, version=2)], [(0, 256)]),
        ([metadata(256) + b"more"], [(0, 256)]),
        ([metadata(256)[:32]], [(0, 256)]),
    ],
)
def test_faulty_metadata(tmp_path: Path, ranges: list[bytes], expected: list[tuple[int, int]] | None) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=ranges, blocks={0: numbered_pages(0)})
    if expected is None:
        with pytest.raises(GuestMemoryNotFoundError) as caught:
            vmsavedstate.open(path)
        assert caught.value.hresult == 0xC0370501
        return
    with vmsavedstate.open(path) as state:
        assert [(item.start_page, item.page_count) for item in state.memory.chunks] == expected
        assert state.findings
        assert page_numbers(state.memory.read(0, PAGE)) == [0]


def test_of_overlapping_ranges_the_first_counts(tmp_path: Path) -> None:
    ranges = [metadata(10, gpa=100, backing=0), metadata(200, gpa=0, backing=0), metadata(300, gpa=50, backing=256)]
    blocks = {0: numbered_pages(0), 1: numbered_pages(256), 2: numbered_pages(512)}
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=ranges, blocks=blocks)) as state:
        pages, mask = state.memory.pages([99, 100, 109, 110, 199, 200, 349, 350])
        assert mask.tolist() == [True] * 7 + [False]
        assert page_numbers(pages.tobytes()) == [99, 0, 9, 110, 199, 256 + 150, 256 + 299, -1]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=12))
def test_overlaps_leave_every_page_to_the_first_range_that_has_it(tmp_path: Path, spans: list[tuple[int, int]]) -> None:
    owner: dict[int, int] = {}
    for number, (start, count) in enumerate(spans):
        for page in range(start, start + count):
            owner.setdefault(page, number * 256 + page - start)
    ranges = [metadata(count, gpa=start, backing=256 * number) for number, (start, count) in enumerate(spans)]
    blocks = {number: packed(numbered_pages(256 * number)) for number in range(len(spans))}
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=ranges, blocks=blocks)) as state:
        pages, mask = state.memory.pages(range(100))
        expected = [owner.get(page, -1) for page in range(100)]
        assert [
            number if there else -1 for number, there in zip(page_numbers(pages.tobytes()), mask, strict=True)
        ] == expected
        assert state.memory.size == len(owner) * PAGE


def test_blocks_without_a_place_in_memory_and_odd_names(tmp_path: Path) -> None:
    extra = [("/savedstate/RamBlock00", "array", b"x"), ("/savedstate/RamBlock-1", "array", b"x"),
             ("/savedstate/RamBlockX", "array", b"x"), ("/savedstate/RamBlock1", "int", 5),
             ("/savedstate/RamBlock²", "array", b"x")]  # fmt: skip
    path = write_state(tmp_path / "x.vmrs", blocks={0: numbered_pages(0)}, extra=extra)
    with vmsavedstate.open(path, strict=True) as state:
        assert page_numbers(state.memory.read(0, PAGE)) == [0]
        assert state.storage()["blocks"] == 1


def test_an_absurd_page_count_costs_nothing(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata((1 << 52) - 1)], blocks={0: numbered_pages(0)})
    with vmsavedstate.open(path) as state:
        assert page_numbers(state.memory.read(0, PAGE)) == [0]
        with pytest.raises(GuestMemoryError):
            state.memory.read(1 << 50, 1)
        assert "are missing" in state.findings[0].message


def test_reads_from_many_threads(state: SavedState) -> None:
    memory = state.memory
    expected = {item: memory.read(item.start, item.size) for item in memory.chunks}

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(150):
            chunk = chance.choice(memory.chunks)
            start = chance.randrange(chunk.size)
            size = min(chance.choice((1, 100, 5000, 300_000)), chunk.size - start)
            assert memory.read(chunk.start + start, size) == expected[chunk][start : start + size]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_caches_are_bounded(tmp_path: Path) -> None:
    from vmsavedstate.cache import ByteCache

    cache: ByteCache[int, bytes] = ByteCache(1000)
    for number in range(50):
        cache.put(number, bytes(100), 100)
        assert cache.used <= 1000
    assert cache.get(49) == bytes(100)
    assert cache.get(0) is None
    cache.put(99, bytes(2000), 2000)
    assert cache.get(99) is None
    assert cache.used <= 1000
    cache.get(42)
    cache.put(50, bytes(900), 900)
    assert cache.get(42) is not None, "the least recently used goes first"
    cache.clear()
    assert cache.used == 0


@given(st.integers(0, 3), st.integers(0, BLOCK - 1), st.integers(1, 3 * PAGE))
@settings(max_examples=60)
def test_small_and_large_reads_agree(tmp_path: Path, chunk: int, start: int, size: int) -> None:
    path = tmp_path / "shared.vmrs"
    if not path.exists():
        write_state(path, ranges=LAYOUT, blocks=BLOCKS)
    with vmsavedstate.open(path) as state:
        item = state.memory.chunks[chunk % 3]
        start %= item.size
        size = min(size, item.size - start)
        small = state.memory.read(item.start + start, size)
    with vmsavedstate.open(path) as state:
        whole = state.memory.read(item.start, item.size)
    assert small == whole[start : start + size]


def test_a_closed_state_says_so(state: SavedState) -> None:
    state.close()
    state.close()
    with pytest.raises(vmsavedstate.VmSavedStateError, match="closed"):
        state.memory.read(0, 1)


def test_a_file_that_shrinks_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", blocks={0: numbered_pages(0)})
    with vmsavedstate.open(path) as state:
        with path.open("r+b") as stream:
            stream.truncate(0x3000)
        with pytest.raises(vmsavedstate.VmSavedStateError, match=r"ends .* too early"):
            state.memory.read(0x50000, PAGE)


def test_the_flat_stream_begins_in_any_range() -> None:
    """Reads that begin in each of several ranges, at its first, a middle and its last byte."""
    pages = {number << 12: bytes([number]) * 4096 for number in range(64)}
    places = [(0x1000, 0x2000), (0x5000, 0x1000), (0x8000, 0x3000), (0x10000, 0x1000), (0x20000, 0x2000)]
    memory = memory_of(pages, places)
    whole = b"".join(memory.read(start, size) for start, size in places)
    assert memory.read_raw(0, 1 << 20) == whole
    at = 0
    for start, size in places:
        for inside in (0, 5, size - 1):
            assert memory.read_raw(at + inside, 0x1800) == whole[at + inside : at + inside + 0x1800]
            assert memory.raw_offset(start + inside) == at + inside
            assert next(memory.raw_runs(at + inside, 1)).gpa == start + inside
        at += size
