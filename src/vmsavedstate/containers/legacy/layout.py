"""On-disk layouts of the container of ``.bin`` and ``.vsv`` (format specification, section 8). No logic here."""

from __future__ import annotations

import struct

SIGNATURE = 0x02182003
# signature, version, unknown, index capacity, index offset, name area offset, name area capacity, name bytes used
HEADER = struct.Struct("<IIIIQQII")
UNKNOWN_AT_8 = 1  # header +8, of unknown meaning, 1 in both known files

# name offset, name length with NUL, in use (1), type, allocated size, data size, data offset or the value itself
ENTRY = struct.Struct("<IHBBIIQ")
ENTRY_VALUE_AT = 16
INLINE_LIMIT = 8  # values of up to 8 bytes stand in the entry

TYPE_NAMES = {1: "array", 2: "uint", 3: "bool", 5: "string"}
