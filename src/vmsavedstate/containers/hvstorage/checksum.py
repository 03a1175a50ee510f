"""The checksum of every HyperVStorage structure (format specification, 2.4)."""

from __future__ import annotations

import zlib

_ZEROS = b"\0\0\0\0"


def checksum(structure: bytes, field_at: int) -> int:
    """CRC-32 of ``structure`` with the four bytes at ``field_at`` taken as zero."""
    return zlib.crc32(structure[field_at + 4 :], zlib.crc32(_ZEROS, zlib.crc32(structure[:field_at])))


def sealed(structure: bytes, field_at: int) -> bytes:
    """``structure`` with its checksum filled in at ``field_at``."""
    seal = checksum(structure, field_at).to_bytes(4, "little")
    return structure[:field_at] + seal + structure[field_at + 4 :]
