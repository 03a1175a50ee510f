"""Reading many pages at once into one array: the primitive under scans and vectorised translation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import GuestMemoryError
from ..snapshot import PAGE_SIZE, MemoryRange, PageBacking
from .arrays import as_uint64

MAX_RUN = 256  # pages per read of the backing: one block


def read_pages(
    ranges: Sequence[MemoryRange],
    backing: PageBacking,
    page_numbers: Sequence[int] | npt.NDArray[np.uint64],
    *,
    strict: bool,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """See ``GuestPhysicalMemory.pages``; ``ranges`` ascend by guest page.

    Sorts the pages so that neighbours in the file are read together. ``strict`` raises for lost pages, not for holes.
    """
    wanted = as_uint64(page_numbers, "page numbers").reshape(-1)
    starts = np.array([item.start_page for item in ranges], dtype=np.uint64)
    counts = np.array([item.page_count for item in ranges], dtype=np.uint64)
    places = np.array([item.backing_page for item in ranges], dtype=np.uint64)
    index = np.searchsorted(starts, wanted, side="right") - 1
    inside = wanted - starts[index]  # before the first range index is -1 and the difference wraps: large, so masked
    mask = (index >= 0) & (inside < counts[index])
    pages = np.zeros((len(wanted), PAGE_SIZE), dtype=np.uint8)
    rows = np.flatnonzero(mask)
    positions = (places[index] + inside)[rows]
    order = np.argsort(positions, kind="stable")
    rows, positions = rows[order], positions[order]
    # A run is a stretch of consecutive backing pages; repeats of a page are copied from its first row.
    distinct, first_of = np.unique(positions, return_index=True)
    breaks = np.flatnonzero(np.diff(distinct) != 1) + 1
    for run in np.split(np.arange(len(distinct)), breaks):
        for at in range(0, len(run), MAX_RUN):
            _read_run(backing, distinct, first_of, run[at : at + MAX_RUN], rows, pages, mask)
    if strict:
        lost = rows[first_of][~mask[rows[first_of]]]
        if len(lost):
            start = int(wanted[lost].min()) * PAGE_SIZE
            message = f"{len(lost)} of the pages cannot be read, the first at guest physical address {start:#x}"
            raise GuestMemoryError(message, start=start, end=start + PAGE_SIZE, reason="damaged")
    repeats = np.setdiff1d(np.arange(len(rows)), first_of, assume_unique=True)
    source = rows[first_of[np.searchsorted(distinct, positions[repeats])]]
    pages[rows[repeats]] = pages[source]
    mask[rows[repeats]] = mask[source]
    return pages, mask


def _read_run(
    backing: PageBacking,
    distinct: npt.NDArray[np.uint64],
    first_of: npt.NDArray[np.intp],
    run: npt.NDArray[np.intp],
    rows: npt.NDArray[np.intp],
    pages: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_],
) -> None:
    """Read one run of backing pages and put them into their rows."""
    if not len(run):
        return
    start = int(distinct[run[0]]) * PAGE_SIZE
    data, lost = backing.read(start, len(run) * PAGE_SIZE)
    targets = rows[first_of[run]]
    pages[targets] = np.frombuffer(data, dtype=np.uint8).reshape(-1, PAGE_SIZE)
    for item in lost:
        low = max(0, (item.start - start) // PAGE_SIZE)
        high = min(len(run), -(-(item.end - start) // PAGE_SIZE))
        bad = targets[low:high] if low < high else targets[:0]
        mask[bad] = False
        pages[bad] = 0
