"""Which tables a processor would walk: from its registers, or from what the caller forces, to a regime.

Takes registers, not a processor, so that another table root, forced modes and the provider's way of ignoring CR0.PG are
inputs of one function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..datatypes.enums import PagingMode
from ..errors import InvalidArgumentError, RegisterNotAvailableError
from ..memory import check_address
from ..registers.values import RegisterValue, SegmentRegister
from ..remedies import FORCE_PAGING_MODE, GIVE_REGISTERS, GIVE_REGISTERS_OR_FORCE
from . import forms
from .access import ALL, arm64_rights, x86_rights

CR0_WP, CR0_PG = 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_LA57, CR4_SMEP = 1 << 4, 1 << 5, 1 << 12, 1 << 20
EFER_LMA, EFER_NXE = 1 << 10, 1 << 11
SEGMENT_LONG = 1 << 13
SCTLR_M, SCTLR_WXN = 1, 1 << 19
TCR_HA, TCR_DS = 1 << 39, 1 << 59
TOP = 1 << 64
PHYSICAL_LIMIT = 1 << 52  # no form has more address bits

# TCR_EL1.IPS: bits of a physical address; 7 is reserved (Arm ARM, TCR_EL1).
_IPS = {0: 32, 1: 36, 2: 40, 3: 42, 4: 44, 5: 48, 6: 52, 7: 52}
_TG0 = {0: 12, 1: 16, 2: 14, 3: 12}  # the granule of each half; the reserved value is taken as 4 KiB
_TG1 = {0: 12, 1: 14, 2: 12, 3: 16}

Registers = Mapping[str, RegisterValue]


class Tree(NamedTuple):
    """A root table and the virtual addresses it serves: ``start`` to ``end`` (excluded), ``root`` a physical address."""

    start: int
    end: int
    root: int
    form: forms.Form


class Regime(NamedTuple):
    """An address space: what two processors with the same tables have in common.

    Attributes:
        mode: the paging mode as Microsoft counts them.
        trees: ascending; empty where an address is its own translation.
        identity: without trees, the addresses below which that holds.
        ignored_top: for the lower and the upper half (bit 55), whether bits 63 to 56 of an address are ignored (ARM64).
        rights: the rights of every page where there are no trees (an int of :class:`.access.Access`).
    """

    mode: PagingMode
    trees: tuple[Tree, ...] = ()
    identity: int = 0
    ignored_top: tuple[bool, bool] = (False, False)
    rights: int = ALL

    def normal(self, gva: int) -> int:
        """``gva`` without what the processor ignores of it: a tag in the top byte."""
        upper = gva >> 55 & 1
        if not self.ignored_top[upper]:
            return gva
        return gva | 0xFF << 56 if upper else gva & (1 << 56) - 1

    @property
    def levels(self) -> int:
        """Levels of the deepest tree, 0 without paging."""
        return max((len(tree.form.levels) for tree in self.trees), default=0)


def is_long_mode(registers: Registers, owner: str, stated: bool | None) -> bool:
    """Whether EFER.LMA is set; ``stated`` is what the file says of it beside the registers, where EFER is not saved.

    A code segment with the L bit exists in long mode alone (SDM volume 3, 3.4.5). Raises RegisterNotAvailableError.
    """
    efer = registers.get("efer")
    if isinstance(efer, int):
        return bool(efer & EFER_LMA)
    if stated is not None:
        return stated
    cs = registers.get("cs")
    if isinstance(cs, SegmentRegister) and cs.attributes & SEGMENT_LONG:
        return True
    raise _missing(registers, ("efer",), owner)


def paging_mode(family: str, registers: Registers, owner: str, long_mode: bool | None = None) -> PagingMode:
    """What the processor does: NON_PAGED where CR0.PG or SCTLR_EL1.M is 0. Raises RegisterNotAvailableError."""
    if family == "arm64":
        (sctlr,) = _needed(registers, ("sctlr_el1",), owner)
        return PagingMode.ARMV8 if sctlr & SCTLR_M else PagingMode.NON_PAGED
    (cr0,) = _needed(registers, ("cr0",), owner)
    return _x86_tables(registers, owner, long_mode) if cr0 & CR0_PG else PagingMode.NON_PAGED


def _x86_tables(registers: Registers, owner: str, long_mode: bool | None) -> PagingMode:
    """The tables CR4 and EFER speak of, whether or not paging is on."""
    (cr4,) = _needed(registers, ("cr4",), owner)
    if not cr4 & CR4_PAE:  # long mode needs PAE, so EFER need not be known; but a state may say otherwise
        efer = registers.get("efer", 0)
        return PagingMode.LONG if isinstance(efer, int) and efer & EFER_LMA else PagingMode.X86_32BIT
    return PagingMode.LONG if is_long_mode(registers, owner, long_mode) else PagingMode.PAE


def select(
    family: str,
    registers: Registers,
    owner: str,
    *,
    long_mode: bool | None = None,
    mode: PagingMode | None = None,
    root: int | None = None,
    ignore_pg: bool = False,
) -> Regime:
    """The address space of a processor.

    Arguments:
        family: ``"x86"`` or ``"arm64"``.
        registers: control registers by name; which ones depends on the mode.
        owner: whose registers they are, for errors.
        long_mode: what the file says of EFER.LMA where EFER is not saved.
        mode: forced paging mode. LONG has five levels where CR4.LA57 is set.
        root: page-table root instead of CR3, in its format; on ARM64 instead of TTBR0_EL1.
        ignore_pg: walk the tables although CR0.PG is 0, as Microsoft's provider does (API specification, section 11).

    Raises RegisterNotAvailableError, which names every register that is needed and not there; InvalidArgumentError for
    a mode that the family does not have.
    """
    if root is not None:
        root = check_address(root)
    if mode is not None and not isinstance(mode, PagingMode):
        names = ", ".join(item.name for item in PagingMode)
        raise InvalidArgumentError(f"{mode!r} is not a datatypes.PagingMode ({names})")
    if mode is None:
        if ignore_pg and family == "x86":
            mode = _x86_tables(registers, owner, long_mode)
        else:
            mode = paging_mode(family, registers, owner, long_mode)
            if mode == PagingMode.NON_PAGED and family == "x86" and root is None:
                return Regime(mode, identity=1 << 32)
    if mode == PagingMode.NON_PAGED and root is not None:
        raise InvalidArgumentError(
            f"a page-table root needs a paging mode, and paging is off on {owner}",
            remedy=FORCE_PAGING_MODE,
        )
    if mode == PagingMode.NON_PAGED:
        return Regime(
            mode, identity=PHYSICAL_LIMIT, ignored_top=_tbi(registers) if family == "arm64" else (False, False)
        )
    if (mode == PagingMode.ARMV8) != (family == "arm64") or mode == PagingMode.INVALID:
        raise InvalidArgumentError(f"{mode.c_name} is not a paging mode of {family} processors")
    if family == "arm64":
        return _select_arm64(registers, owner, root)
    return _select_x86(registers, owner, mode, root)


def paging_levels(family: str, registers: Registers, owner: str, long_mode: bool | None = None) -> int:
    """Levels of page tables of the mode the processor is in, whether or not the roots of the tables are saved."""
    roots = dict.fromkeys(("cr3", "ttbr0_el1", "ttbr1_el1"), 0)
    return select(family, {**roots, **registers}, owner, long_mode=long_mode).levels


def _select_x86(registers: Registers, owner: str, mode: PagingMode, root: int | None) -> Regime:
    if root is not None:  # with a mode and a root the tables can be walked, whatever else is not saved
        registers = {"cr0": CR0_WP, "cr4": CR4_PSE, **registers, "cr3": root}
    cr0, cr4, base = _needed(registers, ("cr0", "cr4", "cr3"), owner)
    rights = x86_rights(write_protect=bool(cr0 & CR0_WP), smep=bool(cr4 & CR4_SMEP))
    efer = registers.get("efer")
    # Where EFER is not saved, bit 63 is taken at its word.
    no_execute = not isinstance(efer, int) or bool(efer & EFER_NXE)
    if mode == PagingMode.X86_32BIT:
        form = forms.x86_32bit(rights, large_pages=bool(cr4 & CR4_PSE))
        return Regime(mode, (Tree(0, 1 << 32, base & forms.bits(31, 12), form),))
    if mode == PagingMode.PAE:
        return Regime(mode, (Tree(0, 1 << 32, base & forms.bits(31, 5), forms.x86_pae(rights, no_execute=no_execute)),))
    levels = 5 if cr4 & CR4_LA57 else 4
    form = forms.x86_long(rights, levels=levels, no_execute=no_execute)
    half = 1 << (56 if levels == 5 else 47)
    table = base & forms.bits(51, 12)  # below are PCID or cache bits, above LAM bits
    return Regime(mode, (Tree(0, half, table, form), Tree(TOP - half, TOP, table, form)))


def _tbi(registers: Registers) -> tuple[bool, bool]:
    tcr = registers.get("tcr_el1", 0)
    assert isinstance(tcr, int)
    return bool(tcr >> 37 & 1), bool(tcr >> 38 & 1)


def _select_arm64(registers: Registers, owner: str, root: int | None) -> Regime:
    if root is not None:
        registers = {**registers, "ttbr0_el1": root}
    sctlr, tcr, ttbr0, ttbr1 = _needed(registers, ("sctlr_el1", "tcr_el1", "ttbr0_el1", "ttbr1_el1"), owner)
    rights = arm64_rights(write_never_execute=bool(sctlr & SCTLR_WXN), hardware_access_flag=bool(tcr & TCR_HA))
    lower = _arm64_tree(tcr, ttbr0, rights, upper=False)
    upper = _arm64_tree(tcr, ttbr1, rights, upper=True)
    return Regime(
        PagingMode.ARMV8, tuple(tree for tree in (lower, upper) if tree is not None), ignored_top=_tbi(registers)
    )


def _arm64_tree(tcr: int, ttbr: int, rights: tuple[int, ...], *, upper: bool) -> Tree | None:
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
    form = forms.arm64_stage1(rights, granule=granule, input_bits=64 - size, address_bits=output,
                              wide=wide or wide_tables, hierarchical=not disabled)  # fmt: skip
    used = form.levels[0].bits + 3  # a root table is aligned to its own size
    base = ttbr & forms.bits(47, max(used, 6) if wide else used)
    if wide:
        base |= (ttbr & forms.bits(5, 2)) << 46
    span = 1 << 64 - size
    return Tree(TOP - span, TOP, base, form) if upper else Tree(0, span, base, form)


def _needed(registers: Registers, names: tuple[str, ...], owner: str) -> list[int]:
    values = [registers.get(name) for name in names]
    found = [value for value in values if isinstance(value, int)]
    if len(found) != len(names):
        raise _missing(registers, names, owner)
    return found


def _missing(registers: Registers, names: tuple[str, ...], owner: str) -> RegisterNotAvailableError:
    absent = [name for name in names if not isinstance(registers.get(name), int)]
    remedy = GIVE_REGISTERS if any("_el1" in name for name in absent) else GIVE_REGISTERS_OR_FORCE
    return RegisterNotAvailableError(
        f"translation needs {', '.join(absent)} of {owner}, which the saved state does not hold", remedy=remedy
    )
