"""Reading many pages at once into one array: the primitive under scans and vectorised translation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import GuestMemoryError
from ..snapshot import PAGE_SIZE, MemoryRange, PageBacking
from ..vocabulary import Reason
from .arrays import as_uint64

MAX_RUN = 256  # pages per read of the backing: one block

Numbers = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class PageReader:
    """Batches of guest pages over ``ranges``, which ascend by guest page."""

    def __init__(self, ranges: Sequence[MemoryRange], backing: PageBacking, *, strict: bool) -> None:
        self._backing = backing
        self._strict = strict
        self._starts, self._counts, self._places = (
            np.array([item[column] for item in ranges], dtype=np.uint64) for column in range(3)
        )

    def read(self, page_numbers: Sequence[int] | npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], Mask]:
        """See ``GuestPhysicalMemory.pages``. In strict mode lost pages raise GuestMemoryError, holes do not."""
        wanted = as_uint64(page_numbers, "page numbers").reshape(-1)
        positions, mask = self._locate(wanted)
        rows = None if mask.all() else np.flatnonzero(mask)
        distinct, inverse = _distinct(positions if rows is None else positions[rows])
        content = np.empty((len(distinct), PAGE_SIZE), dtype=np.uint8)
        lost, refused = self._fill(distinct, content)
        if lost:
            sound = np.ones(len(distinct), dtype=np.bool_)
            sound[lost] = False
            readable = sound if inverse is None else sound[inverse]
            mask[slice(None) if rows is None else rows] = readable
            if self._strict and refused:
                inside = slice(None) if rows is None else rows
                bad = np.isin(positions[inside], distinct[refused])
                self._refuse(wanted[inside][bad], positions[inside][bad])
        found = content if inverse is None else content[inverse]
        if rows is None:
            return found, mask
        pages = np.zeros((len(wanted), PAGE_SIZE), dtype=np.uint8)
        pages[rows] = found
        return pages, mask

    def _locate(self, wanted: Numbers) -> tuple[Numbers, Mask]:
        """The backing page of each guest page, and which of them are inside of a range."""
        if not len(self._starts):
            return wanted, np.zeros(len(wanted), dtype=np.bool_)
        index = np.searchsorted(self._starts, wanted, side="right") - 1
        inside = wanted - self._starts[index]  # before the first range index is -1 and the difference wraps
        mask: Mask = (index >= 0) & (inside < self._counts[index])
        return self._places[index] + inside, mask

    def _fill(self, distinct: Numbers, content: npt.NDArray[np.uint8]) -> tuple[list[int], list[int]]:
        """Read ascending backing pages into their rows; those that could not be read whole, which are zero.

        The second list has those of them that are more than a hole.
        """
        view = content.reshape(-1).data
        lost: list[int] = []
        refused: list[int] = []
        for first, stop in _runs(distinct):
            start = int(distinct[first]) * PAGE_SIZE
            for item in self._backing.read_into(start, view[first * PAGE_SIZE : stop * PAGE_SIZE]):
                low = first + max(0, (item.start - start) // PAGE_SIZE)
                high = min(stop, first - (start - item.end) // PAGE_SIZE)
                lost.extend(range(low, high))
                if item.reason != Reason.HOLE:
                    refused.extend(range(low, high))
        if lost:
            content[lost] = 0
        return lost, refused

    def _refuse(self, bad: Numbers, positions: Numbers) -> NoReturn:
        """Raise for pages that are lost, with what is known of the first."""
        first = int(bad.argmin())
        start = int(bad[first]) * PAGE_SIZE
        _, lost = self._backing.read(int(positions[first]) * PAGE_SIZE, PAGE_SIZE)
        worst = next((item for item in lost if item.reason != Reason.HOLE), None)
        reason, why, file = (worst.reason, worst.message, worst.file) if worst else (Reason.DAMAGED, "", None)
        message = f"{len(bad)} of the pages cannot be read, the first at guest physical address {start:#x}: {why}"
        raise GuestMemoryError(message, start=start, end=start + PAGE_SIZE, reason=reason, file=file)


def _distinct(positions: Numbers) -> tuple[Numbers, npt.NDArray[np.intp] | None]:
    """The positions ascending and without repeats, and where each of the given ones is; None where they are so already."""
    if len(positions) < 2 or bool((positions[1:] > positions[:-1]).all()):
        return positions, None
    distinct, inverse = np.unique(positions, return_inverse=True)
    return distinct, inverse.reshape(-1)


def _runs(distinct: Numbers) -> Iterator[tuple[int, int]]:
    """(first, stop) of the stretches of consecutive numbers, of at most one block each."""
    breaks = np.flatnonzero(distinct[1:] - distinct[:-1] != 1) + 1
    first = 0
    for stop in [*breaks.tolist(), len(distinct)]:
        for at in range(first, stop, MAX_RUN):
            yield at, min(at + MAX_RUN, stop)
        first = stop
