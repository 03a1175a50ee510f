"""RamMemoryBlock values: which guest pages are kept where (format specification, 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from ...containers.keytree import KeyEntry
from ...errors import CorruptFileError
from ...files.ranges import Coverage
from ...findings import FindingLog
from ...snapshot import MemoryRange
from .layout import memory as layout


def read_metadata(entries: Sequence[KeyEntry], log: FindingLog) -> tuple[MemoryRange, ...]:
    """The ranges of all values, ascending by guest address and disjoint; of two that overlap the first wins."""
    ranges = [found for entry in entries if (found := _read_range(entry, log)) is not None]
    return _disjoint(ranges, log, entries[0].source.path if entries else None)


def _read_range(entry: KeyEntry, log: FindingLog) -> MemoryRange | None:
    file, at = entry.source.path, entry.value_offset
    if entry.size < layout.RAM_METADATA_PREFIX.size:
        log.damage(
            "memory.range.short",
            file,
            at,
            f"{entry.path} is too short, its memory is lost",
            found=entry.size,
            expected="0x30",
        )
        return None
    try:
        data = entry.read(0, min(entry.size, layout.RAM_METADATA.size))
    except CorruptFileError as error:
        log.loss(
            "memory.range.unreadable",
            file,
            entry.offset,
            f"{entry.path} cannot be read, its memory is lost: {error.message}",
        )
        return None
    version, flags, count, backing, start = layout.RAM_METADATA_PREFIX.unpack_from(data)
    node = 0
    if len(data) == layout.RAM_METADATA.size:
        node = layout.RAM_METADATA.unpack(data)[5]
    if version != layout.RAM_METADATA_VERSION or entry.size != layout.RAM_METADATA.size:
        log.note(
            "memory.range.version",
            file,
            at,
            f"{entry.path} has another layout than version 3 of 0x30 bytes, its first 0x20 are used",
            found=f"version {version:#x}, {entry.size:#x} bytes",
        )
    if not count or start + count > layout.MAX_PAGE or backing + count > layout.MAX_PAGE:
        log.damage(
            "memory.range.impossible", file, at, f"{entry.path} describes impossible memory, it is left out",
            found=f"{count:#x} pages from guest page {start:#x}, block page {backing:#x}",
        )  # fmt: skip
        return None
    return MemoryRange(start, count, backing, node, flags)


def _disjoint(ranges: list[MemoryRange], log: FindingLog, file: str | None) -> tuple[MemoryRange, ...]:
    """Cut from every range what an earlier one covers already."""
    covered, stored = Coverage(), Coverage()
    kept: list[MemoryRange] = []
    for candidate in ranges:
        start, end = candidate.start_page, candidate.start_page + candidate.page_count
        free = covered.add(start, end)
        if free != [(start, end)]:
            log.damage(
                "memory.range.overlap", file, None, "memory ranges overlap, the first one counts",
                found=f"{candidate.page_count:#x} pages from guest page {start:#x}",
            )  # fmt: skip
        kept_from, kept_to = candidate.backing_page, candidate.backing_page + candidate.page_count
        if stored.add(kept_from, kept_to) != [(kept_from, kept_to)]:
            log.damage(
                "memory.range.shared", file, None, "two ranges of guest memory are kept in the same stored pages",
                found=f"{candidate.page_count:#x} pages from guest page {start:#x}",
            )  # fmt: skip
        for low, high in free:
            kept.append(
                MemoryRange(low, high - low, candidate.backing_page + low - start, candidate.node, candidate.flags)
            )
    return tuple(sorted(kept, key=lambda item: item.start_page))
