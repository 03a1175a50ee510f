"""The walk for many addresses at once: levels one after another, each for all addresses together.

Reads the same forms as :mod:`.walk`; the tests hold the two against each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..memory import GuestPhysicalMemory
from .forms import Denial, Field, Form, Level, Test
from .leaves import TILE, TILE_SHIFT, entries_of_tile, leaf_at
from .regime import Regime, Tree

ENTRIES = 512
PAGE_SHIFT = 12

Addresses = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_OFFSETS = np.arange(ENTRIES, dtype=np.uint64) << np.uint64(PAGE_SHIFT)
_PAGES = _OFFSETS + np.uint64(1)
_EMPTY = np.zeros(ENTRIES, dtype=np.uint64)


def assemble(entries: Addresses, fields: tuple[Field, ...]) -> Addresses:
    """The address whose parts stand in these fields of each entry."""
    address = np.zeros_like(entries)
    for mask, shift in fields:
        address |= (entries & np.uint64(mask)) << np.uint64(shift)
    return address


def passing(entries: Addresses, test: Test) -> Mask:
    """Which entries are of a kind."""
    result: Mask = (entries & np.uint64(test.mask)) == np.uint64(test.value)
    return result


def denied(entries: Addresses, rules: tuple[Denial, ...]) -> Addresses:
    """What each entry denies."""
    result = np.zeros_like(entries)
    for bit, what, when_clear in rules:
        found = entries >> np.uint64(bit) & np.uint64(1)
        result |= (found ^ np.uint64(when_clear)) * np.uint64(what)
    return result


def pages_of(form: Form, level: Level, entries: Addresses) -> tuple[Mask, Addresses]:
    """Which entries of a level map memory, and the guest physical address of each."""
    return _targets(form, passing(entries, level.is_page), assemble(entries, level.page))


def tables_of(form: Form, level: Level, entries: Addresses) -> tuple[Mask, Addresses]:
    """Which entries of a level point to a further table, and the guest physical address of each."""
    return _targets(form, passing(entries, level.is_table), assemble(entries, level.table))


def _targets(form: Form, mask: Mask, targets: Addresses) -> tuple[Mask, Addresses]:
    if form.address_bits < 52:
        mask = mask & (targets >> np.uint64(form.address_bits) == 0)
    return mask, targets


def entry_type(form: Form) -> np.dtype[np.unsignedinteger[npt.NBitBase]]:
    """The type of an entry in memory."""
    return np.dtype(f"<u{form.entry_size}")


def follow(memory: GuestPhysicalMemory, regime: Regime, starts: Addresses, tiles: Addresses) -> Mask:
    """Fill ``tiles``, of shape (n, 512) and all zero, with the tiles that begin at the n addresses ``starts``.

    An entry is a page's guest physical address plus 1, 0 where nothing is mapped. Returns which tiles could be looked up.
    In strict mode of the memory a table that cannot be read raises GuestMemoryError.
    """
    known = np.ones(len(starts), dtype=np.bool_)
    addresses = _normal(regime, starts)
    if not regime.trees:
        inside = np.flatnonzero(addresses < np.uint64(regime.identity))
        _fill_straight(tiles, inside, addresses[inside])
    for tree in regime.trees:
        first = np.uint64(tree.start & ~(TILE - 1))  # a tree may be smaller than a tile
        live = np.flatnonzero((addresses >= first) & (addresses <= np.uint64(tree.end - 1)))
        if len(live):
            _follow_tree(memory, tree, addresses, live, tiles, known)
    return known


def _fill_straight(tiles: Addresses, rows: npt.NDArray[np.intp], bases: Addresses) -> None:
    """Fill some rows with pages that follow each other from the physical address of each row on."""
    for row, base in zip(rows.tolist(), bases.tolist(), strict=True):
        np.add(_PAGES, np.uint64(base), out=tiles[row])  # row by row: a temporary array of all would cost more


def _normal(regime: Regime, addresses: Addresses) -> Addresses:
    """Regime.normal for many addresses."""
    if not any(regime.ignored_top):
        return addresses
    upper = (addresses >> np.uint64(55) & np.uint64(1)).astype(np.bool_)
    tag = np.uint64(0xFF << 56)
    plain: Addresses = addresses.copy()
    if regime.ignored_top[0]:
        plain[~upper] &= ~tag
    if regime.ignored_top[1]:
        plain[upper] |= tag
    return plain


def _follow_tree(
    memory: GuestPhysicalMemory, tree: Tree, addresses: Addresses, live: npt.NDArray[np.intp], tiles: Addresses,
    known: Mask
) -> None:  # fmt: skip
    """Fill the tiles of the addresses number ``live``, which one tree serves."""
    form = tree.form
    addresses = np.maximum(addresses, np.uint64(tree.start))
    tables = np.full(len(live), tree.root, dtype=np.uint64)
    for level in form.levels:
        if level.shift < TILE_SHIFT:
            break
        at = tables + _index(level, addresses[live]) * np.uint64(form.entry_size)
        entries = _gather(memory, at, 1, form, live, known)[:, 0]
        mapped, targets = pages_of(form, level, entries)
        if mapped.any():
            targets += addresses[live] & np.uint64((1 << level.shift) - 1)
            _fill_straight(tiles, live[mapped], targets[mapped])
        further, tables = tables_of(form, level, entries)
        live, tables = live[further], tables[further]
        if not len(live):
            return
    count, first = entries_of_tile(level), _index(level, addresses[live])
    entries = _gather(memory, tables + first * np.uint64(form.entry_size), count, form, live, known)
    tiles[live] = _leaf_tiles(tree, level, entries)


def _index(level: Level, addresses: Addresses) -> Addresses:
    index: Addresses = addresses >> np.uint64(level.shift) & np.uint64((1 << level.bits) - 1)
    return index


def _leaf_tiles(tree: Tree, level: Level, entries: Addresses) -> Addresses:
    """Rows of last-level entries as tiles; one entry of a larger granule fills several places."""
    mapped, targets = pages_of(tree.form, level, entries)
    per_entry = 1 << level.shift - PAGE_SHIFT
    if per_entry > 1:
        targets = (targets[:, :, None] + _OFFSETS[:per_entry]).reshape(len(entries), -1)
        mapped = np.repeat(mapped, per_entry, axis=1)
    targets += np.uint64(1)
    targets *= mapped
    if targets.shape[1] == ENTRIES:
        return targets
    before = (tree.start & TILE - 1) >> PAGE_SHIFT  # a tree smaller than a tile, at its beginning or end
    return np.pad(targets, ((0, 0), (before, ENTRIES - before - targets.shape[1])))


def _gather(
    memory: GuestPhysicalMemory, at: Addresses, count: int, form: Form, live: npt.NDArray[np.intp], known: Mask
) -> Addresses:
    """``count`` entries from each guest physical address ``at``, none of which crosses a page; shape (n, count).

    What is outside of the saved memory reads as zeros, which map nothing. What cannot be read does too, and the tile
    is marked as not known.
    """
    numbers, place = np.unique(at >> np.uint64(PAGE_SHIFT), return_inverse=True)
    pages, there = memory.pages(numbers)
    if not there.all():
        lost = np.array(
            [not ok and not is_hole(memory, int(number)) for number, ok in zip(numbers, there, strict=True)]
        )
        known[live[lost[place.reshape(-1)]]] = False
    words = pages.view(entry_type(form))
    columns = ((at & np.uint64(0xFFF)) // np.uint64(form.entry_size)).astype(np.intp)[:, None] + np.arange(count)
    entries: Addresses = words[place.reshape(-1)[:, None], columns].astype(np.uint64, copy=False)
    return entries


def is_hole(memory: GuestPhysicalMemory, page: int) -> bool:
    """Whether a guest page is outside of the saved memory, and not lost."""
    run = next(memory.runs(page << PAGE_SHIFT, 1))
    return run.position is None


def follow_one(memory: GuestPhysicalMemory, regime: Regime, gva: int) -> Addresses:
    """The tile that ``gva`` is in, shape (512,); quicker than :func:`follow` for one.

    Raises GuestMemoryError where a table in it cannot be read.
    """
    leaf = leaf_at(memory, regime, gva)
    if leaf is None:
        return _EMPTY
    if isinstance(leaf, int):
        straight: Addresses = _PAGES + np.uint64(leaf)
        return straight
    entries = np.frombuffer(leaf.data, dtype=entry_type(leaf.tree.form)).astype(np.uint64)
    tile: Addresses = _leaf_tiles(leaf.tree, leaf.level, entries.reshape(1, -1))[0]
    return tile
