"""The guests' own code, as machine code: a user program that fills its memory with a pattern, and boot sectors.

The word at address ``a`` of a process is ``a + key(tag)``, so memory read through the wrong tables shows it.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

READY = "GUEST-IS-READY"
MESSAGE = b"PATTERN-PROCESS "  # then tag=NN
BASE = 0x400000


class Region(NamedTuple):
    """Memory a pattern process maps: ``filled`` with its pattern, or mapped and never touched."""

    start: int
    size: int
    filled: bool


def regions(architecture: str, *, five_levels: bool = False) -> list[Region]:
    """Small pages, room for huge pages, untouched memory, and an address that needs the fifth level."""
    base = 0x60000000 if architecture == "i386" else 0x2000000000
    found = [
        Region(base, 0x80000, True),
        Region(base + 0x10000000, 0x400000, True),
        Region(base + 0x20000000, 0x10000, False),
    ]
    return [*found, Region(0xA5 << 48, 0x20000, True)] if five_levels else found


def word_size(architecture: str) -> int:
    """Bytes of the words of the pattern."""
    return 4 if architecture == "i386" else 8


def key(architecture: str, tag: int) -> int:
    """What a process adds to an address."""
    return tag * (0x01000000 if architecture == "i386" else 0x0101000000000000)


def pattern_program(architecture: str, tag: int, where: Sequence[Region], *, spins: bool) -> bytes:
    """A static ELF that maps and fills regions, then spins in user mode, or waits for ever."""
    code = {"amd64": _amd64, "i386": _i386, "arm64": _arm64}[architecture](tag, where, spins)
    message = MESSAGE + f"tag={tag:02d} ".encode()
    return _elf(architecture, message.ljust(64, b"*"), code)


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value & (1 << 64) - 1)


def _u32(value: int) -> bytes:
    return struct.pack("<I", value & (1 << 32) - 1)


def _amd64(tag: int, where: Sequence[Region], spins: bool) -> bytes:
    code = b""
    for start, size, filled in where:
        # mmap(start, size, read and write, private anonymous fixed, -1, 0)
        code += b"\x48\xbf" + _u64(start) + b"\xbe" + _u32(size) + b"\xba" + _u32(3) + b"\x41\xba" + _u32(0x32)
        code += b"\x49\xc7\xc0" + _u32(-1) + b"\x45\x31\xc9\xb8" + _u32(9) + b"\x0f\x05"
        if filled:  # rdi from start to end, rax the word: mov [rdi], rax; add rax, 8; add rdi, 8; cmp; jb
            code += b"\x48\xbf" + _u64(start) + b"\x48\xbe" + _u64(start + size)
            code += b"\x48\xb8" + _u64(start + key("amd64", tag))
            code += b"\x48\x89\x07\x48\x83\xc0\x08\x48\x83\xc7\x08\x48\x39\xf7\x72\xf0"
    for number in range(4):  # the message into xmm0 to xmm3
        code += b"\x0f\x10" + bytes([0x04 | number << 3, 0x25]) + _u32(BASE + 120 + 16 * number)
    return code + (b"\xeb\xfe" if spins else b"\xb8" + _u32(34) + b"\x0f\x05\xeb\xf7")  # or pause()


def _i386(tag: int, where: Sequence[Region], spins: bool) -> bytes:
    code = b""
    for start, size, filled in where:  # mmap2, as above
        code += b"\xbb" + _u32(start) + b"\xb9" + _u32(size) + b"\xba" + _u32(3) + b"\xbe" + _u32(0x32)
        code += b"\xbf" + _u32(-1) + b"\x31\xed\xb8" + _u32(192) + b"\xcd\x80"
        if filled:
            code += b"\xbf" + _u32(start) + b"\xb9" + _u32(start + size) + b"\xb8" + _u32(start + key("i386", tag))
            code += b"\x89\x07\x83\xc0\x04\x83\xc7\x04\x39\xcf\x72\xf4"
    return code + (b"\xeb\xfe" if spins else b"\xb8" + _u32(29) + b"\xcd\x80\xeb\xf7")


def _arm64_move(register: int, value: int) -> bytes:
    """movz, then movk for each further 16 bits that are not zero."""
    code = _u32(0xD2800000 | (value & 0xFFFF) << 5 | register)
    for part in (1, 2, 3):
        if value >> 16 * part & 0xFFFF:
            code += _u32(0xF2800000 | part << 21 | (value >> 16 * part & 0xFFFF) << 5 | register)
    return code


def _arm64(tag: int, where: Sequence[Region], spins: bool) -> bytes:
    code = b""
    for start, size, filled in where:  # mmap, as above
        for register, value in ((0, start), (1, size), (2, 3), (3, 0x32)):
            code += _arm64_move(register, value)
        code += _u32(0x92800004) + _arm64_move(5, 0) + _arm64_move(8, 222) + _u32(0xD4000001)
        if filled:  # str x2, [x0], #8; add x2, x2, #8; cmp x0, x1; b.lo
            word = start + key("arm64", tag) & (1 << 64) - 1
            code += _arm64_move(0, start) + _arm64_move(1, start + size) + _arm64_move(2, word)
            code += _u32(0xF8008402) + _u32(0x91002042) + _u32(0xEB01001F) + _u32(0x54FFFFA3)
    if spins:
        return code + _u32(0x14000000)
    wait = b"".join(_arm64_move(register, 0) for register in range(4))  # ppoll of nothing, for ever
    return code + wait + _arm64_move(8, 73) + _u32(0xD4000001) + _u32(0x14000000)


def _elf(architecture: str, message: bytes, code: bytes) -> bytes:
    """A static executable: headers, message, code, all in one segment at BASE that may be written."""
    wide = architecture != "i386"
    machine = {"amd64": 62, "i386": 3, "arm64": 183}[architecture]
    size, headers = 0, 120 if wide else 84
    size = headers + len(message) + len(code)
    entry = BASE + headers + len(message)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    if wide:
        header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, size, 0x1000)
    else:
        header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        segment = struct.pack("<IIIIIIII", 1, 0, BASE, BASE, size, size, 7, 0x1000)
    return ident + header + segment + message + code


def initramfs(architecture: str, busybox: Path, module: Path | None, processors: int, where: Sequence[Region]) -> bytes:
    """A root file system whose init starts pattern processes and says that it is ready.

    One process spins for each processor but one, which stays idle; two more wait.
    """
    spinning = max(1, processors - 1)
    starts = "".join(f"/pattern{tag} &\n" for tag in range(1, spinning + 3))
    load = "/bin/busybox insmod /module.ko\n" if module is not None else ""
    forever = "while :; do /bin/busybox sleep 3600; done"
    init = f"#!/bin/busybox sh\n{load}{starts}/bin/busybox sleep 2\necho {READY}\n{forever}\n"
    files: list[tuple[str, int, bytes | tuple[int, int]]] = [
        ("dev", 0o040755, b""),
        ("bin", 0o040755, b""),
        ("dev/console", 0o020600, (5, 1)),
        ("dev/null", 0o020666, (1, 3)),
        ("bin/busybox", 0o100755, busybox.read_bytes()),
        ("init", 0o100755, init.encode()),
    ]
    if module is not None:
        files.append(("module.ko", 0o100644, module.read_bytes()))
    for tag in range(1, spinning + 3):
        program = pattern_program(architecture, tag, where, spins=tag <= spinning)
        files.append((f"pattern{tag}", 0o100755, program))
    return gzip.compress(_cpio(files), 1)


def _cpio(files: Sequence[tuple[str, int, bytes | tuple[int, int]]]) -> bytes:
    """An archive in the "newc" format; a tuple is the number of a device."""
    out = b""
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], start=1):
        device, data = ((0, 0), content) if isinstance(content, bytes) else (content, b"")
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


def boot_sector(*, protected: bool) -> bytes:
    """Says READY on the serial port, fills memory with words that count, and spins.

    In real mode 64 KiB at 0x20000; in protected mode without paging 1 MiB at 0x100000, through a data segment with that
    base. Both leave the processor with segments whose bases are not zero.
    """
    say = b"\xfa\x31\xc0\x8e\xd8\x8e\xd0\xbc\x00\x7c\xbe\x80\x7d\xba\xf8\x03\xac\x84\xc0\x74\x03\xee\xeb\xf8"
    if protected:  # A20 on, load the table, set CR0.PE
        code = say + b"\xe4\x92\x0c\x02\xe6\x92\x0f\x01\x16\x60\x7d\x0f\x20\xc0\x0c\x01\x0f\x22\xc0"
        code += b"\xea" + struct.pack("<HH", 0x7C00 + len(code) + 5, 8)
        code += b"\x66\xb8\x10\x00\x8e\xd8\x8e\xc0\x8e\xe0\x31\xff\xb9\x00\x00\x10\x00"
        code += b"\x89\xf8\xab\x39\xcf\x72\xf9\xeb\xfe"
    else:
        code = say + b"\xb8\x00\x20\x8e\xc0\x8e\xe0\x31\xff\x89\xf8\xab\x85\xff\x75\xf9\xeb\xfe"
    sector = bytearray(512)
    sector[: len(code)] = code
    sector[0x140:0x158] = struct.pack("<QQQ", 0, 0x00CF9A000000FFFF, 0x00CF92100000FFFF)
    sector[0x160:0x166] = struct.pack("<HI", 23, 0x7D40)
    text = READY.encode() + b"\n\0"
    sector[0x180 : 0x180 + len(text)] = text
    sector[510:] = b"\x55\xaa"
    return bytes(sector)
