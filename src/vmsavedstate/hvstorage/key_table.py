"""Key tables: the records that name values and nodes (format specification, 2.6 to 2.8).

One pass checks the structure and every checksum and returns plain records; the tree is made of them in ``store``.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from ..findings import FindingLog
from ..source import Source
from . import layout
from .checksum import checksum
from .layout import KeyType

MAX_TABLE_BYTES = 16 << 20  # real tables have 4 KiB; nothing is allocated by an unchecked size


class KeyRecord(NamedTuple):
    """One key-table entry that is not free.

    Attributes:
        offset: of the entry in the file, bytes.
        key: table index << 32 | offset in the table: what its children name as their parent.
        parent: the same of the parent; 0 for children of the root.
        kind: value of the type byte (2.8).
        pointer: whether the value is a file object.
        sequence: insertion sequence among its siblings.
        name: bytes of the name without NUL.
        value_offset, value_size: extent of the value in the file, bytes.
    """

    offset: int
    key: int
    parent: int
    kind: int
    pointer: bool
    sequence: int
    name: bytes
    value_offset: int
    value_size: int


class KeyTable(NamedTuple):
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
        log.damage(source.path, offset, "key table is absurdly large", found=size, expected=f"{MAX_TABLE_BYTES:#x} at most")
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


def scan_table(table: KeyTable, path: str, log: FindingLog) -> list[KeyRecord]:
    """Every used entry of a table, in stored order, each checked."""
    # The one hot loop of opening a large state (a 64 GiB guest has 65,536 entries): locals, one CRC per entry.
    data, base, end = table.data, table.offset, len(table.data)
    key_base = table.index << 32
    unpack, crc32 = layout.KEY_ENTRY.unpack_from, zlib.crc32
    fixed_sizes, free = layout.FIXED_DATA_SIZES, KeyType.FREE
    records: list[KeyRecord] = []
    append = records.append
    at = layout.KEY_TABLE_HEADER.size
    while at + 21 < end:
        kind, flags, size, parent_table, parent_offset, stored, sequence, name_size = unpack(data, at)
        if size < 21 or at + size > end:
            log.damage(path, base + at + 2, "key entry leaves its table, the rest of it is lost", found=size)
            return records
        if kind == free:
            if stored:
                log.damage(path, base + at + 12, "free key entry carries a checksum, it may have been a key", found=stored)
            at += size
            continue
        data_at = at + 21 + name_size
        if flags & 1:
            data_size, value_at = 12, base + data_at
        elif kind in fixed_sizes:
            data_size, value_at = fixed_sizes[kind], base + data_at
        else:
            data_size, value_at = _variable_size(data, kind, at, data_at, size, stored), base + data_at + 4
        data_end = data_at + data_size
        if data_end > at + size:
            log.damage(path, base + at, "value of a key is longer than its entry", found=data_size)
            at += size
            continue
        computed = crc32(b"\0\0\0\0" + data[at + 16 : data_end], crc32(data[at : at + 12]))
        if computed != stored:
            log.damage(path, base + at + 12, "key entry: wrong checksum", found=stored, expected=f"{computed:#x}")
        pointer = bool(flags & 1)
        if pointer:
            value_size, value_at = layout.KEY_POINTER.unpack_from(data, data_at)
        else:
            value_size = data_end + base - value_at
        name = data[at + 21 : data_at - 1] if name_size and not data[data_at - 1] else data[at + 21 : data_at]
        parent = parent_table << 32 | parent_offset
        append(KeyRecord(base + at, key_base | at, parent, kind, pointer, sequence, name, value_at, value_size))
        at += size
    if at != end:
        log.damage(path, base + at, "key entries do not fill their table", found=at, expected=f"{end:#x}")
    return records


def _variable_size(data: bytes, kind: int, at: int, data_at: int, size: int, stored: int) -> int:
    """Bytes of checksummed data of an inline string, array, or value of unknown type."""
    if kind in (KeyType.STRING, KeyType.ARRAY):
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
