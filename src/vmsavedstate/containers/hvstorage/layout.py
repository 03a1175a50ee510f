"""On-disk layouts of HyperVStorage (format specification, section 2). Reader and writer share them; no logic here.

All integers are little-endian and packed. Every checksum is CRC-32 (as ``zlib.crc32``) over its structure with the
checksum field as four zero bytes (2.4).
"""

from __future__ import annotations

import struct
from enum import IntEnum

# 2.2 Header, two copies
HEADER_SIGNATURE = 0x01282014
HEADER = struct.Struct("<IIHIIIIQQI")
HEADER_CHECKSUM_AT = 4
HEADER_OFFSETS = (0x0000, 0x1000)
FORMAT_VERSION = 0x0400

# 2.1 Alignment
MIN_ALIGNMENT = 0x1000
MAX_ALIGNMENT = 0x10000

# 2.5 Object tables
FIRST_OBJECT_TABLE = 0x2000
OBJECT_TABLE_SIGNATURE = 0x01110001
OBJECT_TABLE_HEADER = struct.Struct("<II")
OBJECT_ENTRY = struct.Struct("<BIQIB")
OBJECT_ENTRY_CHECKSUM_AT = 1
OBJECT_FLAG_REQUIRED = 0x01


class ObjectType(IntEnum):
    """Kind of an object-table entry (2.5)."""

    EMPTY = 0
    OBJECT_TABLE = 1
    KEY_TABLE = 2
    FILE_OBJECT = 3
    FREE = 4


# Bounds against hostile files (section 11)
MAX_TABLE_BYTES = 16 << 20  # real tables have 4 or 8 KiB; nothing is allocated by an unchecked size
MAX_KEY_TABLES = 65_535  # their index is a u16, and 0 is the root

# 2.6 Key tables
KEY_TABLE_SIGNATURE = 0x0002
KEY_TABLE_HEADER = struct.Struct("<HHHI")
KEY_TABLE_CHECKSUM_AT = 6
KEY_TABLE_SIZE = 0x1000

# 2.7 Key table entries
KEY_ENTRY = struct.Struct("<BBIHIIIB")
KEY_ENTRY_CHECKSUM_AT = 12
KEY_ENTRY_PREFIX = struct.Struct("<BBIHI")  # its part before the checksum
KEY_ENTRY_REST = struct.Struct("<IIB")  # from the checksum on
KEY_FLAG_POINTER = 0x01
KEY_POINTER = struct.Struct("<IQ")
LENGTH_PREFIX = struct.Struct("<I")


class KeyType(IntEnum):
    """Type of a key's value (2.8)."""

    FREE = 1
    INT = 3
    UINT = 4
    DOUBLE = 5
    STRING = 6
    ARRAY = 7
    BOOL = 8
    NODE = 9


# Keyed by plain integers: these are looked up once per key, and an IntEnum as key costs four times as much.
KEY_TYPE_NAMES: dict[int, str] = {int(kind): kind.name.lower() for kind in KeyType if kind != KeyType.FREE}
FIXED_DATA_SIZES: dict[int, int] = {3: 8, 4: 8, 5: 8, 8: 4, 9: 12}
NODE_DATA = struct.Struct("<QI")  # ChangeTrackingSequence, NextInsertionSequence
EXTERNAL_FROM = 2048  # values of this many bytes and more become file objects (2.8)

# 2.11 Replay log
REPLAY_SIGNATURE = 0x01110003
REPLAY_HEADER = struct.Struct("<IIIBIBQII")
REPLAY_HEADER_CHECKSUM_AT = 4
REPLAY_ENTRY = struct.Struct("<QIQII")
REPLAY_ENTRY_CHECKSUM_AT = 20
REPLAY_HEADER_AREA = 0x1000


def align(value: int, alignment: int) -> int:
    """``value`` rounded up to a multiple of ``alignment`` (bytes)."""
    return -(-value // alignment) * alignment
