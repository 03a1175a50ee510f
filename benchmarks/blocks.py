"""A loop over the blocks of a guest of 1 TiB: memory in use stays below 16 MiB for each worker, however large the guest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .measure import Result

TIB = 1 << 40
PER_WORKER = 16 << 20
PROGRAM = """
import sys, time
from vmsavedstate.memory import GuestPhysicalMemory
from vmsavedstate.snapshot import MemoryRange


class Backing:  # every byte of the guest is there, and each block is made anew as a decoder would
    def read(self, position, size):
        return b"Z" * size, ()

    def next_stored(self, position):
        return position


def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


size, workers = int(sys.argv[1]), int(sys.argv[2])
memory = GuestPhysicalMemory([MemoryRange(0, size >> 12, 0)], Backing())
before, begun, seen = peak(), time.perf_counter(), 0
for block in memory.blocks(workers=workers):
    seen += len(block.data)
assert seen == size
print(peak() - before, time.perf_counter() - begun)
"""


def run() -> Iterator[Result]:
    """Peak of resident memory while 1 TiB goes by, with one worker and with several."""
    if sys.platform != "linux":  # the peak is Linux's own count
        return
    for workers in (1, 4):
        command = [sys.executable, "-c", PROGRAM, str(TIB), str(workers)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        used, seconds = int(answer[0]) / 2**20, float(answer[1])
        what = f"1 TiB of blocks, workers={workers}: peak memory"
        yield Result(
            f"{what} ({TIB / seconds / 1e9:.1f} GB/s)", used, "MiB", workers * PER_WORKER / 2**20, at_least=False
        )
