"""The names and types of all registers: the vocabulary of formats, engine and people. No code, no values.

Sources of the names: format specification, 6.5, 6.6 and 6.8. Which of them a processor has, the state decides.
"""

from __future__ import annotations

from .values import FpuState, SegmentRegister, TableRegister


class X86RegisterNames:
    """What ``registers.<name>`` is on x86 (16, 32 and 64 bit)."""

    # general, control, debug, system (64 bits)
    rax: int
    rcx: int
    rdx: int
    rbx: int
    rsp: int
    rbp: int
    rsi: int
    rdi: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    dr0: int
    dr1: int
    dr2: int
    dr3: int
    dr6: int
    dr7: int
    xcr0: int
    mxcsr: int
    apic_base: int
    pat: int
    mtrr_cap: int
    mtrr_def_type: int
    kernel_gs_base: int
    # segments and tables, with their hidden parts
    es: SegmentRegister
    cs: SegmentRegister
    ss: SegmentRegister
    ds: SegmentRegister
    fs: SegmentRegister
    gs: SegmentRegister
    ldtr: SegmentRegister
    tr: SegmentRegister
    idtr: TableRegister
    gdtr: TableRegister
    # x87 and SSE (128 bits)
    fpu: FpuState
    xmm0: int
    xmm1: int
    xmm2: int
    xmm3: int
    xmm4: int
    xmm5: int
    xmm6: int
    xmm7: int
    xmm8: int
    xmm9: int
    xmm10: int
    xmm11: int
    xmm12: int
    xmm13: int
    xmm14: int
    xmm15: int
    fpmmx0: int
    fpmmx1: int
    fpmmx2: int
    fpmmx3: int
    fpmmx4: int
    fpmmx5: int
    fpmmx6: int
    fpmmx7: int


class Arm64RegisterNames:
    """What ``registers.<name>`` is on ARM64."""

    # General and system (64 bits), SIMD (128 bits)
    x0: int
    x1: int
    x2: int
    x3: int
    x4: int
    x5: int
    x6: int
    x7: int
    x8: int
    x9: int
    x10: int
    x11: int
    x12: int
    x13: int
    x14: int
    x15: int
    x16: int
    x17: int
    x18: int
    x19: int
    x20: int
    x21: int
    x22: int
    x23: int
    x24: int
    x25: int
    x26: int
    x27: int
    x28: int
    fp: int
    lr: int
    pc: int
    cpsr: int
    sp_el0: int
    sp_el1: int
    esr_el1: int
    spsr_el1: int
    far_el1: int
    par_el1: int
    elr_el1: int
    afsr0_el1: int
    afsr1_el1: int
    vmpidr_el2: int
    vpidr_el2: int
    sctlr_el1: int
    actlr_el1: int
    tcr_el1: int
    mair_el1: int
    amair_el1: int
    tpidr_el0: int
    tpidrro_el0: int
    tpidr_el1: int
    contextidr_el1: int
    cpacr_el1: int
    csselr_el1: int
    cntkctl_el1: int
    cntv_cval_el0: int
    cntv_ctl_el0: int
    ttbr0_el1: int
    ttbr1_el1: int
    vbar_el1: int
    fpsr: int
    fpcr: int
    q0: int
    q1: int
    q2: int
    q3: int
    q4: int
    q5: int
    q6: int
    q7: int
    q8: int
    q9: int
    q10: int
    q11: int
    q12: int
    q13: int
    q14: int
    q15: int
    q16: int
    q17: int
    q18: int
    q19: int
    q20: int
    q21: int
    q22: int
    q23: int
    q24: int
    q25: int
    q26: int
    q27: int
    q28: int
    q29: int
    q30: int
    q31: int


class Arm64HighRegisterNames:
    """Registers of EL2 and EL3 on ARM64, which no saved state of Hyper-V has: they come beside dumps of QEMU."""

    sp_el2: int
    sctlr_el2: int
    tcr_el2: int
    ttbr0_el2: int
    ttbr1_el2: int
    hcr_el2: int
    sp_el3: int
    sctlr_el3: int
    tcr_el3: int
    ttbr0_el3: int


class RegisterNames(X86RegisterNames, Arm64RegisterNames, Arm64HighRegisterNames):
    """All of them, for a processor of either kind."""
