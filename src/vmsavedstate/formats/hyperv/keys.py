"""Finds the keys of a saved state: which key style a tree uses, and its numbered values (format specification, 3)."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping

from ...containers.keytree import KeyEntry, KeyTree
from .layout.keys import LEGACY, MODERN, Schema

MAX_DIGITS = 15  # a block number with more would name memory beyond any address
_LEADING_ZERO = re.compile("0.").match


def choose_schema(tree: KeyTree) -> Schema:
    """The key style this tree uses: version 5.0 states may stand in a HyperVStorage file too (open question 3)."""
    if MODERN.partition_state in tree or LEGACY.partition_state not in tree:
        return MODERN
    return LEGACY


def numbered(tree: KeyTree, parent: str, prefix: str) -> Mapping[int, KeyEntry]:
    """Every array ``prefix + N`` below ``parent`` by its number N: of a large guest in arrays, else in stored order."""
    few = _singles(tree, parent, prefix)
    node = tree.find(parent)
    many = next((keys for keys in node.numbered if keys.prefix == prefix), None) if node is not None else None
    if not isinstance(many, Mapping):
        return few
    return ChainMap(few, many) if few else many  # nothing is put into it


def _singles(tree: KeyTree, parent: str, prefix: str) -> dict[int, KeyEntry]:
    """Every array ``prefix + N`` below ``parent`` by its number N, in stored order.

    N has no leading zeros: ``RamBlock01`` is not block 1.
    """
    # Whole lists instead of a loop over keys: a 64 GiB guest has 65,536 blocks.
    below = tree.names_below(parent)
    names = [name for name in below if name.startswith(prefix)]
    digits = [name[len(prefix) :] for name in names]
    together = "".join(digits)
    longest = max(map(len, digits), default=0)
    sound = together.isascii() and together.isdecimal() and all(digits) and longest <= MAX_DIGITS
    if not sound or any(map(_LEADING_ZERO, digits)):
        digits = [text for text in digits if text.isascii() and text.isdecimal() and not _LEADING_ZERO(text)]
        digits = [text for text in digits if len(text) <= MAX_DIGITS]
        names = [prefix + text for text in digits]
    entries = map(below.__getitem__, names)
    return {number: entry for number, entry in zip(map(int, digits), entries, strict=True) if entry.type == "array"}
