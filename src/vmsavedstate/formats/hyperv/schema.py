"""Where the keys of a saved state stand in either container (format specification, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...keytree import KeyEntry, KeyTree

LAST_LEGACY_VERSION = 0x0500
VIDEO_MONITOR = "_ba8735ef-e3a9-4f1b-badd-dbf3a5909915_/VideoMonitor"


@dataclass(frozen=True)
class Schema:
    """The paths of one key style."""

    partition_state: str
    metadata_parent: str
    metadata_prefix: str
    blocks_parent: str
    blocks_prefix: str
    screen: str


MODERN = Schema(
    "/savedstate/savedVM/partition_state",
    "/savedstate",
    "RamMemoryBlock",
    "/savedstate",
    "RamBlock",
    f"/savedstate/configuration/{VIDEO_MONITOR}",
)
LEGACY = Schema("/savedVM/partition_state", "/RamMemoryBlock", "", "/RamBlock", "", f"/configuration/{VIDEO_MONITOR}")


def choose_schema(tree: KeyTree) -> Schema:
    """The key style this tree uses: version 5.0 states may stand in a HyperVStorage file too (open question 3)."""
    if MODERN.partition_state in tree or LEGACY.partition_state not in tree:
        return MODERN
    return LEGACY


def numbered(tree: KeyTree, parent: str, prefix: str) -> Iterator[tuple[int, KeyEntry]]:
    """(N, entry) of every array ``prefix + N`` below ``parent``, in stored order."""
    node = tree.find(parent)
    skip = len(prefix)
    for entry in node.children if node is not None else ():
        name = entry.name
        if name.startswith(prefix):
            digits = name[skip:]
            if digits.isdecimal() and digits.isascii() and entry.type == "array":
                yield int(digits), entry
