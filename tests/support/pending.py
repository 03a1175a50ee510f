"""The real state whose last commit is made pending again, as a host that lost power would have left it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

LOG_COUNT, LOG_HEADER, ENTRY = 8, 34, 28


def made_pending(path: Path, target: Path, *, spoil: bool, break_one: bool = False) -> None:
    """Set the count of the real replay log to its 11 stale entries, and spoil what they would write."""
    raw = bytearray(path.read_bytes())
    copies = [struct.unpack_from("<IIHIIIIQQI", raw, at) for at in (0, 0x1000)]
    log_at = max(copies, key=lambda copy: copy[2])[7]
    struct.pack_into("<I", raw, log_at + LOG_COUNT, 11)
    struct.pack_into("<I", raw, log_at + 4, 0)
    struct.pack_into("<I", raw, log_at + 4, zlib.crc32(raw[log_at : log_at + LOG_HEADER]))
    for number in range(11):
        at = log_at + LOG_HEADER + number * ENTRY
        destination, size, payload, _, _ = struct.unpack_from("<QIQII", raw, at)
        assert raw[destination : destination + size] == raw[log_at + payload : log_at + payload + size]
        if spoil:
            raw[destination : destination + size] = b"\xa5" * size
    if break_one:
        raw[log_at + LOG_HEADER + 5 * ENTRY + 24] ^= 1
        at = log_at + LOG_HEADER + 5 * ENTRY
        struct.pack_into("<I", raw, at + 20, 0)
        struct.pack_into("<I", raw, at + 20, zlib.crc32(raw[at : at + ENTRY]))
    target.write_bytes(raw)
