"""Decoding XPRESS pages of real memory: the extension on one and on two threads, and the fallback in Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import vmsavedstate
from vmsavedstate import codec
from vmsavedstate.codec import PAGE, SEGMENT, tokens

from .measure import Result, in_turns, on_processes, on_threads, sample

BATCH = 256  # pages decoded per call, as a whole block is
TWIN_PAGES = 600


def stored_pages(path: Path) -> list[bytes]:
    """The payloads of all XPRESS pages of a state whose blocks are compressed."""
    payloads = []
    fallback = codec.select("python")
    with vmsavedstate.open_store(path) as store:
        for entry in store.walk():
            if entry.name.startswith("RamBlock") and entry.type == "array":
                data = entry.read()
                segments = fallback.scan(data, 0, 0, 0, len(data), codec.BLOCK)[0]
                for _, size, kind, at, stored in SEGMENT.iter_unpack(segments):
                    if kind == tokens.XPRESS and size == PAGE:
                        payloads.append(data[at : at + stored])
    return payloads


def encoded_pages(memory: bytes) -> list[bytes]:
    """The payloads that the pages of a guest get which are neither uniform nor incompressible."""
    serving = codec.active()
    payloads = []
    for at in range(0, len(memory), PAGE):
        page = memory[at : at + PAGE]
        if page != page[:8] * (PAGE // 8):
            packed = serving.xpress_encode(page)
            if len(packed) < PAGE:
                payloads.append(packed)
    return payloads


def guest_memory() -> tuple[str, bytes] | None:
    """Memory of a real guest: a raw file that ``VMSAVEDSTATE_BENCH_GUEST`` names, else U-Boot of the samples."""
    raw = os.environ.get("VMSAVEDSTATE_BENCH_GUEST")
    if raw:
        return Path(raw).name, Path(raw).read_bytes()
    path = sample("guest-uboot64.vmrs")
    if path is None:
        return None
    with vmsavedstate.open(path) as state:
        return "U-Boot guest", state.memory.read_raw(0, state.memory.size)


def batches(payloads: list[bytes]) -> list[tuple[bytes, bytes, int]]:
    """(data, segments, output size) of runs of pages, as blocks hold them."""
    result = []
    for first in range(0, len(payloads), BATCH):
        some = payloads[first : first + BATCH]
        data, segments = b"", b""
        for number, payload in enumerate(some):
            segments += SEGMENT.pack(number * PAGE, PAGE, tokens.XPRESS, len(data), len(payload))
            data += payload
        result.append((data, segments, len(some) * PAGE))
    return result


def measure(name: str, payloads: list[bytes]) -> Iterator[Result]:
    """Three lines for one set of pages."""
    if codec.extension_is_built():
        extension = codec.select("rust")
        work = batches(payloads)
        size = sum(out for _, _, out in work)
        repeats = max(1, (256 << 20) // size)

        def decode(_number: int = 0) -> None:
            for _ in range(repeats):
                for data, segments, out in work:
                    _, bad = extension.decode(data, 0, segments, 0, out)
                    assert not bad

        rounds = [in_turns(1, decode, on_threads(2, decode), on_processes(2, decode)) for _ in range(9)]
        best, scale = min(row[0] for row in rounds), median(2 * one / two for one, two, _ in rounds)
        machine = median(2 * one / both for one, _, both in rounds)
        yield Result(f"kernel, {name}, one thread", size * repeats / best / 1e6, "MB/s", 800, at_least=True)
        yield Result(f"kernel, {name}, two threads against one (median)", scale, "x", 1.8, at_least=True)
        yield Result(
            "    the same of two processes: what the machine gives at the moment", machine, "x", 0, at_least=True
        )
    fallback = codec.select("python")
    step = max(1, len(payloads) // TWIN_PAGES)
    some = payloads[::step]
    (seconds,) = in_turns(3, lambda: [fallback.xpress_decode(payload, PAGE) for payload in some])
    yield Result(
        f"Python fallback, {name} ({len(some)} pages)", len(some) * PAGE / seconds / 1e6, "MB/s", 15, at_least=True
    )


def run() -> Iterator[Result]:
    """The real state and a real guest."""
    real = sample("no-os-252mib.vmrs")
    if real is not None:
        yield from measure("XPRESS pages of the real state", stored_pages(real))
    guest = guest_memory()
    if guest is not None:
        yield from measure(f"XPRESS pages of {guest[0]}", encoded_pages(guest[1]))
