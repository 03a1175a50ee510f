"""An address space as the walker takes it: trees of tables, and the addresses each serves."""

from __future__ import annotations

from typing import NamedTuple

from ..datatypes.enums import PagingMode
from . import forms
from .access import ALL

TOP = 1 << 64
PHYSICAL_LIMIT = 1 << 52  # no form has more address bits


class Tree(NamedTuple):
    """A root table and the virtual addresses it serves: ``start`` to ``end`` (excluded), ``root`` a physical address."""

    start: int
    end: int
    root: int
    form: forms.Form


class Regime(NamedTuple):
    """An address space: what two processors with the same tables have in common.

    Attributes:
        mode: the paging mode as Microsoft counts them.
        trees: ascending; empty where an address is its own translation.
        identity: without trees, the addresses below which that holds.
        ignored_top: for the lower and the upper half (bit 55), whether bits 63 to 56 of an address are ignored (ARM64).
        rights: the rights of every page where there are no trees (an int of :class:`.access.Access`).
    """

    mode: PagingMode
    trees: tuple[Tree, ...] = ()
    identity: int = 0
    ignored_top: tuple[bool, bool] = (False, False)
    rights: int = ALL

    def normal(self, gva: int) -> int:
        """``gva`` without what the processor ignores of it: a tag in the top byte."""
        upper = gva >> 55 & 1
        if not self.ignored_top[upper]:
            return gva
        return gva | 0xFF << 56 if upper else gva & (1 << 56) - 1

    def aliases(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """The ranges to go through for ``start`` to ``end``, without tags: (start, end, what to add to their addresses).

        Every address has 256 aliases where the top byte is ignored. They are listed where the whole range has one top byte,
        so that a range with a tag gives what is at it; a larger range gives each page once, without a tag.
        """
        tag = start >> 56
        if start >= end or not any(self.ignored_top) or (end - 1) >> 56 != tag:
            return [(start, end, 0)]
        middle = tag << 56 | 1 << 55
        found = []
        for low, high in ((start, min(end, middle)), (max(start, middle), end)):
            if low < high:
                plain = self.normal(low)
                found.append((plain, plain + high - low, low - plain))
        return found

    def next_tree(self, gva: int) -> int:
        """The first address behind ``gva``, which no tree serves, that one does; 2**64 if there is none."""
        tag, inside = gva >> 56, (1 << 56) - 1
        starts = []
        for tree in self.trees:
            own = self.ignored_top[tree.start >> 55 & 1]
            for byte in (tag, tag + 1, tree.start >> 56):
                if byte < 256 and (own or byte == tree.start >> 56):
                    starts.append(byte << 56 | tree.start & inside)
        return min((start for start in starts if start > gva), default=TOP)

    @property
    def levels(self) -> int:
        """Levels of the deepest tree, 0 without paging."""
        return max((len(tree.form.levels) for tree in self.trees), default=0)
