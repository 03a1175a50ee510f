"""A virtual processor: its registers per VTL, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..datatypes.enums import PagingMode, VirtualProcessorArch
from ..errors import InvalidArgumentError, RegisterNotAvailableError, VtlNotEnabledError
from ..integers import as_int
from ..memory import MAX_ADDRESS, GuestPhysicalMemory, MemoryBlock, MemoryGap, Pattern, Progress, Unread
from ..paging import AddressSpace, AddressSpaces, Walk
from ..paging.arm64 import exception_level
from ..paging.selection import SEGMENT_LONG, is_long_mode, paging_levels, paging_mode, select
from ..registers.values import SegmentRegister
from ..snapshot import ProcessorRecord
from ..vocabulary import Family
from .registers import Registers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..paging import LostTable, MappedRun

_FAMILIES = {
    VirtualProcessorArch.X86: "x86",
    VirtualProcessorArch.X64: "x86",
    VirtualProcessorArch.ARMV8: "arm64",
}


class VirtualProcessor:
    """One virtual processor, seen from one of its virtual trust levels.

    Attributes:
        id: 0 to n-1, the number the dump provider's functions take.
        family: a :class:`~.vocabulary.Family`: ``x86`` (16, 32 and 64 bit) or ``arm64``.
        index: the hypervisor's number, which may be sparse.
        active_vtl: the VTL the processor was running in.
        enabled_vtls: the VTLs it has, ascending.
        viewed_vtl: the VTL this view speaks for; ``vtl(n)`` gives another view.
        nested: whether the file holds state of nested virtualization for it, whose layout is unpublished.
    """

    def __init__(self, number: int, record: ProcessorRecord, spaces: AddressSpaces, vtl: int | None = None) -> None:
        self.id = number
        self.family = Family(record.family)
        self.index = record.index
        self.active_vtl = record.active_vtl
        self.enabled_vtls = record.vtls
        self.viewed_vtl = record.active_vtl if vtl is None else vtl
        self.nested = record.nested
        self._record = record
        self._spaces = spaces
        self._owner = f"VP {number}" + (f" VTL {self.viewed_vtl}" if record.vtls != (0,) else "")
        self.registers = Registers(record.registers[self.viewed_vtl], self._owner)

    def __repr__(self) -> str:
        """Number, architecture and paging mode."""
        return f"<VirtualProcessor {self.id} (index {self.index}) VTL {self.viewed_vtl}>"

    def vtl(self, number: int) -> VirtualProcessor:
        """The same processor seen from another VTL. Raises VtlNotEnabledError."""
        number = as_int(number, "a VTL")
        if number not in self.enabled_vtls:
            enabled = ", ".join(map(str, self.enabled_vtls))
            raise VtlNotEnabledError(f"VTL {number} is not enabled on VP {self.id} (enabled: {enabled})")
        return VirtualProcessor(self.id, self._record, self._spaces, number)

    def to_dict(self) -> dict[str, Any]:
        """Number, VTL and registers as JSON has them."""
        return {
            "id": self.id,
            "index": self.index,
            "vtl": self.viewed_vtl,
            "registers": self.registers.to_dict(),
            "unconfirmed": {name: hex(value) for name, value in self.unconfirmed.items()},
        }

    @property
    def unconfirmed(self) -> Mapping[str, int]:
        """Values whose meaning only third parties have worked out, such as ``lstar``; empty where there are none.

        They are not verified on real states: do not build evidence on them.
        """
        load = self._record.unconfirmed.get(self.viewed_vtl)
        return load() if load is not None else {}

    @property
    def architecture(self) -> VirtualProcessorArch:
        """The instruction set the processor was executing (API specification, section 11).

        64-bit code is X64; 16- and 32-bit code is X86, also in compatibility mode of a 64-bit system. Raises
        RegisterNotAvailableError where EFER or CS are not saved.
        """
        if self.family == "arm64":
            return VirtualProcessorArch.ARMV8
        cs = self.registers["cs"]
        assert isinstance(cs, SegmentRegister)
        long_mode = is_long_mode(self.registers, self._owner, self._record.long_mode)
        return VirtualProcessorArch.X64 if long_mode and cs.attributes & SEGMENT_LONG else VirtualProcessorArch.X86

    @property
    def paging_mode(self) -> PagingMode:
        """What the processor does: NON_PAGED where CR0.PG is 0, or SCTLR_ELx.M of the exception level in use.

        Microsoft's provider ignores CR0.PG (API specification, section 11); this property does not. Raises
        RegisterNotAvailableError where a control register is not saved.
        """
        return paging_mode(self.family, self.registers, self._owner, self._record.long_mode)

    @property
    def paging_levels(self) -> int:
        """Levels of page tables the processor walks: 0 without paging, 2, 3, 4 or 5 on x86.

        On ARM64 the number for the larger of the two address ranges in use (TCR_EL1).
        """
        return paging_levels(self.family, self.registers, self._owner, self._record.long_mode)

    @property
    def cpl(self) -> int:
        """Privilege level: CPL 0 to 3 on x86, the exception level 0 to 3 (CPSR bits 2-3) on ARM64.

        Raises RegisterNotAvailableError where the state does not hold it.
        """
        if self.family == "arm64":
            return exception_level(self.registers.integer("cpsr"))
        level = self._record.cpl.get(self.viewed_vtl)
        if level is None:
            raise RegisterNotAvailableError(f"the saved state holds no privilege level for VP {self.id}")
        return level

    def address_space(
        self,
        *,
        architecture: VirtualProcessorArch | None = None,
        paging_mode: PagingMode | None = None,
        root: int | None = None,
        ignore_pg: bool = False,
        memory: GuestPhysicalMemory | None = None,
    ) -> AddressSpace:
        """Guest virtual memory as this processor sees it, or as it would with something else forced.

        Nothing forced: as the processor takes its registers; ``translate``, ``read`` and the others below speak of that.
        Forcing changes nothing in the saved state. ``vtl(n)`` gives the address spaces of another VTL.

        Arguments:
            architecture: take the registers as those of this instruction set; X86 and X64 use the same tables.
            paging_mode: walk tables of this mode. LONG has five levels where CR4.LA57 is set.
            root: page-table root instead of CR3 (in its format), on ARM64 instead of TTBR0_EL1
                (of the exception level in use): another process.
            ignore_pg: walk the tables although CR0.PG is 0, as Microsoft's provider does.
            memory: tables and content as this memory has them, such as ``state.memory.overlaid(...)``.

        Raises RegisterNotAvailableError, which names the registers that are missing, and InvalidArgumentError.
        """
        family = self.family if architecture is None else _FAMILIES.get(architecture)
        if family is None:
            raise InvalidArgumentError(f"{architecture!r} is not an architecture that can be translated for")
        regime = select(
            family, self.registers, self._owner,
            long_mode=self._record.long_mode, mode=paging_mode, root=root, ignore_pg=ignore_pg,
        )  # fmt: skip
        return self._spaces.get(regime) if memory is None else AddressSpace(memory, regime)

    @cached_property
    def space(self) -> AddressSpace:
        """Guest virtual memory as this processor sees it: the same as ``address_space()``."""
        return self.address_space()

    def translate(self, gva: int) -> int:
        """The guest physical address of ``gva``: :meth:`AddressSpace.translate`. Raises PageNotMapped, GuestMemoryError."""
        self.__dict__["translate"] = self.space.translate  # from now on without a call in between
        return self.space.translate(gva)

    def walk(self, gva: int) -> Walk:
        """Every step of the translation of ``gva``: :meth:`AddressSpace.walk`. Raises GuestMemoryError."""
        return self.space.walk(gva)

    def translate_many(
        self, gvas: Sequence[int] | npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
        """An array of addresses at once, with a mask: :meth:`AddressSpace.translate_many`."""
        return self.space.translate_many(gvas)

    def mappings(
        self, start: int = 0, end: int = MAX_ADDRESS, *, lost: Callable[[LostTable], object] | None = None
    ) -> Iterator[MappedRun]:
        """All that is mapped, as maximal runs: :meth:`AddressSpace.mappings`. Raises GuestMemoryError, PageTablesError."""
        return self.space.mappings(start, end, lost=lost)

    def reverse(self, gpa: int, start: int = 0, end: int = MAX_ADDRESS) -> Iterator[int]:
        """The virtual addresses of a physical address: :meth:`AddressSpace.reverse`."""
        return self.space.reverse(gpa, start, end)

    def read(self, gva: int, size: int, *, fill: int | None = None) -> bytes:
        """Bytes of virtual memory: :meth:`AddressSpace.read`. Raises PageNotMapped, GuestMemoryError."""
        self.__dict__["read"] = self.space.read  # from now on without a call in between
        return self.space.read(gva, size, fill=fill)

    def read_into(self, gva: int, buffer: bytearray | memoryview, *, fill: int | None = None) -> None:
        """Virtual memory into a writable buffer: :meth:`AddressSpace.read_into`. Raises as :meth:`read`."""
        self.space.read_into(gva, buffer, fill=fill)

    def is_valid(self, gva: int, size: int = 1) -> bool:
        """Whether all of a range can be read: :meth:`AddressSpace.is_valid`."""
        return self.space.is_valid(gva, size)

    def gaps(self, gva: int, size: int) -> Iterator[MemoryGap]:
        """What of a range cannot be read, and why: :meth:`AddressSpace.gaps`."""
        return self.space.gaps(gva, size)

    def require(self, gva: int, size: int) -> None:
        """Raise for the first address of a range that is not mapped or not saved: :meth:`AddressSpace.require`."""
        self.space.require(gva, size)

    def blocks(self, start: int = 0, end: int | None = None, workers: int | None = None) -> Iterator[MemoryBlock]:
        """Virtual memory as a stream of blocks: :meth:`AddressSpace.blocks`."""
        return self.space.blocks(start, end, workers)

    def find(
        self,
        pattern: Pattern,
        start: int = 0,
        end: int = MAX_ADDRESS,
        *,
        progress: Progress | None = None,
        unread: Unread | None = None,
    ) -> Iterator[int]:
        """The virtual addresses of bytes or a bytes regex: :meth:`AddressSpace.find`."""
        return self.space.find(pattern, start, end, progress=progress, unread=unread)
