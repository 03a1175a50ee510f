"""Reads ``.bin`` and ``.vsv`` files as one tree of keys (format specification, section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import CorruptFileError
from ...files.source import Source
from ...findings import FindingLog
from ..keytree import KeyEntry, KeyTree, add_child
from . import layout

MAX_NAME = 4096  # characters; the longest real names have 120
SHOWN = 400  # characters of a name in messages
MAX_DEPTH = 256  # levels
NAMES_TOGETHER, NAMES_SPARE = 2, 1 << 20  # times the name area, and bytes more, that all names may have together
MAX_ENTRIES = 1 << 24  # blocks of 16 TiB of guest memory


class LegacyHeader(NamedTuple):
    """Header of one file; offsets and sizes in bytes, ``index_capacity`` in entries."""

    version: int
    unknown_0x8: int
    index_capacity: int
    index_offset: int
    names_offset: int
    names_capacity: int
    names_used: int


class LegacyStore(KeyTree):
    """The keys of one or several legacy files as one tree; names such as ``RamBlock/3/`` become nodes and leaves.

    Attributes:
        headers: the headers of the files, in the order of ``sources``.
    """

    def __init__(self, sources: Sequence[Source], log: FindingLog) -> None:
        super().__init__(sources, log)
        self._nodes: dict[tuple[int, str], KeyEntry] = {}
        self.headers = tuple(self._read_file(source) for source in sources)

    def _read_file(self, source: Source) -> LegacyHeader:
        header = _read_header(source)
        if header.unknown_0x8 != layout.UNKNOWN_AT_8:
            self.log.note(
                "legacy.header.unknown",
                source.path,
                8,
                "unknown header field",
                found=header.unknown_0x8,
                expected="0x1",
            )
        used = min(header.names_used, header.names_capacity)
        if used != header.names_used:
            self.log.damage(
                "legacy.names.used", source.path, 36, "more name bytes used than there are", found=header.names_used
            )
        if header.names_offset + used > source.size:
            self.log.damage(
                "legacy.names.outside", source.path, 24, "name area lies outside of the file", found=header.names_offset
            )
            used = max(0, source.size - header.names_offset)
        names = source.read(header.names_offset, used) if used else b""
        self._read_entries(source, header, names)
        return header

    def _read_entries(self, source: Source, header: LegacyHeader, names: bytes) -> None:
        """Entries up to the first empty one; there is no count, but the name lengths must add up (8.2)."""
        step = layout.ENTRY.size
        capacity = min(header.index_capacity, MAX_ENTRIES, max(0, source.size - header.index_offset) // step)
        if capacity != header.index_capacity:
            self.log.damage(
                "legacy.index.size", source.path, 12, "index is larger than the file", found=header.index_capacity
            )
        raw = source.read(header.index_offset, capacity * step)
        length_sum = 0
        for at in range(0, len(raw), step):
            fields = layout.ENTRY.unpack_from(raw, at)
            if not any(fields):
                break
            length_sum += fields[1]
            if (
                length_sum > NAMES_TOGETHER * len(names) + NAMES_SPARE
            ):  # entries that share one name area again and again
                self.log.damage(
                    "legacy.index.names", source.path, header.index_offset + at,
                    "the names of the index entries are longer than the name area can be, the rest is not read",
                    found=length_sum, expected=f"{header.names_used:#x}",
                )  # fmt: skip
                return
            self._take_entry(source, header.index_offset + at, fields, names)
        if length_sum != header.names_used:
            self.log.damage(
                "legacy.index.lengths",
                source.path,
                header.index_offset,
                "name lengths of the index do not add up to the used name bytes, entries may be missing",
                found=length_sum,
                expected=f"{header.names_used:#x}",
            )

    def _take_entry(self, source: Source, at: int, fields: tuple[int, ...], names: bytes) -> None:
        name_offset, name_size, in_use, kind, allocated, size, position = fields
        raw_name = names[name_offset : name_offset + name_size]
        if len(raw_name) != name_size or not raw_name.endswith(b"\0"):
            self.log.damage(
                "legacy.entry.name",
                source.path,
                at,
                "name of an index entry is not in the name area",
                found=name_offset,
            )
        if in_use != 1:
            self.log.note(
                "legacy.entry.mark",
                source.path,
                at + 6,
                "index entry with an unknown mark",
                found=in_use,
                expected="0x1",
            )
        type_name = layout.TYPE_NAMES.get(kind)
        if type_name is None:
            type_name = f"unknown({kind})"
            self.log.note("key.type", source.path, at + 7, "key of unknown type", found=kind)
        path = raw_name.rstrip(b"\0").decode("utf-8", errors="surrogateescape")
        parts = [part for part in path[:MAX_NAME].split("/") if part] or [f"(unnamed at {at:#x})"]
        if len(path) > MAX_NAME or len(parts) > MAX_DEPTH:
            self.log.damage(
                "legacy.entry.name-size",
                source.path,
                at + 4,
                "name of an index entry is absurdly long, it is cut",
                found=len(path),
            )
            parts = [*parts[: MAX_DEPTH - 1], "/".join(parts[MAX_DEPTH - 1 :])] if len(parts) > MAX_DEPTH else parts
        external = allocated != 0
        if not external and size > layout.INLINE_LIMIT:
            self.log.damage(
                "legacy.entry.inline",
                source.path,
                at + 12,
                f"value of {path[:SHOWN]!r} does not fit into its entry",
                found=size,
            )
            size = layout.INLINE_LIMIT
        if external and size > allocated:
            self.log.damage(
                "legacy.entry.extent",
                source.path,
                at + 12,
                f"value of {path[:SHOWN]!r} is larger than its extent",
                found=size,
            )
        value_at = position if external else at + layout.ENTRY_VALUE_AT
        if value_at + size > source.size:
            message = f"value of {path[:SHOWN]!r} ({size:#x} bytes) lies outside of the file of {source.size:#x} bytes"
            self.log.loss("legacy.entry.outside", source.path, at + 16, message, found=value_at)
        entry = KeyEntry(parts[-1], type_name, source, self.log, at, value_at, size, external=external)
        self._hang(entry, parts[:-1], source, at)

    def _hang(self, entry: KeyEntry, above: list[str], source: Source, at: int) -> None:
        """Put the entry below its nodes, which this flat container only implies."""
        parent: KeyEntry | None = None
        for part in above:
            place = (0 if parent is None else id(parent), part)
            node = self._nodes.get(place)
            if node is None:
                node = self._nodes[place] = KeyEntry(part, "node", source, self.log, at, at, 0)
                self._attach(parent, node)
            parent = node
        self._attach(parent, entry)

    def _attach(self, parent: KeyEntry | None, entry: KeyEntry) -> None:
        if parent is None:
            self.roots.append(entry)
        else:
            add_child(parent, entry)


def _read_header(source: Source) -> LegacyHeader:
    if source.size < layout.HEADER.size:
        raise CorruptFileError(
            f"the file ends inside its header of {layout.HEADER.size:#x} bytes",
            file=source.path,
            offset=source.size,
            remedy="it is truncated; use an intact copy",
        )
    _, *fields = layout.HEADER.unpack(source.read(0, layout.HEADER.size))
    header = LegacyHeader(*fields)
    if header.index_offset + layout.ENTRY.size > source.size:
        raise CorruptFileError(
            f"the index at {header.index_offset:#x} lies outside of the file of {source.size:#x} bytes",
            file=source.path,
            offset=16,
            remedy="the file is truncated or damaged; use an intact copy",
        )
    return header
