"""Which register stands where in which chunk (format specification, 6.5, 6.6 and 6.8). Tables only.

A table maps the register's name to (offset in the chunk's data, kind). Kinds: ``u8``, ``u32``, ``u64``, ``u128``,
``segment``, ``table``. Reader and writer share these tables.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .partition_state import ChunkId

SEGMENT = struct.Struct("<QIHH")  # base, limit, selector, attributes
TABLE = struct.Struct("<6xHQ")  # limit at 6, base at 8: not the order of the SDK's structure
FP_CONTROL_STATUS = struct.Struct("<HHBxHQ")  # FXSAVE bytes 0 to 15
XMM_CONTROL_STATUS = struct.Struct("<QII")  # FXSAVE bytes 16 to 31


class ChunkLayout(NamedTuple):
    """One register chunk: its id, its data length in bytes, and its registers."""

    chunk: ChunkId
    size: int
    registers: dict[str, tuple[int, str]]


def _row(names: str, start: int, step: int, kind: str) -> dict[str, tuple[int, str]]:
    return {name: (start + index * step, kind) for index, name in enumerate(names.split())}


def _numbered(prefix: str, count: int, start: int, step: int, kind: str) -> dict[str, tuple[int, str]]:
    return {f"{prefix}{index}": (start + index * step, kind) for index in range(count)}


X86_GENERAL = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15"
FP_STATUS_AT = 384
XMM_STATUS_AT = 400
ST_AT = 256
CPL_AT = 128

X86_CHUNKS = (
    ChunkLayout(ChunkId.VP_GP_REGISTERS, 144, _row(X86_GENERAL + " rip rflags", 0, 8, "u64")),
    ChunkLayout(ChunkId.VP_VTL_CONTROL_REGISTERS, 48, _row("cr0 cr2 cr3 cr4 cr8 efer", 0, 8, "u64")),
    ChunkLayout(ChunkId.VP_DEBUG_REGISTERS, 48, _row("dr0 dr1 dr2 dr3 dr6 dr7", 0, 8, "u64")),
    ChunkLayout(ChunkId.VP_SEGMENT_REGISTERS, 144, _row("es cs ss ds fs gs ldtr tr", 0, 16, "segment")),
    ChunkLayout(ChunkId.VP_TABLE_REGISTERS, 32, _row("idtr gdtr", 0, 16, "table")),
    ChunkLayout(
        ChunkId.VP_FP_REGISTERS,
        416,
        _numbered("xmm", 16, 0, 16, "u128")
        | _numbered("fpmmx", 8, ST_AT, 16, "u128")
        | {"mxcsr": (XMM_STATUS_AT + 8, "u32")},
    ),
    ChunkLayout(ChunkId.VP_XSAVE_CONTROL_REGISTERS, 64, {"xcr0": (0, "u64")}),
)

# Verified on real files, names not published: absent where the chunk is absent, never a finding.
X86_OPTIONAL_CHUNKS = (
    ChunkLayout(ChunkId.VP_VIRTUAL_MSRS, 96, {"apic_base": (16, "u64")}),
    ChunkLayout(ChunkId.PAT_AND_MTRRS, 368, {"pat": (0, "u64"), "mtrr_cap": (8, "u64"), "mtrr_def_type": (16, "u64")}),
)

# The work of third parties alone (mark R): shown only under a name that says so.
X86_UNCONFIRMED = (
    ChunkLayout(
        ChunkId.VP_VIRTUAL_MSRS,
        96,
        {
            "tsc": (0, "u64"),
            "kernel_gs_base": (8, "u64"),
            "star": (56, "u64"),
            "lstar": (64, "u64"),
            "cstar": (72, "u64"),
            "sfmask": (80, "u64"),
            "tsc_aux": (88, "u64"),
        },
    ),
)

ARM64_CHUNKS = (
    ChunkLayout(
        ChunkId.VP_GP_REGISTERS,
        336,
        _numbered("x", 29, 0, 8, "u64")
        # The interrupted context of a guest stands in the exception registers of EL2: pc and cpsr (6.6).
        | _row(
            "fp lr pc cpsr esr_el1 spsr_el1 far_el1 par_el1 elr_el1 sp_el0 sp_el1 afsr0_el1 afsr1_el1", 232, 8, "u64"
        ),
    ),
    ChunkLayout(
        ChunkId.VP_VTL_CONTROL_REGISTERS,
        128,
        _row(
            "vmpidr_el2 vpidr_el2 sctlr_el1 actlr_el1 tcr_el1 mair_el1 tpidr_el1 amair_el1 tpidrro_el0 tpidr_el0 "
            "contextidr_el1 cpacr_el1 csselr_el1 cntkctl_el1 cntv_cval_el0 cntv_ctl_el0",
            0,
            8,
            "u64",
        ),
    ),
    ChunkLayout(ChunkId.VP_TABLE_REGISTERS, 32, _row("ttbr0_el1 ttbr1_el1 vbar_el1", 0, 8, "u64")),
    ChunkLayout(ChunkId.VP_FP_REGISTERS, 528, _numbered("q", 32, 0, 16, "u128") | _row("fpsr fpcr", 512, 8, "u64")),
)

# Shared between the VTLs of a processor; everything else is private to each (6.7, from the TLFS).
X86_SHARED = frozenset(
    {*X86_GENERAL.split(), "cr2", "dr0", "dr1", "dr2", "dr3", "mxcsr", "fpu", "xcr0"}
    | {f"xmm{n}" for n in range(16)}
    | {f"fpmmx{n}" for n in range(8)}
) - {"rsp"}
ARM64_SHARED = frozenset({"fp", "lr"} | {f"x{n}" for n in range(29)} | {f"q{n}" for n in range(32)})
