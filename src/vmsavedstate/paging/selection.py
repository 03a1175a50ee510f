"""Which tables a processor would walk: from its registers, or from what the caller forces, to a regime.

Takes registers, not a processor, so that another table root, forced modes and the provider's way of ignoring CR0.PG are
inputs of one function.
"""

from __future__ import annotations

from ..datatypes.enums import PagingMode
from ..errors import InvalidArgumentError
from ..memory import check_address
from ..registers.values import SegmentRegister
from ..remedies import FORCE_PAGING_MODE
from . import arm64, forms
from .access import x86_rights
from .needed import Registers, missing, needed
from .regime import PHYSICAL_LIMIT, TOP, Regime, Tree

CR0_WP, CR0_PG = 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_LA57, CR4_SMEP = 1 << 4, 1 << 5, 1 << 12, 1 << 20
EFER_LMA, EFER_NXE = 1 << 10, 1 << 11
SEGMENT_LONG = 1 << 13


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
    raise missing(registers, ("efer",), owner)


def paging_mode(family: str, registers: Registers, owner: str, long_mode: bool | None = None) -> PagingMode:
    """What the processor does: NON_PAGED where CR0.PG or SCTLR_ELx.M is 0. Raises RegisterNotAvailableError."""
    if family == "arm64":
        return PagingMode.ARMV8 if arm64.is_paging(registers, owner) else PagingMode.NON_PAGED
    (cr0,) = needed(registers, ("cr0",), owner)
    return _x86_tables(registers, owner, long_mode) if cr0 & CR0_PG else PagingMode.NON_PAGED


def _x86_tables(registers: Registers, owner: str, long_mode: bool | None) -> PagingMode:
    """The tables CR4 and EFER speak of, whether or not paging is on."""
    (cr4,) = needed(registers, ("cr4",), owner)
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
        root: page-table root instead of CR3, in its format; on ARM64 instead of TTBR0 of the exception level in use.
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
        return arm64.non_paged(registers, owner) if family == "arm64" else Regime(mode, identity=PHYSICAL_LIMIT)
    if (mode == PagingMode.ARMV8) != (family == "arm64") or mode == PagingMode.INVALID:
        raise InvalidArgumentError(f"{mode.c_name} is not a paging mode of {family} processors")
    if family == "arm64":
        return arm64.select_arm64(registers, owner, root)
    return _select_x86(registers, owner, mode, root)


def paging_levels(family: str, registers: Registers, owner: str, long_mode: bool | None = None) -> int:
    """Levels of page tables of the mode the processor is in, whether or not the roots of the tables are saved."""
    roots = dict.fromkeys(("cr3", *arm64.ROOTS), 0)
    return select(family, {**roots, **registers}, owner, long_mode=long_mode).levels


def _select_x86(registers: Registers, owner: str, mode: PagingMode, root: int | None) -> Regime:
    if root is not None:  # with a mode and a root the tables can be walked, whatever else is not saved
        registers = {"cr0": CR0_WP, "cr4": CR4_PSE, **registers, "cr3": root}
    cr0, cr4, base = needed(registers, ("cr0", "cr4", "cr3"), owner)
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
