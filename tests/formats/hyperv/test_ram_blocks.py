"""Blocks of guest memory: those of zeros, which a large guest has most of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vmsavedstate
from vmsavedstate import SavedStateWriter


@pytest.mark.parametrize("compress", [False, True])
def test_blocks_of_zeros_are_one_object(tmp_path: Path, compress: bool) -> None:
    """Sparse or compressed: they are not expanded one by one, and are searched as all others."""
    path, size = tmp_path / "x.vmrs", 6 << 20
    with SavedStateWriter(path, compress=compress) as writer:
        writer.add_processor(0, {"rax": 1})
        content = bytearray(size)
        content[(3 << 20) - 2 : (3 << 20) + 2] = b"mark"
        writer.add_memory(
            0,
            size,
            lambda at, length: bytes(content[at : at + length]),
            zero_runs=[(0, (3 << 20) - 4096), ((3 << 20) + 4096, (3 << 20) - 4096)],
        )
    with vmsavedstate.open(path) as state:
        memory = state.memory
        blocks = [block.data for block in memory.blocks()]
        assert blocks[0] is blocks[1] is blocks[5] and not any(blocks[0])
        assert b"".join(blocks) == content
        assert list(memory.find(b"mark")) == [(3 << 20) - 2]
        assert list(memory.find(b"k" + bytes(9))) == [(3 << 20) + 1]
        assert list(memory.find(bytes(8) + b"m")) == [(3 << 20) - 10]
        around = list(memory.find(bytes(16), (3 << 20) - 40, (3 << 20) + 40))
        assert around == [*range((3 << 20) - 40, (3 << 20) - 17), *range((3 << 20) + 2, (3 << 20) + 25)]
        first = list(memory.find(bytes(16), (1 << 20) - 20, (1 << 20) + 20))
        assert first == [*range((1 << 20) - 20, (1 << 20) + 5)], "across two of them"
        assert list(memory.find(re.compile(rb"m\w+k"))) == [(3 << 20) - 2]
        assert state.verify().sound
