"""``vmrs info`` of a 64 GiB state: a new process, the page cache warm, against a process of the peer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from vmsavedstate import SavedStateWriter

from .measure import DATA, Result, in_turns, process

GIB = 1 << 30
PEER = (
    "import sys; from dissect.hypervisor.descriptor.hyperv import HyperVFile; HyperVFile(open(sys.argv[1], 'rb')).root"
)


def large_state() -> Path:
    """65,536 plain blocks in a sparse file, memory in two ranges as with an MMIO gap."""
    path = DATA / "64GiB.vmrs"
    if not path.exists():
        DATA.mkdir(exist_ok=True)
        with SavedStateWriter(path) as writer:
            writer.add_processor(0, {"cr0": 0x80000011, "cr3": 0x1000, "cr4": 0x20, "efer": 0x500})
            for start, size in ((0, 7 * GIB // 2), (4 * GIB, 64 * GIB - 7 * GIB // 2)):
                writer.add_memory(start, size, lambda _, size: b"\1" * size, zero_runs=[(4096, size - 4096)])
    return path


def run() -> Iterator[Result]:
    """Seconds, peak memory, and the ratio to the peer."""
    path = large_state()
    vmrs: list[str | Path] = [Path(sys.executable).with_name("vmrs"), "info", path]
    peer: list[str | Path] = [sys.executable, "-c", PEER, path]
    memory: list[int] = []
    ours, theirs = in_turns(7, lambda: memory.append(process(vmrs)), lambda: process(peer))
    yield Result("vmrs info, 64 GiB: whole process", ours, "s", 0.5, at_least=False)
    yield Result("vmrs info, 64 GiB: peak memory", max(memory) / 1e6, "MB", 100, at_least=False)
    yield Result(
        "vmrs info, 64 GiB: times faster than dissect.hypervisor opens it", theirs / ours, "x", 7, at_least=True
    )
