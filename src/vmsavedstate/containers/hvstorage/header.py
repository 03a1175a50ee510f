"""The two header copies and the choice between them (format specification, 2.2)."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import CorruptFileError, FormatError
from ...files.source import Source
from ...findings import FindingLog
from . import layout
from .checksum import checksum
from .sequence import is_newer


class Header(NamedTuple):
    """One valid header copy; offsets and sizes in bytes."""

    offset: int
    sequence: int
    format_version: int
    data_version: int
    flags: int
    alignment: int
    replay_log_offset: int
    replay_log_size: int
    replay_log_header_size: int

    def same_content(self, other: Header) -> bool:
        """Whether the two copies differ in nothing but their place."""
        return self._replace(offset=0) == other._replace(offset=0)


def has_signature(source: Source) -> bool:
    """Whether either header copy begins with the signature of HyperVStorage (section 1)."""
    wanted = layout.HEADER_SIGNATURE.to_bytes(4, "little")
    return any(at + 4 <= source.size and source.read(at, 4) == wanted for at in layout.HEADER_OFFSETS)


def read_header(source: Source, log: FindingLog) -> Header:
    """The header in force.

    Raises CorruptFileError where no copy is valid or two different ones claim the same sequence, FormatError for a
    version whose layout is not published.
    """
    copies = [_read_copy(source, at) for at in layout.HEADER_OFFSETS]
    valid = [copy for copy in copies if isinstance(copy, Header)]
    if not valid:
        reasons = "; ".join(f"at {at:#x}: {copy}" for at, copy in zip(layout.HEADER_OFFSETS, copies, strict=True))
        raise CorruptFileError(
            f"no valid HyperVStorage header ({reasons})",
            file=source.path,
            offset=0,
            remedy="the file is damaged or not a saved state; try another copy of it",
        )
    for at, copy in zip(layout.HEADER_OFFSETS, copies, strict=True):
        if not isinstance(copy, Header):
            log.note("hvs.header.copy", source.path, at, f"header copy is not valid, the other one is used: {copy}")
    header = valid[0] if len(valid) == 1 else _choose(valid[0], valid[1], source, log)
    _check(header, source, log)
    return header


def _read_copy(source: Source, at: int) -> Header | str:
    size = layout.HEADER.size
    if at + size > source.size:
        return f"the file ends at {source.size:#x}"
    raw = source.read(at, size)
    signature, stored, sequence, *rest = layout.HEADER.unpack(raw)
    if signature != layout.HEADER_SIGNATURE:
        return f"signature {signature:#010x} instead of {layout.HEADER_SIGNATURE:#010x}"
    computed = checksum(raw, layout.HEADER_CHECKSUM_AT)
    if computed != stored:
        return f"checksum {stored:#010x} instead of {computed:#010x}"
    return Header(at, sequence, *rest)


def _choose(first: Header, second: Header, source: Source, log: FindingLog) -> Header:
    if first.sequence == second.sequence:
        if not first.same_content(second):
            raise CorruptFileError(
                f"both header copies are valid, differ, and claim the same sequence {first.sequence:#x}",
                file=source.path,
                offset=second.offset,
                remedy="nothing says which one is in force; try another copy of the file",
            )
        log.damage(
            "hvs.header.sequence",
            source.path,
            second.offset,
            "both header copies claim the same sequence",
            found=second.sequence,
        )
        return first
    return second if is_newer(second.sequence, first.sequence) else first


def _check(header: Header, source: Source, log: FindingLog) -> None:
    if header.format_version < layout.FORMAT_VERSION:
        raise FormatError(
            f"HyperVStorage format {header.format_version:#06x}; only {layout.FORMAT_VERSION:#06x} is published",
            file=source.path,
            offset=header.offset + 10,
            remedy="open it on the Hyper-V host that wrote it and save again with a newer version",
        )
    if header.format_version > layout.FORMAT_VERSION:
        if log.strict:
            raise FormatError(
                f"newer HyperVStorage format {header.format_version:#06x}; {layout.FORMAT_VERSION:#06x} is known",
                file=source.path,
                offset=header.offset + 10,
                remedy="strict mode; without it the file is read as the known version",
            )
        log.note(
            "hvs.header.version",
            source.path,
            header.offset + 10,
            "newer HyperVStorage format version, read as the known one",
            found=header.format_version,
            expected=layout.FORMAT_VERSION,
        )
    alignment = header.alignment
    if not layout.MIN_ALIGNMENT <= alignment <= layout.MAX_ALIGNMENT:
        log.damage(
            "hvs.header.alignment",
            source.path,
            header.offset + 22,
            "data alignment outside of the legal range",
            found=alignment,
            expected=f"{layout.MIN_ALIGNMENT:#x} to {layout.MAX_ALIGNMENT:#x}",
        )
