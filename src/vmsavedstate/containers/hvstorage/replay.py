"""The replay log: what a pending commit would write, as an in-memory overlay (format specification, 2.11).

All or nothing: one wrong checksum, and no part of the log counts. Nothing here writes a file.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from ...files.overlay import Patch
from ...files.source import Source
from ...findings import FindingLog
from . import layout
from .checksum import checksum
from .header import Header

# A commit appends at most a few objects behind the end of the file. A destination further out is damage, and would
# give the overlay, and so every bound derived from the size of the file, an absurd size.
MAX_GROWTH = 16 << 20


class _Refused(NamedTuple):
    """Why the log cannot be applied."""

    offset: int
    message: str
    found: int | None = None
    expected: int | None = None


class _Entry(NamedTuple):
    """A sound entry: what it would write, and where its payload ends in the file."""

    patch: Patch
    payload_end: int


def pending_patches(source: Source, header: Header, log: FindingLog) -> list[Patch]:
    """The writes of a pending commit in order; empty when the log is clean, or damaged (then with a finding)."""
    patches = _read_entries(source, header, _pending_count(source, header, log))
    if isinstance(patches, _Refused):
        log.damage(
            "hvs.replay-log.damaged",
            source.path,
            patches.offset,
            f"pending replay log is damaged, nothing of it is applied: {patches.message}",
            found=patches.found,
            expected=patches.expected,
        )
        return []
    if patches:
        log.refusable(
            "hvs.replay-log.pending",
            source.path,
            header.replay_log_offset + 8,
            "replay log with pending entries, applied in memory only "
            "(ApplyPendingSavedStateFileReplayLog would write them to the file)",
            found=len(patches),
            expected=0,
        )
    return patches


def _read_entries(source: Source, header: Header, count: int) -> list[Patch] | _Refused:
    """All of them, or why none of them counts."""
    log_at = header.replay_log_offset
    log_end = log_at + max(header.replay_log_header_size, layout.REPLAY_HEADER.size)
    left = source.size  # payloads are packed one after another (2.11): together they cannot be larger than the file
    patches: list[Patch] = []
    for index in range(count):
        entry = _read_entry(source, header, index, left)
        if isinstance(entry, _Refused):
            return entry
        patches.append(entry.patch)
        log_end = max(log_end, entry.payload_end)
        left -= len(entry.patch.data)
    for patch in patches:  # once that is written, an interrupted writer could not begin again
        if patch.offset < log_end and log_at < patch.end:
            return _Refused(log_at, "it would overwrite itself", patch.offset)
    return patches


def _pending_count(source: Source, header: Header, log: FindingLog) -> int:
    """CurrentEntriesCount of a sound log header, else 0 with a finding."""
    at, size = header.replay_log_offset, layout.REPLAY_HEADER.size

    def invalid(offset: int, message: str, **values: object) -> int:
        log.damage(
            "hvs.replay-log.header",
            source.path,
            offset,
            f"replay log header is invalid, the log counts as empty: {message}",
            **values,
        )
        return 0

    if at + size > source.size:
        return invalid(header.offset + 26, "it lies outside of the file", found=at)
    raw = source.read(at, size)
    signature, stored, count, _, maximum, *_ = layout.REPLAY_HEADER.unpack(raw)
    if signature != layout.REPLAY_SIGNATURE:
        return invalid(at, "wrong signature", found=signature, expected=layout.REPLAY_SIGNATURE)
    computed = checksum(raw, layout.REPLAY_HEADER_CHECKSUM_AT)
    if stored != computed:
        return invalid(at + 4, "wrong checksum", found=stored, expected=computed)
    if maximum == 0 or count > maximum:
        return invalid(at + 8, f"{count:#x} entries of at most {maximum:#x}")
    area = header.replay_log_header_size
    if size + count * layout.REPLAY_ENTRY.size > min(area, source.size):
        return invalid(at + 8, f"{count:#x} entries do not fit into a header area of {area:#x} bytes")
    return int(count)


def _read_entry(source: Source, header: Header, index: int, left: int) -> _Entry | _Refused:
    at = header.replay_log_offset + layout.REPLAY_HEADER.size + index * layout.REPLAY_ENTRY.size
    if at + layout.REPLAY_ENTRY.size > source.size:
        return _Refused(at, f"entry {index} lies outside of the file")
    raw = source.read(at, layout.REPLAY_ENTRY.size)
    destination, size, relative, stored, payload_stored = layout.REPLAY_ENTRY.unpack(raw)
    computed = checksum(raw, layout.REPLAY_ENTRY_CHECKSUM_AT)
    if stored != computed:
        return _Refused(at + 20, f"checksum of entry {index}", stored, computed)
    payload_at = header.replay_log_offset + relative
    if payload_at + size > source.size:
        return _Refused(at + 12, f"payload of entry {index} lies outside of the file", payload_at)
    if size > left:
        return _Refused(at + 8, f"payloads up to entry {index} are larger than the file", size)
    if destination < layout.FIRST_OBJECT_TABLE:
        return _Refused(at, f"entry {index} would overwrite the file headers", destination)
    if destination > source.size + MAX_GROWTH:
        return _Refused(at, f"destination of entry {index} lies far behind the end of the file", destination)
    payload = source.read(payload_at, size)
    computed = zlib.crc32(payload)
    if payload_stored != computed:
        return _Refused(at + 24, f"checksum of the payload of entry {index}", payload_stored, computed)
    return _Entry(Patch(destination, payload), payload_at + size)
