"""Key tables: the records that name values and nodes (format specification, 2.6 to 2.8).

One pass checks the structure and every checksum; ``store`` makes the tree of what it returns.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from ...files.source import Source
from ...findings import FindingLog
from ..keytree import KeyEntry
from . import layout
from .checksum import checksum
from .layout import KeyType
from .numbered import NumberedKeys, ScanKeys

KEY_FREE, KEY_NODE = int(KeyType.FREE), int(KeyType.NODE)
PREFIXED = frozenset({int(KeyType.STRING), int(KeyType.ARRAY)})


MAX_SEARCH = 0x1000  # bytes of an entry of unknown type in which the end of its data is looked for


class _Shape(NamedTuple):
    """What the first 12 bytes of an entry say: the same for all the blocks of guest memory in a state.

    ``data_size`` is the size of the data in bytes, None where the entry itself says it; ``prefix_checksum`` the
    CRC-32 of the 12 bytes and the four zeros that stand for the checksum; ``siblings`` where the entry is added.
    """

    kind: int
    size: int
    pointer: bool
    data_size: int | None
    type_name: str
    prefix_checksum: int
    siblings: list[KeyEntry]


class KeyRecords:
    """The used entries of all key tables, before they know their parents.

    A *place* is table index << 32 | offset in the table: what a key names as its parent; 0 stands for the root.

    Attributes:
        nodes: the nodes by place.
        children: the keys by the place of their parent, in stored order.
        shapes: what is known of the entries so far, by their first 12 bytes.
        numbered: arrays with a number in their names, by the place of their parent and their prefix; of large files alone.
    """

    def __init__(self) -> None:
        self.numbered: dict[tuple[int, bytes], NumberedKeys] = {}
        self.nodes: dict[int, KeyEntry] = {}
        self.children: dict[int, list[KeyEntry]] = {}
        self.shapes: dict[bytes, _Shape] = {}

    def add_shape(self, prefix: bytes) -> _Shape:
        """Work out what the first 12 bytes of an entry say, and keep it."""
        kind, flags, size, parent_table, parent_offset = layout.KEY_ENTRY_PREFIX.unpack(prefix)
        pointer = kind != KEY_FREE and bool(flags & layout.KEY_FLAG_POINTER)
        place = parent_table << 32 | parent_offset
        shape = self.shapes[prefix] = _Shape(
            kind,
            size,
            pointer,
            layout.KEY_POINTER.size if pointer else layout.FIXED_DATA_SIZES.get(kind),
            layout.KEY_TYPE_NAMES.get(kind, f"unknown({kind})"),
            zlib.crc32(b"\0\0\0\0", zlib.crc32(prefix)),
            [] if kind == KEY_FREE else self.children.setdefault(place, []),
        )
        return shape


@dataclass(frozen=True)
class KeyTable:
    """A key table that can be read: its place and size in the file (bytes), and what its header says."""

    offset: int
    size: int
    index: int
    sequence: int


def find_table(source: Source, offset: int, size: int, log: FindingLog) -> KeyTable | None:
    """The table at ``offset``, without its entries; None, with a finding, where there is none that can be read."""
    header = layout.KEY_TABLE_HEADER
    if offset + size > source.size or size < header.size:
        log.damage("hvs.key-table.outside", source.path, offset, "key table lies outside of the file", found=size)
        size = min(size, source.size - offset)
        if size < header.size:
            return None
    if size > layout.MAX_TABLE_BYTES:
        log.damage(
            "hvs.key-table.size",
            source.path,
            offset,
            "key table is absurdly large",
            found=size,
            expected=f"{layout.MAX_TABLE_BYTES:#x} at most",
        )
        size = layout.MAX_TABLE_BYTES
    raw = source.read(offset, header.size)
    signature, index, sequence, stored = header.unpack(raw)
    if signature != layout.KEY_TABLE_SIGNATURE:
        log.damage(
            "hvs.key-table.signature",
            source.path,
            offset,
            "key table signature",
            found=signature,
            expected=f"{layout.KEY_TABLE_SIGNATURE:#x}",
        )
        return None
    computed = checksum(raw, layout.KEY_TABLE_CHECKSUM_AT)
    if computed != stored:
        log.damage(
            "hvs.key-table.checksum",
            source.path,
            offset + 6,
            "key table header: wrong checksum",
            found=stored,
            expected=f"{computed:#x}",
        )
    if index == 0:
        log.damage(
            "hvs.key-table.index", source.path, offset + 2, "key table has the index 0, which stands for the root"
        )
    return KeyTable(offset, size, index, sequence)


def scan_numbered(table: KeyTable, source: Source, log: FindingLog, records: KeyRecords, scan: ScanKeys) -> None:
    """As :func:`scan_table`, with ``scan`` for the numbered arrays: a guest of 1 TiB has a million."""
    data = source.read(table.offset, table.size)
    groups, others, end = scan(data, layout.KEY_TABLE_HEADER.size, table.offset)
    for place, prefix, columns in groups:
        keys = records.numbered.get((place, prefix))
        if keys is None:
            keys = records.numbered[place, prefix] = NumberedKeys(prefix.decode("ascii"), source, log)
        keys.extend(columns)
    for at in others:
        _scan(table, data, at, at + 1, source, log, records)
    _report_rest(table, end, source, log)


def scan_table(table: KeyTable, source: Source, log: FindingLog, records: KeyRecords) -> None:
    """Add every used entry of a table to ``records``, each checked."""
    data = source.read(table.offset, table.size)
    end = _scan(table, data, layout.KEY_TABLE_HEADER.size, table.size, source, log, records)
    _report_rest(table, end, source, log)


def _report_rest(table: KeyTable, end: int, source: Source, log: FindingLog) -> None:
    """What is behind the last entry of a table; an entry that leaves it has been reported."""
    if end > table.size or end + layout.KEY_ENTRY.size < table.size:
        return
    if end != table.size:
        log.damage(
            "hvs.key-table.fill",
            source.path,
            table.offset + end,
            "key entries do not fill their table",
            found=end,
            expected=f"{table.size:#x}",
        )


def _scan(
    table: KeyTable, data: bytes, at: int, stop: int, source: Source, log: FindingLog, records: KeyRecords
) -> int:
    """Take the entries that begin between ``at`` and ``stop``; where the last of them ends."""
    # The one hot loop of opening a state of medium size: locals, few calls per entry.
    base, end = table.offset, table.size
    shapes, crc32 = records.shapes, zlib.crc32
    unpack, unpack_pointer = layout.KEY_ENTRY_REST.unpack_from, layout.KEY_POINTER.unpack_from
    while at < stop and at + 21 < end:
        shape = shapes.get(data[at : at + 12])
        if shape is None:
            shape = records.add_shape(data[at : at + 12])
            if shape.kind not in layout.KEY_TYPE_NAMES and shape.kind != KEY_FREE:
                log.note("key.type", source.path, base + at, "key of unknown type", found=shape.kind)
        kind, size, pointer, data_size, type_name, prefix_checksum, siblings = shape
        if size < 21 or at + size > end:
            log.damage(
                "hvs.key.leaves-table",
                source.path,
                base + at + 2,
                "key entry leaves its table, the rest of it is lost",
                found=size,
            )
            return at
        stored, sequence, name_size = unpack(data, at + 12)
        data_at = at + 21 + name_size
        if data_size is not None:
            data_end = data_at + data_size
        elif kind == KEY_FREE:
            _check_free(source, base + at, stored, log)
            at += size
            continue
        else:
            data_end = data_at + _variable_size(data, kind, prefix_checksum, at, data_at, size, stored)
        if data_end > at + size:
            log.damage(
                "hvs.key.value-size",
                source.path,
                base + at,
                "value of a key is longer than its entry",
                found=data_end - data_at,
            )
            at += size
            continue
        computed = crc32(data[at + 16 : data_end], prefix_checksum)
        if computed != stored:
            log.damage(
                "hvs.key.checksum",
                source.path,
                base + at + 12,
                "key entry: wrong checksum",
                found=stored,
                expected=f"{computed:#x}",
            )
        if pointer:
            value_size, value_at = unpack_pointer(data, data_at)
        else:
            value_at = base + data_at + (4 if kind in PREFIXED else 0)
            value_size = base + data_end - value_at
        name = data[at + 21 : data_at - 1] if name_size and not data[data_at - 1] else data[at + 21 : data_at]
        text = name.decode("utf-8", "surrogateescape")
        key = KeyEntry(text, type_name, source, log, base + at, value_at, value_size, pointer, sequence)
        siblings.append(key)
        if kind == KEY_NODE:
            records.nodes[table.index << 32 | at] = key
        at += size
    return at


def _check_free(source: Source, at: int, stored: int, log: FindingLog) -> None:
    if stored:
        message = "free key entry carries a checksum, it may have been a key"
        log.damage("hvs.key.free-checksum", source.path, at + 12, message, found=stored)


def _variable_size(data: bytes, kind: int, prefix_checksum: int, at: int, data_at: int, size: int, stored: int) -> int:
    """Bytes of checksummed data of an inline string, array, or value of unknown type."""
    if kind in PREFIXED:
        if data_at + 4 > at + size:
            return 4
        return 4 + int.from_bytes(data[data_at : data_at + 4], "little")
    # An unknown type does not say how much of the entry is data and how much slack. The checksum does.
    running = zlib.crc32(data[at + 16 : data_at], prefix_checksum)
    for length, byte in enumerate(data[data_at : at + min(size, MAX_SEARCH)]):
        if running == stored:
            return length
        running = zlib.crc32(bytes((byte,)), running)
    return max(0, at + size - data_at)
