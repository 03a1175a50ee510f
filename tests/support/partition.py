"""Partition state values byte by byte, written from the specification (section 6) alone."""

from __future__ import annotations

import struct
from collections.abc import Sequence

INTEL, ARM = 1, 0x10


def chunk(number: int, data: bytes = b"") -> bytes:
    return struct.pack("<II8x", number, len(data)) + data


def prolog(vendor: int = INTEL, summary: int = 0) -> bytes:
    return chunk(0, struct.pack("<IB3xI", 0x50546475, summary, vendor).ljust(4064, b"\0"))


def epilog() -> bytes:
    return chunk(0xF0000000)


def vp_indices(indices: Sequence[int], boot: int = 0) -> bytes:
    bitmap = sum(1 << index for index in indices)
    return chunk(0x30000000, struct.pack("<I", boot) + bitmap.to_bytes(max(12, bitmap.bit_length() // 8 + 1), "little"))


def vp(index: int) -> bytes:
    return chunk(0x30001000, struct.pack("<I12x", index))


def vp_vtl(number: int) -> bytes:
    return chunk(0x3001A000, bytes([number]).ljust(16, b"\0"))


def partition_vtl(number: int) -> bytes:
    return chunk(0x20008000, bytes([number]).ljust(16, b"\0"))


def os_id(value: int) -> bytes:
    return chunk(0x20001000, struct.pack("<Q8x", value))


def control_page(runnable: int) -> bytes:
    return chunk(0x30018000, bytes(24) + bytes([runnable]).ljust(8, b"\0"))


def general(*values: int) -> bytes:
    """rax rcx rdx rbx rsp rbp rsi rdi r8..r15 rip rflags; missing ones are zero."""
    return chunk(0x30005000, struct.pack("<18Q", *values, *[0] * (18 - len(values))))


def control(cr0: int = 0, cr2: int = 0, cr3: int = 0, cr4: int = 0, cr8: int = 0, efer: int = 0) -> bytes:
    return chunk(0x30007000, struct.pack("<6Q", cr0, cr2, cr3, cr4, cr8, efer))


def debug(*values: int) -> bytes:
    return chunk(0x30008000, struct.pack("<6Q", *values, *[0] * (6 - len(values))))


def segments(cs_attributes: int = 0x9B, cpl: int = 0) -> bytes:
    rows = [struct.pack("<QIHH", n << 32, 0xFFFF, n, cs_attributes if n == 1 else 0x93) for n in range(8)]
    return chunk(0x30009000, b"".join(rows) + bytes([cpl]).ljust(16, b"\0"))


def tables() -> bytes:
    return chunk(0x3000A000, struct.pack("<6xHQ", 0x111, 0x1000) + struct.pack("<6xHQ", 0x222, 0x2000))


def envelope(stream: bytes, *, items: bytes = b"", last_item: bytes = bytes(16), total: int | None = None) -> bytes:
    """Descriptor, header items, the last item's header, the stream."""
    head = 24 + len(items)
    size = head + 16 + len(stream)
    return struct.pack("<QQQ", 24, head, size if total is None else total) + items + last_item + stream


def item(tag: bytes, data: bytes) -> bytes:
    return struct.pack("<4s4sII", b"METI", tag, 16, len(data)) + data


def simple_blob(vendor: int = INTEL) -> bytes:
    """One processor in VTL0 with all x86 registers, as small as a valid state can be."""
    row = [vp_indices([0]), vp(0), general(1, 2, 3), control(), debug(), segments(), tables()]
    return envelope(prolog(vendor) + b"".join(row) + epilog())


def metadata(pages: int, gpa: int = 0, backing: int = 0, *, version: int = 3, flags: int = 0, node: int = 0) -> bytes:
    """A RamMemoryBlock value (4.1); all numbers are pages."""
    return struct.pack("<IIQQQIIQ", version, flags, pages, backing, gpa, node, 0, 0)
