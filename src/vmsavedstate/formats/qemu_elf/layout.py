"""Layouts of an ELF core file and of the notes QEMU writes into it. All little-endian. No logic here."""

from __future__ import annotations

import struct
from typing import NamedTuple

ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB = 1
ET_CORE = 4
EM_386, EM_X86_64, EM_AARCH64 = 3, 62, 183
PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF  # the number of program headers stands in section header 0
SHN_XINDEX = 0xFFFF  # so does the index of the section of names
SHT_NOBITS = 8  # a section without bytes in the file

# The identification: magic, class, data, version, padding
IDENT = struct.Struct("<4sBBB9x")
IDENT_SIZE = 16


_SECTION_FIELDS = ("name", "type", "flags", "addr", "offset", "size", "link", "info", "align", "entsize")


class ElfClass(NamedTuple):
    """The structures of 32- or 64-bit files, and the order of the fields of a program header."""

    header: struct.Struct  # type, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, phnum, ...
    program: struct.Struct
    program_fields: tuple[str, ...]
    section: struct.Struct
    section_fields: tuple[str, ...]


CLASSES = {
    ELFCLASS32: ElfClass(
        struct.Struct("<HHIIIIIHHHHHH"), struct.Struct("<8I"),
        ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align"),
        struct.Struct("<10I"), _SECTION_FIELDS,
    ),
    ELFCLASS64: ElfClass(
        struct.Struct("<HHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"),
        ("type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align"),
        struct.Struct("<IIQQQQIIQQ"), _SECTION_FIELDS,
    ),
}  # fmt: skip

NOTE = struct.Struct("<III")  # name size, description size, type
NT_PRSTATUS, NT_PRFPREG, NT_PRPSINFO, NT_AUXV = 1, 2, 3, 6
NT_FILE, NT_SIGINFO = 0x46494C45, 0x53494749
PRPSINFO_NAME_AT = 40  # of 16 bytes, in the 64-bit structure
KCORE_NAME = b"vmlinux"  # what /proc/kcore says there
PROCESS_NOTES = {NT_PRPSINFO, NT_AUXV, NT_FILE, NT_SIGINFO}  # owner CORE: the dump is of a process, not of a machine


class Prstatus(NamedTuple):
    """A prstatus structure: where the process id (processor index plus 1) and the registers stand, and its size."""

    size: int
    pid_at: int
    registers_at: int
    width: int
    names: tuple[str, ...]


# fmt: off
PRSTATUS = {
    EM_X86_64: Prstatus(
        336, 32, 112, 8,
        ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "-",
         "rip", "-", "rflags", "rsp"),
    ),
    EM_386: Prstatus(
        144, 24, 72, 4,
        ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax", "-", "-", "-", "-", "-", "rip", "-", "rflags", "rsp"),
    ),
    EM_AARCH64: Prstatus(392, 32, 112, 8, (*(f"x{number}" for number in range(29)), "fp", "lr", "sp", "pc", "cpsr")),
}
# fmt: on

# QEMU's own note of an x86 processor, version 1: header, 18 general registers, 10 segments, CR0 to CR4, KERNEL_GS_BASE
CPU_NOTE_HEADER = struct.Struct("<II")  # version, size
CPU_NOTE_VERSION = 1
CPU_NOTE_GENERAL = struct.Struct("<18Q")
CPU_NOTE_GENERAL_NAMES = (
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rsp",
    "rbp",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
    "rflags",
)
CPU_NOTE_SEGMENTS_AT = 152
CPU_NOTE_SEGMENT = struct.Struct("<IIIIQ")  # selector, limit, flags (second word of the descriptor), padding, base
CPU_NOTE_SEGMENT_NAMES = ("cs", "ds", "es", "fs", "gs", "ss", "ldtr", "tr", "gdtr", "idtr")
CPU_NOTE_CONTROL_AT = 392
CPU_NOTE_CONTROL = struct.Struct("<5Q")  # CR0, CR1 (does not exist), CR2, CR3, CR4
CPU_NOTE_SIZE = 432
CPU_NOTE_KERNEL_GS_AT = 432  # in notes of 440 bytes

# VirtualBox's dumpvmcore: a description of the core, then a structure per processor, laid out as its version says
VBOX_CORE = ("VBCORE", 0xB00)
VBOX_CPU = ("VBCPU", 0xB01)

# NT_PRFPREG of AArch64: 32 vector registers of 16 bytes, FPSR, FPCR
VECTORS = 32
VECTOR_SIZE = 16
VECTOR_STATUS = struct.Struct("<II")
PRFPREG_SIZE = VECTORS * VECTOR_SIZE + VECTOR_STATUS.size
