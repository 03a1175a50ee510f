"""Translation without numpy: bounds, small trees, and processes in which numpy cannot be loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.tables import LONG, memory_of, placed, space_of, table
from vmsavedstate import PageNotMapped
from vmsavedstate.paging import leaves, sparing

RAM = [(0, 0x400000)]


def test_a_tree_smaller_than_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCR_EL1.T1SZ = 48: the upper half of ARM64 is 64 KiB, the last of its tile; the table has 16 entries."""
    monkeypatch.setattr(sparing, "without_numpy", lambda: True)
    tables = placed({0x1000: table({number: 0x10000 + (number << 12) | 0x403 for number in range(16)})})
    tcr = 16 | 48 << 16 | 2 << 30  # 4 KiB granules in both halves
    space = space_of(memory_of(tables, RAM), "arm64", sctlr_el1=1, tcr_el1=tcr, ttbr0_el1=0x2000, ttbr1_el1=0x1000)
    top = 1 << 64
    assert space.translate(top - 0x1000) == 0x1F000
    assert space.translate(top - 0x10000) == 0x10000
    for gva in (top - 0x11000, top - 0x200000, top - 0x20000):
        with pytest.raises(PageNotMapped):
            space.translate(gva)


def test_tables_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparing, "without_numpy", lambda: True)
    monkeypatch.setattr(leaves, "MAX_LEAVES", 3)
    directory = {number: number << 21 | 0x83 for number in range(100)}
    tables = placed({0x1000: table({0: 0x2003}), 0x2000: table({0: 0x3003}), 0x3000: table(directory)})
    space = space_of(memory_of(tables, RAM), **LONG, cr3=0x1000)
    assert [space.translate(number << 21) for number in range(100)] == [number << 21 for number in range(100)]
    assert len(space._leaves._known) <= 3


def test_what_was_read_without_numpy_goes_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = placed({0x1000: table({0: 0x2003}), 0x2000: table({0: 0x3003}), 0x3000: table({0: 0x83})})
    space = space_of(memory_of(tables, RAM), **LONG, cr3=0x1000)
    for without in (True, False):
        monkeypatch.setattr(sparing, "without_numpy", lambda without=without: without)
        assert space.translate(0x5010) == 0x5010
        assert ("_leaves" in vars(space)) == without


PROGRAM = """
import sys, vmsavedstate
{before}
vp = vmsavedstate.open({path!r}).processors[0]
for _ in range(2):
    assert [vp.translate(gva) for gva in range(0xFFFFFFFF80100000, 0xFFFFFFFF80110000)] == list(range(0x100000, 0x110000))
assert vp.read(0xFFFFFFFF80100700, 12) == b"VMSAVEDSTATE"
print(sys.modules.get("numpy") is not None)
"""
NO_ROOM = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
"""
BROKEN = """
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            raise RuntimeError("broken")
sys.meta_path.insert(0, Broken())
"""


@pytest.mark.parametrize(
    ("before", "loaded"),
    [("", True), ("sys.modules['numpy'] = None", False), (NO_ROOM, False), (BROKEN, False)],
    ids=["fine", "absent", "no room", "broken"],
)
def test_processes_with_and_without_numpy(sample_guest: Path, before: str, loaded: bool) -> None:
    """131,072 translations: numpy comes, or they go on without."""
    if before is NO_ROOM and not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    program = PROGRAM.format(before=before, path=str(sample_guest))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{loaded}\n", "")


def test_how_much_room_threads_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sparing.VARIABLE, "8")
    assert sparing.needed() == 9 * (64 << 20)
    monkeypatch.setenv(sparing.VARIABLE, "many")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert sparing.needed() == 4 * (64 << 20)
