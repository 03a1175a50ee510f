"""Where the pages of 2 MiB of virtual addresses stand: in one table of the last level, or one after another in memory.

:mod:`.tiles` makes 512 page addresses of it with numpy; :class:`Leaves` looks one address up without.
"""

from __future__ import annotations

from typing import NamedTuple

from ..memory import GuestPhysicalMemory
from ..vocabulary import StepKind
from .forms import Level
from .regime import Regime, Tree
from .walk import PAGE, classify, read_table, visits

TILE_SHIFT = 21
TILE = 1 << TILE_SHIFT
MAX_LEAVES = 4096  # 16 MiB of tables


class Leaf(NamedTuple):
    """The entries of a last-level table that one tile takes: ``data``, for the addresses from ``start`` on."""

    tree: Tree
    level: Level
    start: int
    data: bytes


def entries_of_tile(level: Level) -> int:
    """How many entries of a last-level table one tile takes; fewer where the whole table covers less than a tile."""
    return min(1 << TILE_SHIFT - level.shift, 1 << level.bits)


def leaf_at(memory: GuestPhysicalMemory, regime: Regime, gva: int) -> Leaf | int | None:
    """What the tile of ``gva`` is made of: a table, or the guest physical address of its begin, or None: nothing is mapped.

    Raises GuestMemoryError where a table in it cannot be read, be it in part.
    """
    address = regime.normal(gva) & ~(TILE - 1)
    for tree in regime.trees:
        if tree.start & ~(TILE - 1) <= address < tree.end:
            return _leaf_in(memory, tree, gva, max(address, tree.start))
    return None if regime.trees or address >= regime.identity else address


def _leaf_in(memory: GuestPhysicalMemory, tree: Tree, gva: int, address: int) -> Leaf | int | None:
    form, last, table = tree.form, tree.form.levels[-1], tree.root
    for level, _, _, kind, found in visits(memory, tree, gva, address, form.levels[:-1]):
        if found is None:
            return None
        if kind == StepKind.PAGE:
            return found + (address & (1 << level.shift) - 1)
        table = found
    first = address >> last.shift & (1 << last.bits) - 1
    size = entries_of_tile(last) * form.entry_size
    data = read_table(memory, table + first * form.entry_size, size, gva, last.name)
    return None if data is None else Leaf(tree, last, address, data)


class Leaves:
    """Translates one address at a time, and keeps the tables it has read. Safe to use from several threads."""

    def __init__(self, memory: GuestPhysicalMemory, regime: Regime) -> None:
        self._memory = memory
        self._regime = regime
        self._known: dict[int, Leaf | int | None] = {}  # address >> 21 -> its leaf

    def page(self, gva: int) -> int:
        """The guest physical address of the page of ``gva`` plus 1, 0 where it is not mapped; as tiles have it.

        Raises GuestMemoryError as :func:`leaf_at` does.
        """
        try:
            leaf = self._known[gva >> TILE_SHIFT]
        except KeyError:
            if len(self._known) >= MAX_LEAVES:
                self._known.clear()
            leaf = self._known[gva >> TILE_SHIFT] = leaf_at(self._memory, self._regime, gva)
        if leaf is None:
            return 0
        if isinstance(leaf, int):
            return leaf + (gva & TILE - PAGE) + 1
        address = self._regime.normal(gva)
        if not leaf.tree.start <= address < leaf.tree.end:  # a tree smaller than a tile
            return 0
        form, shift = leaf.tree.form, leaf.level.shift
        at = (address - leaf.start >> shift) * form.entry_size
        kind, target = classify(form, leaf.level, int.from_bytes(leaf.data[at : at + form.entry_size], "little"))
        if kind != StepKind.PAGE or target is None:
            return 0
        return target + (address & (1 << shift) - PAGE) + 1
