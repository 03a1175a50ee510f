"""Translation, enumeration, virtual reads and search on a real guest, against Volatility and kdmp-parser.

The answers are compared first, then the time is taken. "Cold" is a state that was opened a moment ago, "warm" the same one
again, and so for the peers; plain and compressed stand for how the state keeps its memory.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vmsavedstate
from vmsavedstate import PageNotMapped, SavedState, VirtualProcessor

from .guest import Guest, guest
from .measure import Result, in_turns
from .peers import LOW_48, kdmp, volatility_layer

PAGES = 128 << 10
SOME = 4096  # of the pages where a peer takes long
READS = 20_000
ROUNDS = 5
PEER_ROUNDS = 3
Addresses = npt.NDArray[np.uint64]


def run() -> Iterator[Result]:
    """All of it; nothing without QEMU."""
    made = guest()
    if made is None:
        return
    layer, dump = volatility_layer(made.flat, made.root), kdmp(made.crash_dump)
    with vmsavedstate.open(made.plain) as state:
        addresses = distinct_pages(state)
    with silenced():  # kdmp-parser prints each address that is not mapped
        compare(made, layer, dump, addresses)
    yield from singles(made, addresses)
    yield from batches(made, addresses)
    yield from enumeration(made)
    yield from reads(made, addresses)
    yield from search(made)


@contextmanager
def silenced() -> Iterator[None]:
    """Nothing that a peer prints gets out."""
    sys.stdout.flush()
    kept, away = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(away, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(away)


def distinct_pages(state: SavedState) -> Addresses:
    """128 Ki addresses in as many mapped pages of the saved memory, in random order."""
    vp = state.processors[0]
    parts = [
        np.arange(part.gpa - run.gpa + run.gva, part.gpa - run.gpa + run.gva + part.size, 4096, dtype=np.uint64)
        for run in vp.mappings()
        for part in state.memory.runs(run.gpa, run.size)
        if part.position is not None
    ]
    generator = np.random.default_rng(1)
    chosen = generator.permutation(np.concatenate(parts))[:PAGES]
    assert len(chosen) == PAGES
    picked: Addresses = chosen | generator.integers(0, 4096, PAGES, dtype=np.uint64)
    return picked


def compare(made: Guest, layer: Any, dump: Any, addresses: Addresses) -> None:
    """The same answers from everybody, mapped and unmapped."""
    chance = random.Random(2)
    nonsense = [chance.getrandbits(bits) for bits in (30, 47, 48) for _ in range(300)]
    for path in (made.plain, made.packed):
        with vmsavedstate.open(path) as state:
            vp = state.processors[0]
            found, there = vp.translate_many(addresses)
            assert there.all()
            for gva, gpa in zip(addresses.tolist()[:SOME], found.tolist(), strict=False):
                assert vp.translate(gva) == gpa == dump.translate_virtual(gva) == layer.translate(gva & LOW_48)[0]
            for gva in nonsense:
                canonical = gva | (~LOW_48 & (1 << 64) - 1 if gva >> 47 & 1 else 0)
                ours = mapped_or_none(vp, canonical)
                assert (ours is not None) == layer.is_valid(gva) and ours == (dump.translate_virtual(canonical) or None)
            for gva in addresses.tolist()[:200]:
                page = gva & ~0xFFF
                assert vp.read(page, 4096) == layer.read(page & LOW_48, 4096)


def mapped_or_none(vp: VirtualProcessor, gva: int) -> int | None:
    """The translation, None where there is none or where it leads out of the saved memory."""
    try:
        return vp.translate(gva)
    except PageNotMapped:
        return None


def cold_and_warm(
    path: Path, action: Callable[[VirtualProcessor], object], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Best seconds of ``action`` on a fresh state, and on the same state again."""
    cold = warm = float("inf")
    for _ in range(rounds):
        with vmsavedstate.open(path) as state:
            vp = state.processors[0]
            cold = min(cold, timed(action, vp))
            warm = min(warm, timed(action, vp))
    return cold, warm


def timed(action: Callable[[Any], object], argument: Any) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    action(argument)
    return time.perf_counter() - start


def both(made: Guest) -> Iterator[tuple[str, Path]]:
    """The two states and their names."""
    yield "plain", made.plain
    yield "compressed", made.packed


def peer_cold_and_warm(opened: Callable[[], Any], action: Callable[[Any], object]) -> tuple[float, float]:
    """The same for a peer: best seconds of ``action`` on what has just been opened, and on the same again."""
    rows = []
    for _ in range(PEER_ROUNDS):
        peer = opened()
        rows.append((timed(action, peer), timed(action, peer)))
    return min(row[0] for row in rows), min(row[1] for row in rows)


def against(
    what: str,
    made: Guest,
    action: Callable[[VirtualProcessor], object],
    peers: dict[str, tuple[float, float]],
    limits: dict[str, float],
    count: int,
) -> Iterator[Result]:
    """Lines for both states, cold and warm, each against the peers' own cold and warm times; ``count`` per call."""
    for name, path in both(made):
        times = cold_and_warm(path, action, 2 * ROUNDS)
        for number, how in enumerate(("cold", "warm")):
            for peer, seconds in peers.items():
                rates = f"{_rate(count / times[number])} against {_rate(count / seconds[number])} of {peer}"
                yield Result(
                    f"{what}, {name}, {how}: {rates}", seconds[number] / times[number], "x", limits.get(peer, 0), True
                )


def _rate(number: float) -> str:
    for size, unit in ((1e6, "M/s"), (1e3, "k/s")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.1f}/s"


def singles(made: Guest, addresses: Addresses) -> Iterator[Result]:
    """One address after another."""
    listed = addresses.tolist()
    low = [gva & LOW_48 for gva in listed]
    peers = {
        "Volatility": peer_cold_and_warm(
            lambda: volatility_layer(made.flat, made.root), lambda layer: one_by_one(layer.translate, low)
        ),
        "kdmp-parser": kdmp_times(made, listed),
    }
    yield from against("translate", made, lambda vp: one_by_one(vp.translate, listed), peers, {"Volatility": 20}, PAGES)


def one_by_one(call: Callable[[int], object], values: list[int]) -> None:
    """Call with each value."""
    for value in values:
        call(value)


def kdmp_times(made: Guest, listed: list[int]) -> tuple[float, float]:
    """kdmp-parser's seconds for all addresses; it has no call for many, so they serve for both comparisons."""
    return peer_cold_and_warm(lambda: kdmp(made.crash_dump), lambda dump: one_by_one(dump.translate_virtual, listed))


def batches(made: Guest, addresses: Addresses) -> Iterator[Result]:
    """All addresses at once."""
    peers = {"kdmp-parser": kdmp_times(made, addresses.tolist())}
    limits = {"kdmp-parser": 3.0}
    yield from against("translate_many", made, lambda vp: vp.translate_many(addresses), peers, limits, PAGES)


def enumeration(made: Guest) -> Iterator[Result]:
    """Every mapping of the guest; the rate is that of whole enumerations."""

    def theirs(layer: Any) -> int:
        return sum(item[1] for item in layer.mapping(0, LOW_48, ignore_errors=True))

    peers = {"Volatility": peer_cold_and_warm(lambda: volatility_layer(made.flat, made.root), theirs)}
    yield from against("mappings", made, lambda vp: list(vp.mappings()), peers, {"Volatility": 100}, 1)


def reads(made: Guest, addresses: Addresses) -> Iterator[Result]:
    """Scattered reads of one page each."""
    pages = [gva & ~0xFFF for gva in addresses.tolist()[:READS]]

    def ours(vp: VirtualProcessor) -> None:
        for gva in pages:
            vp.read(gva, 4096)

    def theirs(layer: Any) -> None:
        for gva in pages:
            layer.read(gva & LOW_48, 4096)

    peers = {"Volatility": peer_cold_and_warm(lambda: volatility_layer(made.flat, made.root), theirs)}
    yield from against("scattered 4 KiB reads", made, ours, peers, {"Volatility": 5}, READS)


def search(made: Guest) -> Iterator[Result]:
    """Finding bytes that are not there, against ``bytes.find`` over the same blocks read from the file."""
    needle = b"\x7fno such bytes in the guest\x80"
    with vmsavedstate.open(made.plain) as state, open(made.plain, "rb", buffering=0) as stream:
        assert state.store is not None
        entries = [item for item in state.store.walk() if item.name.startswith("RamBlock") and item.size == 1 << 20]

        def direct() -> None:
            for entry in entries:
                stream.seek(entry.value_offset)
                assert stream.read(entry.size).find(needle) < 0

        rounds = [in_turns(1, lambda: list(state.memory.find(needle)), direct) for _ in range(3 * ROUNDS)]
        own, other = min(row[0] for row in rounds), min(row[1] for row in rounds)
        size = state.memory.size
        text = (
            f"find, plain ({size / own / 1e6:,.0f} MB/s), against bytes.find over the file ({size / other / 1e6:,.0f})"
        )
        yield Result(text, other / own, "x", 0.8, True)
    for name, path in both(made):
        times = cold_and_warm(path, lambda vp: list(vp.find(needle)))
        for how, seconds in zip(("cold", "warm"), times, strict=True):
            yield figure(f"find in virtual memory, {name}, {how}", seconds, "s")
    with vmsavedstate.open(made.packed) as state:
        (seconds,) = in_turns(3, lambda: list(state.memory.find(needle)))
        yield figure("find, compressed", state.memory.size / seconds / 1e6, "MB/s")


def figure(what: str, value: float, unit: str) -> Result:
    """A line without a limit."""
    return Result(what, value, unit, 0, True)
