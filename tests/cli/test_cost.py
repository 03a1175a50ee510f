"""Small files whose cost was out of all proportion: every command stays within bounds of CPU time and memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.samples import Samples
from vmsavedstate import codec

CPU = 3 * 10.0  # seconds: three times what a quiet machine may take
MEMORY = 700 << 20
COMMANDS = (
    "info",
    "chunks",
    "regs",
    "keys",
    "screen",
    "verify",
    "maps --merge",
    "find --virtual evidence",
    "keys --json",
)
FILES = {
    "20-blocks-of-broken-bytes.vmrs": {"verify": 3.0},
    "1-gib-every-page-broken.vmrs": {"verify": 3.0},
    "8-000-keys-at-depth-250.vmcx": {"verify": 5.0},
    "type-is-512-mib.vmrs": {},
    "screen-1x33177600.vmrs": {"screen": 10.0},
    "100-000-bad-legacy-entries.vsv": {"keys": 5.0},
    "1-mib-mapped-262-144-times.vmrs": {},
}  # fmt: skip


# A process of its own between this one and the command: what a child used at most begins with what its parent had.
LAUNCHER = """
import json, os, resource, subprocess, sys
def limits():
    resource.setrlimit(resource.RLIMIT_AS, (4_000_000_000,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]),) * 2)
command = [sys.executable, "-c", "from vmsavedstate.cli.app import main; main()", *sys.argv[2:]]
done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=limits)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss << 10, done.stderr.decode("latin-1")]))
"""


def run(arguments: Sequence[str | Path]) -> tuple[int, float, int, str]:
    """(exit code, seconds of CPU, bytes of memory at most, stderr) of the command, in 4 GB of address space."""
    command = [sys.executable, "-c", LAUNCHER, str(int(CPU) + 5), *map(str, arguments)]
    code, seconds, memory, told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return code, seconds, memory, told


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits and figures of a process as Linux has them")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file(reports: Samples, name: str, command: str) -> None:
    first, *more = command.split()
    pattern = [more.pop()] if first == "find" else []
    code, seconds, memory, told = run([first, *more, reports(f"hostile/{name}"), *pattern])
    assert code in (0, 1), told[-500:]
    assert "this should not happen" not in told
    limit = FILES[name].get(command, CPU) if codec.extension() is not None else CPU  # the fallback decodes slower
    assert seconds < limit, f"{seconds} s"
    assert memory < MEMORY, f"{memory >> 20} MiB"


def test_the_measure_itself() -> None:
    """The limits reach the process, and what it used comes back."""
    code, seconds, memory, _ = run(["--version"])
    assert code == 0 and 0.01 < seconds < 10 and 5 << 20 < memory < MEMORY
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 4_000_000_000
