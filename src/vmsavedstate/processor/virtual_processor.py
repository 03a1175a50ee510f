"""A virtual processor: its registers per VTL, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping

from ..datatypes.enums import PagingMode, VirtualProcessorArch
from ..errors import RegisterNotAvailableError, VtlNotEnabledError
from ..snapshot import ProcessorRecord, SegmentRegister
from .registers import Registers

CR0_PG = 1 << 31
CR4_PAE = 1 << 5
CR4_LA57 = 1 << 12
EFER_LMA = 1 << 10
SEGMENT_LONG = 1 << 13
SCTLR_M = 1
_X86_LEVELS = {PagingMode.NON_PAGED: 0, PagingMode.X86_32BIT: 2, PagingMode.PAE: 3}
_TG0_SHIFTS = {0: 12, 1: 16, 2: 14}  # TCR_EL1.TG0: 4, 64, 16 KiB granule
_TG1_SHIFTS = {2: 12, 3: 16, 1: 14}  # TCR_EL1.TG1, which counts differently


class VirtualProcessor:
    """One virtual processor, seen from one of its virtual trust levels.

    Attributes:
        id: 0 to n-1, the number the dump provider's functions take.
        index: the hypervisor's number, which may be sparse.
        active_vtl: the VTL the processor was running in.
        enabled_vtls: the VTLs it has, ascending.
        viewed_vtl: the VTL this view speaks for; ``vtl(n)`` gives another view.
    """

    def __init__(self, number: int, record: ProcessorRecord, vtl: int | None = None) -> None:
        self.id = number
        self.index = record.index
        self.active_vtl = record.active_vtl
        self.enabled_vtls = record.vtls
        self.viewed_vtl = record.active_vtl if vtl is None else vtl
        self._record = record
        owner = f"VP {number}" + (f" VTL {self.viewed_vtl}" if record.vtls != (0,) else "")
        self.registers = Registers(record.registers[self.viewed_vtl], owner)

    def __repr__(self) -> str:
        """Number, architecture and paging mode."""
        return f"<VirtualProcessor {self.id} (index {self.index}) VTL {self.viewed_vtl}>"

    def vtl(self, number: int) -> VirtualProcessor:
        """The same processor seen from another VTL. Raises VtlNotEnabledError."""
        if number not in self.enabled_vtls:
            enabled = ", ".join(map(str, self.enabled_vtls))
            raise VtlNotEnabledError(f"VTL {number} is not enabled on VP {self.id} (enabled: {enabled})")
        return VirtualProcessor(self.id, self._record, number)

    @property
    def unconfirmed(self) -> Mapping[str, int]:
        """Values whose meaning only third parties have worked out, such as ``lstar``; empty where there are none.

        Nobody has verified them on real states: do not build evidence on them.
        """
        load = self._record.unconfirmed.get(self.viewed_vtl)
        return load() if load is not None else {}

    @property
    def architecture(self) -> VirtualProcessorArch:
        """The instruction set the processor was executing (API specification, section 11).

        64-bit code is X64; 16- and 32-bit code is X86, also in compatibility mode of a 64-bit system. Raises
        RegisterNotAvailableError where EFER or CS are not saved.
        """
        if self._record.family == "arm64":
            return VirtualProcessorArch.ARMV8
        cs = self.registers["cs"]
        assert isinstance(cs, SegmentRegister)
        long_mode = self.registers.integer("efer") & EFER_LMA and cs.attributes & SEGMENT_LONG
        return VirtualProcessorArch.X64 if long_mode else VirtualProcessorArch.X86

    @property
    def paging_mode(self) -> PagingMode:
        """What the processor does: NON_PAGED where CR0.PG or SCTLR_EL1.M is 0.

        Microsoft's provider ignores CR0.PG (API specification, section 11); this property does not. Raises
        RegisterNotAvailableError where a control register is not saved.
        """
        integer = self.registers.integer
        if self._record.family == "arm64":
            return PagingMode.ARMV8 if integer("sctlr_el1") & SCTLR_M else PagingMode.NON_PAGED
        if not integer("cr0") & CR0_PG:
            return PagingMode.NON_PAGED
        if integer("efer") & EFER_LMA:
            return PagingMode.LONG
        return PagingMode.PAE if integer("cr4") & CR4_PAE else PagingMode.X86_32BIT

    @property
    def paging_levels(self) -> int:
        """Levels of page tables the processor walks: 0 without paging, 2, 3, 4 or 5 on x86.

        On ARM64 the number for the larger of the two address ranges in use (TCR_EL1).
        """
        mode = self.paging_mode
        if mode == PagingMode.LONG:
            return 5 if self.registers.integer("cr4") & CR4_LA57 else 4
        if mode == PagingMode.ARMV8:
            return _arm64_levels(self.registers.integer("tcr_el1"))
        return _X86_LEVELS[mode]

    @property
    def cpl(self) -> int:
        """Privilege level: CPL 0 to 3 on x86, the exception level 0 to 3 (CPSR bits 2-3) on ARM64.

        Raises RegisterNotAvailableError where the state does not hold it.
        """
        if self._record.family == "arm64":
            return self.registers.integer("cpsr") >> 2 & 3
        level = self._record.cpl.get(self.viewed_vtl)
        if level is None:
            raise RegisterNotAvailableError(f"the saved state holds no privilege level for VP {self.id}")
        return level


def _arm64_levels(tcr: int) -> int:
    """Table levels of the larger range: (virtual address bits - page bits) / (page bits - 3), rounded up."""
    levels = 0
    for size, disabled, granule, shifts in (
        (tcr & 0x3F, tcr >> 7 & 1, tcr >> 14 & 3, _TG0_SHIFTS),
        (tcr >> 16 & 0x3F, tcr >> 23 & 1, tcr >> 30 & 3, _TG1_SHIFTS),
    ):
        shift = shifts.get(granule, 12)
        if not disabled:
            levels = max(levels, -(-(64 - size - shift) // (shift - 3)))
    return levels
