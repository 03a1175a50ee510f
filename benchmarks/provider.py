"""The C library from a C program, against the Python API: large reads, small calls, the first call."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import vmsavedstate
from vmsavedstate import provider
from vmsavedstate.errors import LibraryBuildError
from vmsavedstate.provider.library.build import build

from .measure import DATA, Result, in_turns
from .reads import packed_state, plain_state

PIECE = 16 << 20
ROUNDS, PASSES = 7, 5
CALLS = 20_000
SAMPLE = Path(__file__).parents[1] / "examples" / "sample-guest.vmrs"
MAPPED = "0xffffffff80100700"  # through four levels of tables, in compressed pages


def program() -> Path | None:
    """The measuring program, built against the library of this moment; None where there is no compiler."""
    folder = DATA / "library"
    try:
        build(folder)
    except LibraryBuildError as error:
        print(f"the C library is not measured: {error}")
        return None
    source, target = Path(__file__).parent / "calls.c", folder / "calls"
    compiler = os.environ.get("CC", "cc")
    flags = [f"-I{folder}/include", f"-L{folder}/lib", f"-Wl,-rpath,{folder}/lib", "-lvmsavedstatedumpprovider"]
    subprocess.run([compiler, "-O2", str(source), "-o", str(target), *flags], check=True)
    return target


def measured(calls: Path, state: Path, *address: str) -> dict[str, float]:
    """What one run of the program says, seconds."""
    answer = subprocess.run([calls, state, *address], capture_output=True, text=True, check=True).stdout
    return {name: float(value) for name, value in (line.split() for line in answer.splitlines())}


def python_calls(path: Path) -> dict[str, float]:
    """Seconds of the same calls to the Python functions."""
    handle = provider.LoadSavedStateFile(path)

    def counts() -> None:
        for _ in range(CALLS):
            provider.GetVpCount(handle)

    def eights() -> None:
        for number in range(CALLS):
            provider.ReadGuestPhysicalAddress(handle, number % 64 * 4096, 8)

    count, eight = in_turns(3, counts, eights)
    provider.ReleaseSavedStateFiles(handle)
    return {"count": count / CALLS, "eight": eight / CALLS}


def large_reads(calls: Path, path: Path, kind: str) -> Result:
    """16 MiB at a time into one buffer, program and API in turns."""
    best_c = best_python = float("inf")
    buffer = bytearray(PIECE)
    for _ in range(ROUNDS):
        best_c = min(best_c, measured(calls, path)["large"])
        with vmsavedstate.open(path) as state:
            size = state.memory.size
            state.memory.read_into(0, buffer)
            for _ in range(PASSES):
                start = time.perf_counter()
                for address in range(0, size, PIECE):
                    state.memory.read_into(address, buffer)
                best_python = min(best_python, time.perf_counter() - start)
    what = f"C library: 16 MiB reads, {kind} ({size / best_c / 1e6:,.0f} MB/s), against the Python API"
    return Result(what, best_python / best_c, "x", 0.9, at_least=True)


def run() -> Iterator[Result]:
    """All of it."""
    calls = program()
    if calls is None:
        return
    yield large_reads(calls, plain_state(), "plain")
    yield large_reads(calls, packed_state(), "compressed")
    runs = [measured(calls, plain_state()) for _ in range(ROUNDS)]
    best = {name: min(row[name] for row in runs) for name in runs[0]}
    python = python_calls(plain_state())
    for name, what in (("count", "GetVpCount"), ("eight", "a read of 8 bytes")):
        text = f"C library: {what} ({best[name] * 1e6:.1f} us), times the Python function"
        yield Result(text, best[name] / python[name], "x", 8, at_least=False)
    first = [measured(calls, SAMPLE, MAPPED) for _ in range(ROUNDS)]
    best["translation"] = min(row["translation"] for row in first)
    for name, what, modules, limit in (
        ("start", "the first call", "vmsavedstate.provider.library.calls, vmsavedstate.state", 1.5),
        ("translation", "the first translation", "numpy", 0.1),  # which it does without
    ):
        command = [sys.executable, "-I", "-c", f"import {modules}"]
        (bare,) = in_turns(ROUNDS, partial(subprocess.run, command, check=True))
        text = f"C library: {what} ({best[name] * 1e3:.2f} ms), times a bare Python that imports {modules}"
        yield Result(text, best[name] / bare, "x", limit, at_least=False)
