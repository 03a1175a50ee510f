"""Opens a ``.bin``/``.vsv`` pair from either file (format specification, 8.3)."""

from __future__ import annotations

import os

from ...containers.legacy.reader import LegacyStore
from ...containers.legacy.signature import has_signature
from ...errors import CompanionError
from ...files.objects import FileArgument, open_evidence
from ...files.source import Source
from ...findings import FindingLog
from ...remedies import GIVE_COMPANION_OBJECT, NAME_COMPANION
from ...snapshot import Snapshot
from ..detect import Inputs
from .keys import numbered
from .layout import memory as layout
from .layout.keys import LEGACY
from .ram_metadata import read_metadata
from .reader import read_snapshot

_EXTENSIONS = {".bin": ".vsv", ".vsv": ".bin"}


def open_source(source: Source, inputs: Inputs, log: FindingLog) -> Snapshot:
    """The snapshot in the pair that ``source`` is one half of; takes over the source.

    Raises CompanionError where the other half is missing or does not belong to this one.
    """
    other = _open_companion(source, inputs.companion)
    try:
        if other.identity == source.identity:
            raise CompanionError(
                "a file cannot be its own companion", file=source.path, remedy="give the .bin and the .vsv file"
            )
        tree = LegacyStore((source, other), log)
        _check_pair(tree)
        version = tree.headers[0].version
        if tree.headers[1].version != version:
            raise CompanionError(
                f"the VM versions differ: {version:#x} here, {tree.headers[1].version:#x} in {other.path}",
                file=source.path,
                offset=4,
                remedy="the files are of different saves; find the companion of this one",
            )

        def close() -> None:
            source.close()
            other.close()

        return read_snapshot(
            tree, log, format_name="bin+vsv", files=(source.path, other.path), close=close, known_version=version
        )
    except BaseException:
        other.close()
        raise


def _open_companion(source: Source, companion: FileArgument | None) -> Source:
    if companion is not None:
        other = open_evidence(companion)
    elif source.from_object:
        raise CompanionError("this is one file of a .bin/.vsv pair", file=source.path, remedy=GIVE_COMPANION_OBJECT)
    else:
        candidates = companion_paths(source.path)
        found = [path for path in candidates if os.path.exists(path)]
        if not found:
            looked = ", ".join(candidates) or "nothing: the name ends neither in .bin nor in .vsv"
            error = CompanionError(
                f"the other half of this .bin/.vsv pair is missing (looked for {looked})",
                file=source.path,
                remedy=NAME_COMPANION,
            )
            error.absent = True
            raise error
        other = Source(found[0])
    if not has_signature(other):
        path, empty = other.path, other.size == 0
        other.close()
        raise CompanionError(
            f"{path} is {'empty' if empty else 'not a .bin or .vsv file of Server 2012 R2'}",
            file=source.path,
            remedy="give the right companion",
        )
    return other


def companion_paths(path: str) -> list[str]:
    """The paths at which the other half may lie: same name, other extension, in the usual spellings."""
    stem, extension = os.path.splitext(path)
    other = _EXTENSIONS.get(extension.lower())
    if other is None:
        return []
    spellings = [other.upper(), other] if extension.isupper() else [other, other.upper()]
    return [stem + spelling for spelling in spellings]


def _check_pair(tree: LegacyStore) -> None:
    """The two files must be one state and one memory, and the memory must be as large as the state says."""
    first, second = tree.sources
    block_entries = numbered(tree, LEGACY.blocks_parent, LEGACY.blocks_prefix)
    lacking = [
        name
        for name, there in (("saved state (.vsv)", LEGACY.partition_state in tree), ("memory (.bin)", block_entries))
        if not there
    ]
    if lacking:
        raise CompanionError(
            f"{first.path} and {second.path} are not a pair: there is no {' and no '.join(lacking)} in them",
            file=first.path,
            remedy="give one .bin and one .vsv file",
        )
    metadata = numbered(tree, LEGACY.metadata_parent, LEGACY.metadata_prefix).values()
    last_page = max(
        (item.backing_page + item.page_count for item in read_metadata(list(metadata), tree.log)), default=0
    )
    needed, there = -(-last_page // layout.BLOCK_PAGES), max(block_entries) + 1
    if last_page and needed != there:
        raise CompanionError(
            f"{first.path} and {second.path} do not belong together: the state needs {needed} memory blocks, "
            f"there are {there}",
            file=first.path,
            remedy="find the companion that was saved with this file; both carry the same name",
        )
