"""Reads through the public API: sequential ones against ``os.pread``, on two threads, and one cold page of a block."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import vmsavedstate
from vmsavedstate import SavedState, SavedStateWriter, codec

from .measure import DATA, Result, in_turns, on_threads

MIB = 1 << 20
SIZE = 512 * MIB
BLOCKS = 64


def plain_state() -> Path:
    """512 MiB of plain blocks with content."""
    path = DATA / "plain.vmrs"
    if not path.exists():
        DATA.mkdir(exist_ok=True)
        noise = random.Random(1).randbytes(MIB)
        with SavedStateWriter(path) as writer:
            writer.add_processor(0, {"rax": 1})
            writer.add_memory(0, SIZE, lambda _, size: noise[:size])
    return path


def packed_state() -> Path:
    """Blocks of 256 XPRESS pages each: text of many words, no page like another."""
    path = DATA / "packed.vmrs"
    if not path.exists():
        DATA.mkdir(exist_ok=True)
        chance = random.Random(2)
        words = [chance.randbytes(chance.randrange(2, 9)) for _ in range(300)]
        block = b"".join(chance.choice(words) for _ in range(MIB // 4))[:MIB]
        with SavedStateWriter(path, compress=True) as writer:
            writer.add_processor(0, {"rax": 1})
            writer.add_memory(0, BLOCKS * MIB, lambda _, size: block[:size])
    return path


def sequential(state: SavedState, first: int, size: int) -> Callable[[int], None]:
    """Reads a share of the raw stream in pieces of 1 MiB; each thread its own half."""

    def run(number: int) -> None:
        for offset in range(first + number * size, first + (number + 1) * size, MIB):
            state.memory.read_raw(offset, MIB)

    return run


def sequential_results() -> Iterator[Result]:
    """Against positioned reads of the same bytes in the same pieces."""
    path = plain_state()
    with vmsavedstate.open(path) as state:
        assert state.store is not None
        offsets = [state.store[f"/savedstate/RamBlock{number}"].value_offset for number in range(SIZE // MIB)]
        descriptor = os.open(path, os.O_RDONLY)

        def direct() -> None:
            for offset in offsets:
                os.pread(descriptor, MIB, offset)

        half = SIZE // 2
        whole, halves = partial(sequential(state, 0, SIZE), 0), on_threads(2, sequential(state, 0, half))
        rounds = [in_turns(1, whole, direct, halves) for _ in range(15)]
        os.close(descriptor)
        ours, theirs = min(row[0] for row in rounds), min(row[1] for row in rounds)
        rate = SIZE / ours / 1e6
        scale = median(one / two for one, _, two in rounds)
        yield Result(
            f"plain blocks in sequence ({rate:.0f} MB/s) against os.pread", theirs / ours, "x", 0.8, at_least=True
        )
        yield Result("plain blocks in sequence, two threads against one (median)", scale, "x", 1.5, at_least=True)


def cold_results() -> Iterator[Result]:
    """Every read on a freshly opened state, so that no cache helps."""
    path = packed_state()
    chance = random.Random(3)

    def opened() -> SavedState:
        return vmsavedstate.open(path)

    states = [opened() for _ in range(2 * BLOCKS)]
    fresh = iter(states)

    def one_page() -> None:
        next(fresh).memory.read(chance.randrange(256) * 4096, 4096)

    def whole_block() -> None:
        next(fresh).memory.read(0, MIB)

    codec.active()  # not the choice of the codec is measured
    page, block = in_turns(BLOCKS, one_page, whole_block)
    yield Result(
        "one cold page of 256 XPRESS pages, times faster than the block",
        block / page,
        "x",
        20,
        at_least=True,
    )
    with opened() as state:
        half = BLOCKS // 2 * MIB
        whole, halves = partial(sequential(state, 0, BLOCKS * MIB), 0), on_threads(2, sequential(state, 0, half))
        scale = median(one / two for one, two in (in_turns(1, whole, halves) for _ in range(15)))
        yield Result("decoding through the API, two threads against one (median)", scale, "x", 1.5, at_least=True)


def run() -> Iterator[Result]:
    """All of it."""
    yield from sequential_results()
    yield from cold_results()
