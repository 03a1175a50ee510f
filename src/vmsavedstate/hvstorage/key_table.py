"""Key tables: the records that name values and nodes (format specification, 2.6 to 2.8).

One pass checks the structure and every checksum; ``store`` makes the tree of what it returns.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ..findings import FindingLog
from ..keytree import KeyEntry
from ..source import Source
from . import layout
from .checksum import checksum
from .layout import KeyType

KEY_FREE = int(KeyType.FREE)
PREFIXED = frozenset({int(KeyType.STRING), int(KeyType.ARRAY)})
MAX_TABLE_BYTES = 16 << 20  # real tables have 4 KiB; nothing is allocated by an unchecked size


class StoredKey(KeyEntry):
    """A key-table entry that is not free, before and after it has found its parent.

    Attributes:
        place: table index << 32 | offset in the table: what its children name as their parent.
        parent_place: the same of the parent; 0 for children of the root.
    """

    __slots__ = ("parent_place", "place")

    def __init__(
        self,
        name: str,
        type_name: str,
        source: Source,
        log: FindingLog,
        offset: int,
        value_offset: int,
        size: int,
        external: bool,
        sequence: int,
        place: int,
        parent_place: int,
    ) -> None:
        self.place = place
        self.parent_place = parent_place
        self.name = name  # not by super().__init__: 65,536 blocks of a 64 GiB guest come along here
        self.type = type_name
        self.source = source
        self.log = log
        self.offset = offset
        self.value_offset = value_offset
        self.size = size
        self.external = external
        self.sequence = sequence
        self.parent = None
        self._children = None


@dataclass(frozen=True)
class KeyTable:
    """A key table whose header is sound; ``data`` is the whole table, ``offset`` its place in the file."""

    offset: int
    index: int
    sequence: int
    data: bytes


def load_table(source: Source, offset: int, size: int, log: FindingLog) -> KeyTable | None:
    """The table at ``offset``; None, with a finding, where there is none that can be read."""
    header = layout.KEY_TABLE_HEADER
    if offset + size > source.size or size < header.size:
        log.damage(source.path, offset, "key table lies outside of the file", found=size)
        size = min(size, source.size - offset)
        if size < header.size:
            return None
    if size > MAX_TABLE_BYTES:
        log.damage(
            source.path, offset, "key table is absurdly large", found=size, expected=f"{MAX_TABLE_BYTES:#x} at most"
        )
        size = MAX_TABLE_BYTES
    data = source.read(offset, size)
    signature, index, sequence, stored = header.unpack_from(data)
    if signature != layout.KEY_TABLE_SIGNATURE:
        log.damage(
            source.path, offset, "key table signature", found=signature, expected=f"{layout.KEY_TABLE_SIGNATURE:#x}"
        )
        return None
    computed = checksum(data[: header.size], layout.KEY_TABLE_CHECKSUM_AT)
    if computed != stored:
        log.damage(source.path, offset + 6, "key table header: wrong checksum", found=stored, expected=f"{computed:#x}")
    if index == 0:
        log.damage(source.path, offset + 2, "key table has the index 0, which stands for the root")
    return KeyTable(offset, index, sequence, data)


def scan_table(table: KeyTable, source: Source, log: FindingLog) -> list[StoredKey]:
    """Every used entry of a table, in stored order, each checked."""
    # The one hot loop of opening a large state (a 64 GiB guest has 65,536 entries): locals, few calls per entry.
    data, base, end = table.data, table.offset, len(table.data)
    place_base = table.index << 32
    unpack, crc32, unpack_pointer = layout.KEY_ENTRY.unpack_from, zlib.crc32, layout.KEY_POINTER.unpack_from
    fixed_sizes, type_names = layout.FIXED_DATA_SIZES, layout.KEY_TYPE_NAMES
    keys: list[StoredKey] = []
    at = layout.KEY_TABLE_HEADER.size
    while at + 21 < end:
        kind, flags, size, parent_table, parent_offset, stored, sequence, name_size = unpack(data, at)
        if size < 21 or at + size > end:
            log.damage(source.path, base + at + 2, "key entry leaves its table, the rest of it is lost", found=size)
            return keys
        if kind == KEY_FREE:
            if stored:
                log.damage(
                    source.path,
                    base + at + 12,
                    "free key entry carries a checksum, it may have been a key",
                    found=stored,
                )
            at += size
            continue
        name_at = at + 21
        data_at = name_at + name_size
        pointer = flags & 1
        if pointer:
            data_end = data_at + 12
        elif kind in fixed_sizes:
            data_end = data_at + fixed_sizes[kind]
        else:
            data_end = data_at + _variable_size(data, kind, at, data_at, size, stored)
        if data_end > at + size:
            log.damage(source.path, base + at, "value of a key is longer than its entry", found=data_end - data_at)
            at += size
            continue
        computed = crc32(b"\0\0\0\0" + data[at + 16 : data_end], crc32(data[at : at + 12]))
        if computed != stored:
            log.damage(
                source.path, base + at + 12, "key entry: wrong checksum", found=stored, expected=f"{computed:#x}"
            )
        if pointer:
            value_size, value_at = unpack_pointer(data, data_at)
        else:
            value_at = base + data_at + (4 if kind in PREFIXED else 0)
            value_size = base + data_end - value_at
        name = data[name_at : data_at - 1] if name_size and not data[data_at - 1] else data[name_at:data_at]
        type_name = type_names.get(kind)
        if type_name is None:
            type_name = f"unknown({kind})"
            log.note(source.path, base + at, "key of unknown type", found=kind)
        keys.append(
            StoredKey(
                name.decode("utf-8", "surrogateescape"),
                type_name,
                source,
                log,
                base + at,
                value_at,
                value_size,
                pointer == 1,
                sequence,
                place_base | at,
                parent_table << 32 | parent_offset,
            )
        )
        at += size
    if at != end:
        log.damage(source.path, base + at, "key entries do not fill their table", found=at, expected=f"{end:#x}")
    return keys


def _variable_size(data: bytes, kind: int, at: int, data_at: int, size: int, stored: int) -> int:
    """Bytes of checksummed data of an inline string, array, or value of unknown type."""
    if kind in PREFIXED:
        if data_at + 4 > at + size:
            return 4
        return 4 + int.from_bytes(data[data_at : data_at + 4], "little")
    # An unknown type does not tell how much of the entry is data and how much slack. The checksum does.
    running = zlib.crc32(b"\0\0\0\0" + data[at + 16 : data_at], zlib.crc32(data[at : at + 12]))
    for length, byte in enumerate(data[data_at : at + size]):
        if running == stored:
            return length
        running = zlib.crc32(bytes((byte,)), running)
    return max(0, at + size - data_at)
