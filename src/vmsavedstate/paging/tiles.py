"""Translations in tiles of 2 MiB: one small array of page addresses for each, whatever the form and its page sizes.

A tile is what the hot paths of one address and of many share. It holds 512 numbers of 64 bits, one per 4 KiB of
virtual address space: the guest physical address of the page plus 1, or 0 where nothing is mapped. So no form, granule
or page size is looked at twice. Guest memory does not change, so neither do tiles; the pool of them is bounded.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..memory import GuestPhysicalMemory
from .leaves import TILE_SHIFT
from .regime import Regime
from .vectors import ENTRIES, PAGE_SHIFT, Addresses, Mask, follow, follow_one

MAX_TILES = 16384  # 64 MiB of page addresses, for 32 GiB of address space
PIECE = 16384  # addresses worked on at a time: what is needed for each stays in the processor's cache
SPAN = 16 * PIECE  # addresses whose tiles are loaded together
_HASH = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = 1 << 63  # no prefix of an address is as large


class _Table(NamedTuple):
    """An open hash table from prefixes to rows; a prefix is at its place or in the next ones up to a free one."""

    keys: Addresses
    slots: npt.NDArray[np.int64]
    shift: np.uint64

    def places(self, prefixes: Addresses) -> npt.NDArray[np.int64]:
        places: npt.NDArray[np.int64] = ((prefixes * _HASH) >> self.shift).astype(np.int64)
        return places

    def find(self, prefixes: Addresses) -> npt.NDArray[np.int64]:
        """The row of each prefix, -1 where it has not been looked at yet."""
        keys, slots, _ = self
        places = self.places(prefixes)
        found, rows = keys[places], slots[places]
        rest = np.flatnonzero(found != prefixes)
        while len(rest):
            free = found[rest] == _EMPTY
            rows[rest[free]] = -1
            rest = rest[~free]
            places[rest] = (places[rest] + 1) % len(keys)
            found[rest] = keys[places[rest]]
            rows[rest] = slots[places[rest]]
            rest = rest[found[rest] != prefixes[rest]]
        return rows

    @classmethod
    def of(cls, size: int) -> _Table:
        """An empty one with room for ``size`` places."""
        size = 1 << (size - 1).bit_length()
        keys = np.full(size, _EMPTY, dtype=np.uint64)
        return cls(keys, np.zeros(size, dtype=np.int64), np.uint64(65 - size.bit_length()))

    def with_all(self, prefixes: Addresses, rows: npt.NDArray[np.int64]) -> _Table:
        """A copy with further prefixes, none of which is in it: readers of this one are not disturbed."""
        keys, slots = self.keys.copy(), self.slots.copy()
        places, rest = self.places(prefixes), np.arange(len(prefixes))
        while len(rest):
            at = places[rest]
            free = keys[at] == _EMPTY
            keys[at[free]] = prefixes[rest[free]]  # of several for one place the last one stays
            won = keys[at] == prefixes[rest]
            slots[at[won]] = rows[rest[won]]
            rest = rest[~won]
            places[rest] = (places[rest] + 1) % len(keys)
        return _Table(keys, slots, self.shift)


class _Pool:
    """A generation of tiles: an array of them, and a table of where the tile of a prefix (address >> 21) is.

    ``placed`` is all prefixes and their rows. Row 0 is empty and stands for every prefix under which nothing is mapped.
    """

    def __init__(self, rows: int) -> None:
        self.rows = np.zeros((rows, ENTRIES), dtype=np.uint64)
        self.used = 1
        self.placed: list[tuple[Addresses, npt.NDArray[np.int64]]] = []
        self.count = 0
        self.table = _Table.of(4 * rows)

    def with_room(self, count: int) -> _Pool:
        """This pool, or a larger copy, with ``count`` free rows, which are zero."""
        if self.used + count <= len(self.rows):
            return self
        pool = _Pool(max(2 * len(self.rows), self.used + count))
        pool.rows[: self.used] = self.rows[: self.used]
        pool.used, pool.count, pool.placed, pool.table = self.used, self.count, list(self.placed), self.table
        return pool

    def free(self, count: int) -> Addresses:
        """The next ``count`` free rows, to be filled; :meth:`keep` makes them part of the pool."""
        return self.rows[self.used : self.used + count]

    def keep(self, prefixes: Addresses, known: Mask) -> None:
        """Take in the tiles that stand in the free rows, one for each prefix; those that are not known are dropped.

        None of the prefixes is in the pool yet.
        """
        filled = self.free(len(prefixes))
        mapped = filled.any(axis=1) & known
        count = int(np.count_nonzero(mapped))
        if count < len(filled):  # close the ranks, and leave the rest zero
            filled[:count] = filled[mapped]
            filled[count:] = 0
        rows = np.zeros(len(prefixes), dtype=np.int64)
        rows[mapped] = np.arange(self.used, self.used + count)
        if not known.all():
            prefixes, rows = prefixes[known], rows[known]
        self.used += count
        self.placed.append((prefixes, rows))
        self.count += len(prefixes)
        if 3 * self.count > len(self.table.keys):
            everything = (np.concatenate(column) for column in zip(*self.placed, strict=True))
            self.table = _Table.of(8 * self.count).with_all(*everything)
        else:
            self.table = self.table.with_all(prefixes, rows)


class Tiles:
    """The tiles of one address space. Safe to use from several threads.

    ``views`` is filled with prefix (address >> 21) -> tile, by :meth:`tile` and for a reader that looks there first. Arrays
    of addresses have tiles of their own, in a pool.
    """

    def __init__(
        self, memory: GuestPhysicalMemory, regime: Regime, views: dict[int, memoryview], *, limit: int = MAX_TILES
    ) -> None:
        self._memory = memory
        self._views = views
        self._regime = regime
        self._limit = limit
        self._lock = threading.Lock()
        self._pool = _Pool(64)

    def tile(self, gva: int) -> memoryview:
        """The tile that ``gva`` is in. Raises GuestMemoryError where a page table on the way cannot be read."""
        if len(self._views) >= self._limit:
            self._views.clear()
        view = self._views[gva >> TILE_SHIFT] = follow_one(self._memory, self._regime, gva).data
        return view

    def translate(self, addresses: Addresses) -> tuple[Addresses, Mask]:
        """Guest physical addresses, and which of them are mapped; the others are 0."""
        answers = np.empty(len(addresses), dtype=np.uint64)
        mask = np.empty(len(addresses), dtype=np.bool_)
        for at in range(0, len(addresses), SPAN):
            span = slice(at, at + SPAN)
            self._translate_span(addresses[span], answers[span], mask[span])
        return answers, mask

    def _translate_span(self, addresses: Addresses, answers: Addresses, mask: Mask) -> None:
        """The same for at most SPAN addresses. Looks before it loads: mostly everything is there."""
        pool, checked = self._pool, False
        for at in range(0, len(addresses), PIECE):
            piece = slice(at, at + PIECE)
            prefixes = addresses[piece] >> np.uint64(TILE_SHIFT)
            rows = pool.table.find(prefixes)
            if not checked and int(rows.min()) < 0:
                loaded = self._loaded(addresses >> np.uint64(TILE_SHIFT))
                if loaded is None:  # too many tiles for one pool: piece by piece
                    for first in range(0, len(addresses), PIECE):
                        part = slice(first, first + PIECE)
                        self._translate_span(addresses[part], answers[part], mask[part])
                    return
                pool, checked = loaded, True
                rows = pool.table.find(prefixes)
            _answer(pool, rows, addresses[piece], answers[piece], mask[piece])

    def _loaded(self, prefixes: Addresses) -> _Pool | None:
        """A pool with all these tiles that can be read; None where they are more than one pool takes.

        The tiles of the first ones are loaded first: mostly they are those of all others too.
        """
        with self._lock:  # nobody gives up the pool between the two steps
            for part in (prefixes[:PIECE], prefixes):
                wanted = np.unique(_absent(self._pool, part))
                if not self._fits(len(wanted)):
                    wanted = np.unique(prefixes)  # the pool is given up, with what was in it
                    if len(wanted) > max(PIECE, self._limit):
                        return None
                if len(wanted):
                    pool = self._room(len(wanted))
                    rows = pool.free(len(wanted))
                    try:
                        known = follow(self._memory, self._regime, wanted << np.uint64(TILE_SHIFT), rows)
                    except BaseException:
                        rows[:] = 0  # free rows are zero: what was filled before the error must not show later
                        raise
                    pool.keep(wanted, known)
            return self._pool

    def _fits(self, count: int) -> bool:
        return self._pool.used + count <= self._limit and self._pool.count <= 4 * self._limit

    def _room(self, count: int) -> _Pool:
        """The pool with room for ``count`` tiles; a new one where the limit does not allow more.

        Readers may still hold the old one: its rows stay as they are.
        """
        pool = self._pool.with_room(count) if self._fits(count) else _Pool(max(64, count + 1))
        self._pool = pool
        return pool


def _absent(pool: _Pool, prefixes: Addresses) -> Addresses:
    """The prefixes that a pool does not have, with repeats."""
    pieces = [prefixes[at : at + PIECE] for at in range(0, len(prefixes), PIECE)]
    missing = [piece[pool.table.find(piece) < 0] for piece in pieces]
    return np.concatenate(missing) if missing else prefixes


def _answer(pool: _Pool, rows: npt.NDArray[np.int64], addresses: Addresses, answers: Addresses, mask: Mask) -> None:
    """Fill the answers to one piece; a tile that is not in the pool (-1) could not be read, so nothing is known there."""
    np.maximum(rows, 0, out=rows)
    rows <<= 9
    rows += (addresses >> np.uint64(PAGE_SHIFT) & np.uint64(ENTRIES - 1)).view(np.int64)
    np.take(pool.rows.reshape(-1), rows, out=answers)
    np.not_equal(answers, 0, out=mask)
    answers += addresses & np.uint64(0xFFF)
    answers -= np.uint64(1)
    if not mask.all():
        answers *= mask
