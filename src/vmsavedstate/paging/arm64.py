"""The address spaces of ARM64: which translation regime a processor uses, and its stage 1 tables.

Sources: Arm ARM D8.1 (translation regimes), D8.2 and D8.3 (address sizes, tables), and the registers named below.
"""

from __future__ import annotations

from typing import NamedTuple

from ..datatypes.enums import PagingMode
from ..errors import NestedVirtualizationError
from . import forms
from .access import arm64_rights, one_level_rights
from .needed import Registers, missing, needed
from .regime import PHYSICAL_LIMIT, TOP, Regime, Tree

SCTLR_M, SCTLR_WXN = 1, 1 << 19
TCR_EPD1, TCR_HA, TCR_DS = 1 << 23, 1 << 39, 1 << 59
HCR_VM, HCR_TGE, HCR_E2H = 1, 1 << 27, 1 << 34

# TCR_EL1.IPS: bits of a physical address; 7 is reserved (Arm ARM, TCR_EL1).
_IPS = {0: 32, 1: 36, 2: 40, 3: 42, 4: 44, 5: 48, 6: 52, 7: 52}
_TG0 = {0: 12, 1: 16, 2: 14, 3: 12}  # the granule of each half; the reserved value is taken as 4 KiB
_TG1 = {0: 12, 1: 14, 2: 12, 3: 16}
# Where TCR_EL2 and TCR_EL3 keep what TCR_EL1 has elsewhere: bit, width, bit in TCR_EL1 (PS, TBI, HA, HPD, DS).
_MOVED = ((16, 3, 32), (20, 1, 37), (21, 1, 39), (24, 1, 41), (32, 1, 59))
_SHARED_FIELDS = 0xFF3F  # T0SZ, IRGN0, ORGN0, SH0, TG0


class Controls(NamedTuple):
    """The registers of one translation regime.

    Attributes:
        sctlr, tcr, ttbr0, ttbr1: their names; ``ttbr1`` is None for regimes of one range of addresses.
        hypervisor: whether the layout of ``tcr`` and of the tables is that of EL2 without VHE, or of EL3: one range, one
            privilege level.
    """

    sctlr: str
    tcr: str
    ttbr0: str
    ttbr1: str | None
    hypervisor: bool

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(name for name in (self.sctlr, self.tcr, self.ttbr0, self.ttbr1) if name is not None)


_EL1 = Controls("sctlr_el1", "tcr_el1", "ttbr0_el1", "ttbr1_el1", False)
_EL2 = Controls("sctlr_el2", "tcr_el2", "ttbr0_el2", None, True)
_EL2_HOST = Controls("sctlr_el2", "tcr_el2", "ttbr0_el2", "ttbr1_el2", False)  # with VHE
_EL3 = Controls("sctlr_el3", "tcr_el3", "ttbr0_el3", None, True)
ROOTS = ("ttbr0_el1", "ttbr1_el1", "ttbr0_el2", "ttbr1_el2", "ttbr0_el3")


def exception_level(cpsr: int) -> int:
    """The exception level that PSTATE says: bits 3-2, or for 32-bit code 0 in user mode and 1 in all others."""
    if cpsr & 1 << 4:
        return 0 if cpsr & 0xF == 0 else 1
    return cpsr >> 2 & 3


def controls(registers: Registers, owner: str) -> Controls:
    """The regime in use: that of the exception level; EL0 belongs to EL2 where HCR_EL2.E2H and TGE are set.

    Raises RegisterNotAvailableError for EL2 without HCR_EL2, NestedVirtualizationError for a second stage, whose tables
    are those of a hypervisor inside of the guest.
    """
    cpsr, hcr = registers.get("cpsr"), registers.get("hcr_el2")
    level = exception_level(cpsr) if isinstance(cpsr, int) else 1
    if level == 3:
        return _EL3
    if level == 2:
        if not isinstance(hcr, int):
            raise missing(registers, ("sctlr_el2", "tcr_el2", "ttbr0_el2", "hcr_el2"), owner)
        return _EL2_HOST if hcr & HCR_E2H else _EL2
    if isinstance(hcr, int):
        if level == 0 and hcr & HCR_TGE and hcr & HCR_E2H:
            return _EL2_HOST
        if hcr & HCR_VM and not hcr & HCR_TGE:
            raise NestedVirtualizationError(
                f"{owner} is in a guest of the guest: its addresses go through a second stage of translation "
                "(HCR_EL2.VM), which is not walked"
            )
    return _EL1


def is_paging(registers: Registers, owner: str) -> bool:
    """Whether the MMU is on for the exception level in use. Raises RegisterNotAvailableError."""
    found = controls(registers, owner)
    names = found.names if found.sctlr not in registers and found is not _EL1 else (found.sctlr,)
    return bool(needed(registers, names, owner)[0] & SCTLR_M)


def ignored_top(registers: Registers, owner: str) -> tuple[bool, bool]:
    """Whether bits 63 to 56 of an address are ignored, for the lower and the upper half (TCR_ELx.TBI)."""
    found = controls(registers, owner)
    tcr = registers.get(found.tcr, 0)
    return _tbi(_as_el1(tcr) if found.hypervisor else tcr) if isinstance(tcr, int) else (False, False)


def _tbi(tcr: int) -> tuple[bool, bool]:
    return bool(tcr >> 37 & 1), bool(tcr >> 38 & 1)


def select_arm64(registers: Registers, owner: str, root: int | None) -> Regime:
    """The regime in use with paging on; ``root`` stands for its TTBR0."""
    found = controls(registers, owner)
    if root is not None:
        registers = {**registers, found.ttbr0: root}
    sctlr, tcr, ttbr0, *others = needed(registers, found.names, owner)
    if found.hypervisor:
        tcr = _as_el1(tcr)
    never = bool(sctlr & SCTLR_WXN)
    access_flag = bool(tcr & TCR_HA)
    rights = (one_level_rights if found.hypervisor else arm64_rights)(
        write_never_execute=never, hardware_access_flag=access_flag
    )
    trees = [_tree(tcr, ttbr0, rights, upper=False, one_level=found.hypervisor)]
    trees += [_tree(tcr, ttbr1, rights, upper=True, one_level=False) for ttbr1 in others]
    return Regime(PagingMode.ARMV8, tuple(tree for tree in trees if tree is not None), ignored_top=_tbi(tcr))


def non_paged(registers: Registers, owner: str) -> Regime:
    """An address is its own translation."""
    return Regime(PagingMode.NON_PAGED, identity=PHYSICAL_LIMIT, ignored_top=ignored_top(registers, owner))


def _as_el1(tcr: int) -> int:
    """TCR_EL2 without VHE, or TCR_EL3, in the layout of TCR_EL1: one range, so the walks of the upper half are disabled."""
    same = tcr & _SHARED_FIELDS | TCR_EPD1
    return same | sum((tcr >> at & (1 << width) - 1) << to for at, width, to in _MOVED)


def _tree(tcr: int, ttbr: int, rights: tuple[int, ...], *, upper: bool, one_level: bool) -> Tree | None:
    """The tree of one half of the address space, None where its walks are disabled or its size is out of range."""
    shift = 16 if upper else 0
    granule = (_TG1 if upper else _TG0)[tcr >> (30 if upper else 14) & 3]
    wide_tables = bool(tcr & TCR_DS) and granule != 16
    size = tcr >> shift & 0x3F
    smallest = 12 if wide_tables or granule == 16 else 16
    largest = 47 if granule == 16 else 48
    if tcr >> shift + 7 & 1 or not smallest <= size <= largest:
        return None
    output = _IPS[tcr >> 32 & 7]
    wide = output == 52 and (granule == 16 or wide_tables)
    if not wide:
        output = min(output, 48)
    disabled = bool(tcr >> (42 if upper else 41) & 1)
    form = forms.arm64_stage1(rights, granule=granule, input_bits=64 - size, address_bits=output, wide=wide or wide_tables,
                              hierarchical=not disabled, one_level=one_level)  # fmt: skip
    used = form.levels[0].bits + 3  # a root table is aligned to its own size
    base = ttbr & forms.bits(47, max(used, 6) if wide else used)
    if wide:
        base |= (ttbr & forms.bits(5, 2)) << 46
    span = 1 << 64 - size
    return Tree(TOP - span, TOP, base, form) if upper else Tree(0, span, base, form)
