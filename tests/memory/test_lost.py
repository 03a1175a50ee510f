"""Memory that cannot be delivered: holes, missing and damaged blocks."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import vmsavedstate
from support import partition as p
from support.states import BLOCK, numbered_pages, write_state
from support.tables import memory_of
from vmsavedstate import codec
from vmsavedstate.errors import (
    GuestMemoryError,
    InvalidArgumentError,
)
from vmsavedstate.findings import Severity


def test_gaps(tmp_path: Path) -> None:
    ranges = [p.metadata(512), p.metadata(256, gpa=0x300, backing=512)]
    bad = codec.active().encode_block(numbered_pages(256))[:3000]
    path = write_state(tmp_path / "x.vmrs", ranges=ranges, blocks={0: numbered_pages(0), 1: bad})
    with vmsavedstate.open(path) as state:
        gaps = list(state.memory.gaps(0, 0x500000))
        assert [gap.reason for gap in gaps] == ["damaged", "hole", "missing", "hole"]
        assert gaps[0].start > 0x100000
        assert [(gap.start, gap.end) for gap in gaps[1:]] == [
            (0x200000, 0x300000),
            (0x300000, 0x400000),
            (0x400000, 0x500000),
        ]
        assert gaps[0].end == 0x200000
        assert list(state.memory.gaps(0, 0x100000)) == []
        with pytest.raises(GuestMemoryError):
            state.memory.read(gaps[0].start, 1)
        assert state.memory.read(gaps[0].start - 1, 1)


def test_addresses_end_with_64_bits(tmp_path: Path) -> None:
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs")) as state:
        assert state.memory.read((1 << 64) - 2, 2, fill=1) == b"\1\1"
        for gpa, size in (((1 << 64) - 1, 2), (1 << 64, 1)):
            with pytest.raises(InvalidArgumentError, match="address space"):
                state.memory.read(gpa, size, fill=0)
        with pytest.raises(InvalidArgumentError):
            state.memory.pages([1.5])  # type: ignore[list-item]


def test_damage_at_the_end_of_a_block_is_seen_also_after_a_read(tmp_path: Path) -> None:
    """The tokens make 1 MiB, and then comes one more instead of END."""
    stream = codec.active().encode_block(numbered_pages(0))[:-4] + struct.pack("<I", 0xFFFFFFFE) + bytes(8)
    for first in (None, 0, BLOCK - 4096, BLOCK - 70_000):
        with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blocks={0: stream})) as state:
            if first is not None:
                state.memory.read(first, 4096)
            state.check_memory()
            assert [item.severity for item in state.findings] == [Severity.DAMAGE], first


def test_strict_batches_raise_for_lost_pages(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata(512)], blocks={0: numbered_pages(0)})
    with vmsavedstate.open(path, strict=True) as state:
        assert state.memory.pages([5, 0x1000])[1].tolist() == [True, False], "a hole is no damage"
        with pytest.raises(GuestMemoryError, match="0x100000"):
            state.memory.pages([5, 256, 300])


def test_gaps_are_merged_and_cut_to_what_was_asked(tmp_path: Path) -> None:
    bad = b"\xff\xff\xff\xff"
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata(768)], blocks={0: numbered_pages(0), 1: bad, 2: bad})
    with vmsavedstate.open(path) as state:
        assert [tuple(gap) for gap in state.memory.gaps(0, 3 * BLOCK)] == [(BLOCK, 3 * BLOCK, "damaged")]
        inside = state.memory.gaps(BLOCK + 0x2345, BLOCK)
        assert [tuple(gap) for gap in inside] == [(BLOCK + 0x2345, 2 * BLOCK + 0x2345, "damaged")]


def test_a_strict_batch_names_the_lowest_page_that_is_lost() -> None:
    """In whatever order pages are asked for: its address and its reason, and how many there are."""
    lost = {(0x3000, 0x4000): "damaged", (0x6000, 0x8000): "missing"}
    memory = memory_of({}, [(0, 0x10000)], lost=lost, strict=True)
    for asked, start, reason, count in (
        ([9, 7, 1, 6, 3, 6], 0x3000, "damaged", 4), ([7, 2, 6], 0x6000, "missing", 2), ([6, 7, 6], 0x6000, "missing", 3),
        ([8, 7], 0x7000, "missing", 1),
    ):  # fmt: skip
        with pytest.raises(GuestMemoryError) as caught:
            memory.pages(asked)
        error = caught.value
        assert (error.start, error.end, error.reason) == (start, start + 0x1000, reason)
        assert f"{count} of the pages cannot be read, the first at guest physical address {start:#x}" in error.message
