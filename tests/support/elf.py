"""ELF dumps byte by byte, as QEMU writes them, faulty ones included; independent of the package's layouts."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

X86_64, I386, AARCH64 = 62, 3, 183


class Segment(NamedTuple):
    """Guest memory: address, content, and bytes in memory where that is more than the content."""

    gpa: int
    data: bytes
    memory_size: int | None = None


def note(owner: str, kind: int, data: bytes) -> bytes:
    name = owner.encode() + b"\0"
    head = struct.pack("<III", len(name), len(data), kind)
    return head + name + bytes(-len(name) % 4) + data + bytes(-len(data) % 4)


def prstatus_x86_64(cpu: int, *, rip: int = 0x1234, rax: int = 7) -> bytes:
    registers = [0] * 27
    registers[10], registers[16] = rax, rip
    return note("CORE", 1, struct.pack("<32xI76x27Q8x", cpu + 1, *registers))


def prstatus_i386(cpu: int, *, eip: int = 0x1234) -> bytes:
    registers = [0] * 17
    registers[12] = eip
    return note("CORE", 1, struct.pack("<24xI44x17I4x", cpu + 1, *registers))


def prstatus_aarch64(cpu: int, *, pc: int = 0x1234, sp: int = 0x5000, pstate: int = 0x3C5) -> bytes:
    registers = [*range(100, 131), sp, pc, pstate]
    return note("CORE", 1, struct.pack("<32xI76x34Q8x", cpu + 1, *registers))


def vectors(first: int = 1) -> bytes:
    content = b"".join((first + number).to_bytes(16, "little") for number in range(32))
    return note("CORE", 2, content + struct.pack("<II8x", 0x11, 0x22))


def cpu_state(
    *, rip: int = 0x1234, rax: int = 7, cr0: int = 0x80010001, cr3: int = 0x1000, cr4: int = 0x20, long_code: bool = True,
    version: int = 1, kernel_gs: int | None = 0xFFFF800000001000,
) -> bytes:  # fmt: skip
    general = [rax, *range(1, 16), rip, 0x246]
    code = 0x00AF9B00 if long_code else 0x00CF9B00  # with bits 19 to 16 of the limit, as QEMU has them
    segments = [(8, 0xFFFFFFFF, code, 0)] + [(16, 0xFFFFFFFF, 0x00CF9300, number) for number in range(7)]
    segments += [(0, 0x7F, 0, 0xFFFF0000), (0, 0xFFF, 0, 0xFFFF1000)]
    data = struct.pack("<18Q", *general) + b"".join(struct.pack("<IIIIQ", a, b, c, 0, d) for a, b, c, d in segments)
    data += struct.pack("<5Q", cr0, 0, 0xDEAD000, cr3, cr4)
    if kernel_gs is not None:
        data += struct.pack("<Q", kernel_gs)
    return note("QEMU", 0, struct.pack("<II", version, 8 + len(data)) + data)


def elf(
    machine: int, notes: bytes, segments: Sequence[Segment], *, wide: bool = True, kind: int = 4, many: bool = False
) -> bytes:
    """A core file; ``many`` keeps the number of program headers in section header 0."""
    count = len(segments) + 1
    header_size, entry = (64, 56) if wide else (52, 32)
    section_at = header_size + count * entry
    notes_at = section_at + (64 if wide else 40) * many
    at = notes_at + len(notes) + 3  # never aligned, as in QEMU's own
    table = [_program(wide, 4, notes_at, 0, len(notes), len(notes))]
    for segment in segments:
        size = len(segment.data) if segment.memory_size is None else segment.memory_size
        table.append(_program(wide, 1, at, segment.gpa, len(segment.data), size))
        at += len(segment.data)
    fields = (kind, machine, 1, 0, header_size, section_at if many else 0, 0, header_size, entry,
              0xFFFF if many else count, 64 if wide else 40, int(many), 0)  # fmt: skip
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", *fields)
    section = struct.pack("<44xI16x" if wide else "<28xI8x", count) if many else b""
    return header + b"".join(table) + section + notes + bytes(3) + b"".join(segment.data for segment in segments)


def _program(wide: bool, kind: int, offset: int, gpa: int, size: int, memory: int) -> bytes:
    if wide:
        return struct.pack("<IIQQQQQQ", kind, 0, offset, 0, gpa, size, memory, 0)
    return struct.pack("<8I", kind, offset, 0, gpa, size, memory, 0, 0)
