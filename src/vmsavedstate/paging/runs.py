"""Runs of virtual addresses, as single ones and as arrays, and tables that are lost: what every enumeration yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import GuestMemoryError
from ..vocabulary import Reason
from .access import Access
from .vectors import Addresses

RIGHTS = {number: Access(number) for number in range(64)}


class MappedRun(NamedTuple):
    """A maximal run of virtual addresses whose pages lie one after another in physical memory, with the same rights.

    ``gva``, ``gpa`` and ``size`` in bytes. The physical addresses may lie outside of the saved memory (devices).
    """

    gva: int
    gpa: int
    size: int
    access: Access

    @property
    def start(self) -> int:
        """First guest virtual address, bytes."""
        return self.gva

    @property
    def end(self) -> int:
        """The guest virtual address behind the last byte."""
        return self.gva + self.size

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON has it."""
        return {
            "gva": hex(self.gva), "gpa": hex(self.gpa), "size": self.size,
            "kernel": self.access.kernel, "user": self.access.user,
        }  # fmt: skip


class MappedRegion(NamedTuple):
    """A maximal range of virtual addresses that are mapped with the same rights, wherever in physical memory.

    ``gva`` and ``size`` in bytes.
    """

    gva: int
    size: int
    access: Access

    @property
    def start(self) -> int:
        """First guest virtual address, bytes."""
        return self.gva

    @property
    def end(self) -> int:
        """The guest virtual address behind the last byte."""
        return self.gva + self.size

    def to_dict(self) -> dict[str, Any]:
        """The region as JSON has it."""
        return {
            "gva": hex(self.gva), "size": self.size, "kernel": self.access.kernel, "user": self.access.user,
        }  # fmt: skip


class LostTable(NamedTuple):
    """A page table that cannot be read: what it maps from ``gva`` on, at most ``size`` bytes, is not known.

    ``table`` is its guest physical address, ``reason`` ``hole`` (outside of the saved memory: the processor would find
    a device or nothing), ``missing`` or ``damaged``.
    """

    gva: int
    size: int
    table: int
    reason: Reason

    @property
    def start(self) -> int:
        """First guest virtual address, bytes."""
        return self.gva

    @property
    def end(self) -> int:
        """The guest virtual address behind the last byte."""
        return self.gva + self.size

    def to_dict(self) -> dict[str, Any]:
        """The lost table as JSON has it."""
        return {"gva": hex(self.gva), "size": self.size, "table": hex(self.table), "reason": self.reason}


class Runs(NamedTuple):
    """Runs as arrays of the same length: addresses and sizes in bytes, rights as integers of :class:`Access`."""

    gva: Addresses
    gpa: Addresses
    size: Addresses
    access: Addresses

    def __len__(self) -> int:
        """The number of runs, not of arrays."""
        return len(self.gva)

    def take(self, which: slice | npt.NDArray[Any]) -> Runs:
        """Some of them, in the order of ``which``."""
        return Runs(self.gva[which], self.gpa[which], self.size[which], self.access[which])

    def cut(self, start: int, end: int) -> Runs:
        """Only what lies between two addresses (``end`` excluded)."""
        first = np.maximum(self.gva, np.uint64(start))
        last = np.minimum(self.gva + (self.size - np.uint64(1)), np.uint64(end - 1))
        kept = first <= last
        inside = Runs(first, self.gpa + (first - self.gva), last - first + np.uint64(1), self.access)
        return inside.take(kept)

    def merged(self, *, by_rights: bool = False) -> Runs:
        """The same with neighbours joined; ``by_rights`` wherever they are in physical memory."""
        if len(self) < 2:
            return self
        touching = (self.gva[1:] == self.gva[:-1] + self.size[:-1]) & (self.access[1:] == self.access[:-1])
        if not by_rights:
            touching &= self.gpa[1:] == self.gpa[:-1] + self.size[:-1]
        firsts = np.flatnonzero(np.concatenate(([True], ~touching)))
        return Runs(self.gva[firsts], self.gpa[firsts], np.add.reduceat(self.size, firsts), self.access[firsts])


LostCallback = Callable[[LostTable], object]


def mapped_runs(batches: Iterator[Runs]) -> Iterator[MappedRun]:
    """Batches of runs as single ones, joined also across batches."""
    pending: MappedRun | None = None
    for batch in batches:
        columns = (batch.gva.tolist(), batch.gpa.tolist(), batch.size.tolist(), batch.access.tolist())
        runs = list(map(MappedRun, *columns[:3], map(RIGHTS.__getitem__, columns[3])))
        if not runs:
            continue
        if pending is not None:
            first = runs[0]
            if (
                pending.gva + pending.size == first.gva
                and pending.gpa + pending.size == first.gpa
                and pending.access == first.access
            ):
                runs[0] = MappedRun(pending.gva, pending.gpa, pending.size + first.size, pending.access)
            else:
                yield pending
        pending = runs.pop()
        yield from runs
    if pending is not None:
        yield pending


def mapped_regions(batches: Iterator[Runs]) -> Iterator[MappedRegion]:
    """Batches of runs as regions, joined also across batches."""
    pending: MappedRegion | None = None
    for batch in batches:
        joined = batch.merged(by_rights=True)
        columns = (joined.gva.tolist(), joined.size.tolist(), map(RIGHTS.__getitem__, joined.access.tolist()))
        for region in map(MappedRegion, *columns):
            if pending is not None and pending.end == region.gva and pending.access == region.access:
                pending = pending._replace(size=pending.size + region.size)
                continue
            if pending is not None:
                yield pending
            pending = region
    if pending is not None:
        yield pending


def lost_table(table: int, gva: int, error: GuestMemoryError) -> GuestMemoryError:
    """The error of a page of a table, as one of the table."""
    lost = GuestMemoryError(
        f"the page table at {table:#x}, for guest virtual addresses from {gva:#x} on, cannot be read: {error.message}",
        start=error.start, end=error.end, reason=error.reason, file=error.file,
    )  # fmt: skip
    lost.remedy = "with `lost`, and without strict mode, such tables are reported and the rest is listed"
    return lost
