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
from .selection import Layout
from .vectors import ENTRIES, TILE_SHIFT, Addresses, Mask, follow, follow_one

MAX_TILES = 16384  # 64 MiB of page addresses, for 32 GiB of address space
PIECE = 16384  # addresses worked on at a time: what is needed for each stays in the processor's cache
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


class _Pool:
    """A generation of tiles: an array of them, and where the tile of a prefix (address >> 21) is.

    ``placed`` is prefix -> row for Python, ``table`` the same for arrays. Row 0 is empty and stands for
    every prefix under which nothing is mapped.
    """

    def __init__(self, rows: int) -> None:
        self.rows = np.zeros((rows, ENTRIES), dtype=np.uint64)
        self.used = 1
        self.placed: dict[int, int] = {}
        self._rehash(4 * rows)

    def add(self, prefixes: Addresses, tiles: Addresses) -> _Pool:
        """Put tiles in; the pool to use from now on, a larger one where this was full."""
        mapped = tiles.any(axis=1)
        pool = self
        count = int(mapped.sum())
        if self.used + count > len(self.rows):
            pool = _Pool(max(2 * len(self.rows), self.used + count))
            pool.rows[: self.used] = self.rows[: self.used]
            pool.used = self.used
            pool._place(list(self.placed), list(self.placed.values()))
        slots = np.zeros(len(prefixes), dtype=np.int64)
        slots[mapped] = np.arange(pool.used, pool.used + count)
        pool.rows[pool.used : pool.used + count] = tiles[mapped]
        pool.used += count
        pool._place(prefixes.tolist(), slots.tolist())
        return pool

    def _place(self, prefixes: list[int], slots: list[int]) -> None:
        for prefix, slot in zip(prefixes, slots, strict=True):
            self.placed[prefix] = slot
        if 3 * len(self.placed) > len(self.table.keys):
            self._rehash(8 * len(self.placed))
        else:
            self._enter(prefixes, slots)

    def _rehash(self, size: int) -> None:
        size = 1 << (size - 1).bit_length()
        self.table = _Table(
            np.full(size, _EMPTY, dtype=np.uint64), np.zeros(size, dtype=np.int64), np.uint64(65 - size.bit_length())
        )
        self._enter(list(self.placed), list(self.placed.values()))

    def _enter(self, prefixes: list[int], slots: list[int]) -> None:
        keys, rows, _ = self.table
        places = self.table.places(np.array(prefixes, dtype=np.uint64)).tolist()
        for prefix, slot, place in zip(prefixes, slots, places, strict=True):
            while int(keys[place]) not in (_EMPTY, prefix):
                place = (place + 1) % len(keys)
            rows[place] = slot
            keys[place] = prefix  # last: another thread finds either nothing or all

    def find(self, prefixes: Addresses) -> npt.NDArray[np.int64]:
        """The row of each prefix, -1 where it has not been looked at yet."""
        table = self.table
        keys, slots, _ = table
        places = table.places(prefixes)
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


class Tiles:
    """The tiles of one address space. Safe to use from several threads.

    ``views`` is filled with prefix (address >> 21) -> tile, for a reader that wants to look there first.
    """

    def __init__(
        self, memory: GuestPhysicalMemory, layout: Layout, views: dict[int, memoryview], *, limit: int = MAX_TILES
    ) -> None:
        self._memory = memory
        self._views = views
        self._layout = layout
        self._limit = limit
        self._lock = threading.Lock()
        self._pool = _Pool(64)

    def tile(self, gva: int) -> memoryview:
        """The tile that ``gva`` is in. Raises GuestMemoryError where a page table on the way cannot be read."""
        prefix = gva >> TILE_SHIFT
        with self._lock:
            pool = self._pool
            if prefix not in pool.placed:
                tiles = follow_one(self._memory, self._layout, gva)
                pool = self._put(np.array([prefix], dtype=np.uint64), tiles)
            view = self._views[prefix] = memoryview(pool.rows[pool.placed[prefix]])
            return view

    def translate(self, addresses: Addresses) -> tuple[Addresses, Mask]:
        """Guest physical addresses, and which of them are mapped; the others are 0."""
        answers = np.empty(len(addresses), dtype=np.uint64)
        mask = np.empty(len(addresses), dtype=np.bool_)
        for at in range(0, len(addresses), PIECE):
            piece = addresses[at : at + PIECE]
            pages = self._pages(piece)
            present = pages != 0
            pages += piece & 0xFFF
            pages -= 1
            if not present.all():
                pages *= present
            answers[at : at + PIECE] = pages
            mask[at : at + PIECE] = present
        return answers, mask

    def _pages(self, addresses: Addresses) -> Addresses:
        """The entry of each address: its page plus 1, or 0."""
        prefixes: Addresses = addresses >> np.uint64(TILE_SHIFT)
        pool = self._pool
        rows = pool.find(prefixes)
        if rows.size and int(rows.min()) < 0:
            with self._lock:
                missing: Addresses = np.unique(prefixes[rows < 0])
                if not self._fits(len(missing)):
                    missing = np.unique(prefixes)  # the pool is given up, with what had been found in it
                tiles, known = follow(self._memory, self._layout, missing << np.uint64(TILE_SHIFT))
                self._put(missing[known], tiles[known])
                pool = self._pool
            rows = np.maximum(pool.find(prefixes), 0)  # what cannot be read is not there
        rows <<= 9
        rows += (addresses >> 12 & 511).view(np.int64)
        return pool.rows.reshape(-1)[rows]

    def _fits(self, count: int) -> bool:
        return self._pool.used + count <= self._limit and len(self._pool.placed) <= 4 * self._limit

    def _put(self, prefixes: Addresses, tiles: Addresses) -> _Pool:
        """Keep tiles. Where there is no room a new pool begins: readers may still hold the old one, whose rows stay."""
        pool = self._pool if self._fits(len(prefixes)) else _Pool(max(64, len(prefixes) + 1))
        filled = pool.add(prefixes, tiles)
        if filled is not self._pool:  # the views would keep the old rows alive
            self._views.clear()
            self._pool = filled
        return filled
