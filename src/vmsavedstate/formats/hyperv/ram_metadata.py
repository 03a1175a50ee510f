"""RamMemoryBlock values: which guest pages are kept where (format specification, 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...findings import FindingLog
from ...keytree import KeyEntry
from ...snapshot import MemoryRange
from . import layout

MAX_PAGE = 1 << 52


def read_metadata(entries: Sequence[KeyEntry], log: FindingLog) -> tuple[MemoryRange, ...]:
    """The ranges of all metadata values, ascending by guest address and disjoint; of two that overlap the first wins."""
    ranges = [found for entry in entries if (found := _read_range(entry, log)) is not None]
    return _disjoint(ranges, log, entries[0].source.path if entries else None)


def _read_range(entry: KeyEntry, log: FindingLog) -> MemoryRange | None:
    file, at = entry.source.path, entry.value_offset
    if entry.size < layout.RAM_METADATA_PREFIX.size:
        log.damage(file, at, f"{entry.path} is too short, its memory is lost", found=entry.size, expected="0x30")
        return None
    data = entry.read(0, min(entry.size, layout.RAM_METADATA.size))
    version, flags, count, backing, start = layout.RAM_METADATA_PREFIX.unpack_from(data)
    node = 0
    if len(data) == layout.RAM_METADATA.size:
        node = layout.RAM_METADATA.unpack(data)[5]
    if version != layout.RAM_METADATA_VERSION or entry.size != layout.RAM_METADATA.size:
        log.note(
            file, at, f"{entry.path} has another layout than version 3 of 0x30 bytes, its first 0x20 are used",
            found=f"version {version:#x}, {entry.size:#x} bytes",
        )  # fmt: skip
    if not count or start + count > MAX_PAGE or backing + count > MAX_PAGE:
        log.damage(
            file, at, f"{entry.path} describes impossible memory, it is left out",
            found=f"{count:#x} pages from guest page {start:#x}, block page {backing:#x}",
        )  # fmt: skip
        return None
    return MemoryRange(start, count, backing, node, flags)


def _disjoint(ranges: list[MemoryRange], log: FindingLog, file: str | None) -> tuple[MemoryRange, ...]:
    """Cut from every range what an earlier one covers already."""
    ordered = sorted(enumerate(ranges), key=lambda item: (item[1].start_page, item[0]))
    if all(
        before.start_page + before.page_count <= after.start_page
        for (_, before), (_, after) in zip(ordered, ordered[1:], strict=False)
    ):
        return tuple(item for _, item in ordered)
    kept: list[MemoryRange] = []
    for candidate in ranges:
        pieces = [candidate]
        for other in kept:
            pieces = [rest for piece in pieces for rest in _without(piece, other)]
        if pieces != [candidate]:
            log.damage(
                file, None, "memory ranges overlap, the first one counts",
                found=f"{candidate.page_count:#x} pages from guest page {candidate.start_page:#x}",
            )  # fmt: skip
        kept.extend(pieces)
    return tuple(sorted(kept, key=lambda item: item.start_page))


def _without(piece: MemoryRange, other: MemoryRange) -> list[MemoryRange]:
    start, end = piece.start_page, piece.start_page + piece.page_count
    low, high = max(start, other.start_page), min(end, other.start_page + other.page_count)
    if low >= high:
        return [piece]
    rest = []
    if start < low:
        rest.append(replace(piece, page_count=low - start))
    if high < end:
        moved = piece.backing_page + high - start
        rest.append(replace(piece, start_page=high, page_count=end - high, backing_page=moved))
    return rest
