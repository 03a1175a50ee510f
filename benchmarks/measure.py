"""Timing in turns, child processes with their peak memory, and the table of results."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).parent / ".data"


class Result(NamedTuple):
    """One line of the table: what was measured, and whether the limit holds."""

    what: str
    value: float
    unit: str
    limit: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether the limit is kept."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        """The line."""
        bound = f"{'>=' if self.at_least else '<='} {self.limit:g}"
        return f"{'ok  ' if self.holds else 'MISS'}  {self.what:68} {self.value:10.2f} {self.unit:6} {bound}"


def in_turns(rounds: int, *actions: Callable[[], object]) -> list[float]:
    """Best time of each action in seconds; the actions take turns, so that a slow moment hits all."""
    best = [float("inf")] * len(actions)
    for _ in range(rounds):
        for index, action in enumerate(actions):
            start = time.perf_counter()
            action()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def on_threads(count: int, action: Callable[[int], object]) -> Callable[[], None]:
    """``action(number)`` on ``count`` threads at once; every thread does its own whole share."""

    def run() -> None:
        threads = [threading.Thread(target=action, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def on_processes(count: int, action: Callable[[int], object]) -> Callable[[], None]:
    """The same on ``count`` forked processes: what the machine itself gives to two of a kind at this moment."""
    fork = multiprocessing.get_context("fork")

    def run() -> None:
        children = [fork.Process(target=action, args=(number,)) for number in range(count)]
        for child in children:
            child.start()
        for child in children:
            child.join()

    return run


def process(command: Sequence[str | Path]) -> int:
    """Run a child, its output away; its peak memory in bytes."""
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command} failed with {child.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def sample(name: str) -> Path | None:
    """A real state, unpacked; None where the samples are not at hand."""
    import lzma

    folder = os.environ.get("VMSAVEDSTATE_SAMPLES")
    if not folder:
        return None
    plain, packed, unpacked = Path(folder, name), Path(folder, f"{name}.xz"), DATA / name
    if plain.exists():
        return plain
    if not unpacked.exists() and packed.exists():
        DATA.mkdir(exist_ok=True)
        unpacked.write_bytes(lzma.decompress(packed.read_bytes()))
    return unpacked if unpacked.exists() else None
