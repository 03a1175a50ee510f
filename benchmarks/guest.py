"""A real guest for the benchmarks: Linux with 1 GiB, frozen under QEMU, in the form that each side reads.

Made once, into ``.data``: a plain and a compressed saved state, the flat memory that Volatility takes, and a crash dump for
kdmp-parser (written here for that purpose alone: a full dump with the page-table root and nothing else of Windows).
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import vmsavedstate
from vmsavedstate import SavedState

from .measure import DATA

TESTS = Path(__file__).parent.parent / "tests"
STEP = 1 << 20
HEADER = 0x2000
RUNS_AT, TYPE_AT = 0x88, 0xF98
FULL_DUMP = 1


class Guest(NamedTuple):
    """The files of the guest, and the page-table root of processor 0."""

    plain: Path
    packed: Path
    flat: Path
    crash_dump: Path
    root: int


def guest() -> Guest | None:
    """The guest, made now if need be; None without QEMU."""
    plain, packed, flat, crash = (DATA / f"guest{ending}" for ending in (".vmrs", "-packed.vmrs", ".raw", ".dmp"))
    if not crash.exists():
        if shutil.which("qemu-system-x86_64") is None:
            return None
        DATA.mkdir(exist_ok=True)
        _boot(plain, packed)
        with vmsavedstate.open(plain) as state:
            _write_flat(state, flat)
            _write_crash_dump(state, crash)
    with vmsavedstate.open(plain) as state:
        return Guest(plain, packed, flat, crash, state.processors[0].registers.cr3 & ~0xFFF)


def _boot(plain: Path, packed: Path) -> None:
    sys.path.insert(0, str(TESTS))
    from guests.capture import Frozen
    from guests.compare import write_state
    from guests.kinds import KINDS, start

    kind = next(kind for kind in KINDS if kind.name == "long")._replace(memory=1 << 30)
    with tempfile.TemporaryDirectory() as work, start(kind, Path(work)) as machine:
        frozen = Frozen(machine, kind.processors, Path(work))
        for path, compress in ((plain, False), (packed, True)):
            path.unlink(missing_ok=True)
            write_state(frozen, path, compress=compress)


def _write_flat(state: SavedState, path: Path) -> None:
    """Physical memory at its addresses, with holes where there is none or only zeros."""
    with open(path, "wb") as out:
        for chunk in state.memory.chunks:
            for at in range(chunk.start, chunk.start + chunk.size, STEP):
                data = state.memory.read(at, min(STEP, chunk.start + chunk.size - at))
                if data.count(0) != len(data):
                    out.seek(at)
                    out.write(data)
        last = state.memory.chunks[-1]
        out.truncate(last.start + last.size)


def _write_crash_dump(state: SavedState, path: Path) -> None:
    header = bytearray(b"PAGE" * (HEADER // 4))
    struct.pack_into("<4s4sIIQ", header, 0, b"PAGE", b"DU64", 15, 19041, state.processors[0].registers.cr3)
    struct.pack_into("<II", header, 0x30, 0x8664, len(state.processors))
    chunks = state.memory.chunks
    struct.pack_into("<IIQ", header, RUNS_AT, len(chunks), 0, sum(chunk.page_count for chunk in chunks))
    for number, chunk in enumerate(chunks):
        struct.pack_into("<QQ", header, RUNS_AT + 16 + 16 * number, chunk.start_page, chunk.page_count)
    struct.pack_into("<I", header, TYPE_AT, FULL_DUMP)
    with open(f"{path}.partial", "wb") as out:
        out.write(header)
        for offset in range(0, state.memory.size, STEP):
            data = state.memory.read_raw(offset, STEP)
            if data.count(0) == len(data):
                out.seek(len(data), os.SEEK_CUR)
            else:
                out.write(data)
        out.truncate(HEADER + state.memory.size)
    os.replace(f"{path}.partial", path)
