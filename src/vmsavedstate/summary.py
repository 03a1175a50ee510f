"""What is in a saved state, on one page: the object behind ``vmrs info``. Reads no guest memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import RegisterNotAvailableError, ScreenError
from .findings import Finding
from .processor import GuestOs, VirtualProcessor
from .registers.values import SegmentRegister

if TYPE_CHECKING:
    from .memory import MemoryChunk
    from .state import SavedState

LONG_CODE = 0x2000  # bit 13 of the attributes
Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessorSummary:
    """One virtual processor; None stands for what the state does not hold.

    Attributes:
        id, index: 0 to n-1, and the hypervisor's number.
        architecture: ``x86``, ``x64`` or ``armv8``: what the processor was executing.
        paging_mode: ``non_paged``, ``x86_32bit``, ``pae``, ``long`` or ``armv8``; ``paging_levels`` of page tables.
        privilege_level: ring 0 to 3, on ARM64 the exception level.
        ip: RIP or PC; ``linear_ip`` where the code segment has a base, with ``code_selector``.
        page_tables: CR3, or TTBR0 and TTBR1.
        active_vtl, enabled_vtls: virtual trust levels.
        is_arm64: whether it is an ARM64 processor.
        ip_was_saved: False where a writer left PC and CPSR zero.
    """

    id: int
    index: int
    architecture: str | None
    paging_mode: str | None
    paging_levels: int | None
    privilege_level: int | None
    ip: int | None
    linear_ip: int | None
    code_selector: int | None
    page_tables: tuple[int, ...] | None
    active_vtl: int
    enabled_vtls: tuple[int, ...]
    is_arm64: bool
    ip_was_saved: bool

    def to_dict(self) -> dict[str, Any]:
        """The processor as JSON has it."""
        return {
            "id": self.id,
            "index": self.index,
            "architecture": self.architecture,
            "paging_mode": self.paging_mode,
            "paging_levels": self.paging_levels,
            "privilege_level": self.privilege_level,
            "ip": None if self.ip is None else hex(self.ip),
            "page_tables": None if self.page_tables is None else [hex(item) for item in self.page_tables],
            "active_vtl": self.active_vtl,
            "enabled_vtls": list(self.enabled_vtls),
        }


@dataclass(frozen=True)
class CpuSummary:
    """The processor the guest saw: vendor by the state and by CPUID, brand and signature (CPUID leaf 1)."""

    vendor: str
    cpuid_vendor: str | None
    brand: str | None
    signature: int | None

    def to_dict(self) -> dict[str, Any]:
        """The processor model as JSON has it."""
        return {
            "vendor": self.vendor, "cpuid_vendor": self.cpuid_vendor, "brand": self.brand, "signature": self.signature
        }  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """A saved state on one page; attributes as those of :class:`~.state.SavedState` where they have its names.

    Attributes:
        guest_os: by VTL; None where the file does not hold it.
        screen: (width, height) of the console's picture, None where none was saved.
        screen_error: why the picture cannot be shown, None where it can.
        no_processors: why there are none, None where there are some.
        memory_size, page_size: bytes; ``chunks`` of guest memory.
        storage: how memory is stored: counts, and bytes in the file.
    """

    files: tuple[str, ...]
    format: str
    vm_version: int | None
    saved_state_type: str | None
    writer_version: str | None
    cpu: CpuSummary
    enabled_vtls: tuple[int, ...]
    guest_os: Mapping[int, GuestOs | None]
    nested: bool
    screen: tuple[int, int] | None
    screen_error: str | None
    processors: tuple[ProcessorSummary, ...]
    no_processors: str | None
    page_size: int
    memory_size: int
    chunks: tuple[MemoryChunk, ...]
    storage: Mapping[str, int]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON has it."""
        return {
            "files": list(self.files),
            "format": self.format,
            "vm_version": self.vm_version,
            "saved_state_type": self.saved_state_type,
            "writer_version": self.writer_version,
            "cpu": self.cpu.to_dict(),
            "enabled_vtls": list(self.enabled_vtls),
            "guest_os": {str(vtl): None if item is None else item.to_dict() for vtl, item in self.guest_os.items()},
            "nested": self.nested,
            "screen": self._screen(),
            "processors": [item.to_dict() for item in self.processors],
            "no_processors": self.no_processors,
            "memory": {
                "page_size": self.page_size,
                "size": self.memory_size,
                "chunks": [{"start": hex(item.start), "size": item.size} for item in self.chunks],
                "stored": dict(self.storage),
            },
            "findings": [item.to_dict() for item in self.findings],
        }

    def _screen(self) -> dict[str, Any] | None:
        if self.screen_error is not None:
            return {"error": self.screen_error}
        return None if self.screen is None else {"width": self.screen[0], "height": self.screen[1]}


def summarise(state: SavedState) -> Summary:
    """See :meth:`SavedState.summary`."""
    screen, screen_error = _screen(state)
    return Summary(
        files=state.files,
        format=state.format,
        vm_version=state.vm_version,
        saved_state_type=state.saved_state_type,
        writer_version=state.writer_version,
        cpu=CpuSummary(
            state.processor_vendor.name.lower(), state.cpuid.vendor, state.cpuid.brand, state.cpuid.signature
        ),
        enabled_vtls=state.enabled_vtls,
        guest_os={vtl: _or_none(lambda vtl=vtl: state.guest_os(vtl)) for vtl in state.enabled_vtls},  # type: ignore[misc]
        nested=state.nested,
        screen=screen,
        screen_error=screen_error,
        processors=tuple(map(_processor, state.processors)),
        no_processors=state.no_processors,
        page_size=state.memory.page_size,
        memory_size=state.memory.size,
        chunks=state.memory.chunks,
        storage=state.storage(),
        findings=state.findings,
    )


def _or_none(read: Callable[[], Value]) -> Value | None:
    try:
        return read()
    except RegisterNotAvailableError:
        return None


def _screen(state: SavedState) -> tuple[tuple[int, int] | None, str | None]:
    try:
        screen = state.screen
    except ScreenError as error:
        return None, error.message
    return (None, None) if screen is None else ((screen.width, screen.height), None)


def _processor(vp: VirtualProcessor) -> ProcessorSummary:
    arm = vp.family == "arm64"
    registers = vp.registers
    ip = _or_none(lambda: registers.integer("pc" if arm else "rip"))
    cs = registers.get("cs")
    based = ip is not None and isinstance(cs, SegmentRegister) and cs.base and not cs.attributes & LONG_CODE
    return ProcessorSummary(
        id=vp.id,
        index=vp.index,
        architecture=_or_none(lambda: vp.architecture.name.lower()),
        paging_mode=_or_none(lambda: vp.paging_mode.name.lower()),
        paging_levels=_or_none(lambda: vp.paging_levels),
        privilege_level=_or_none(lambda: vp.cpl),
        ip=ip,
        linear_ip=(cs.base + ip) & 0xFFFFFFFF if based and isinstance(cs, SegmentRegister) and ip is not None else None,
        code_selector=cs.selector if based and isinstance(cs, SegmentRegister) else None,
        page_tables=_or_none(
            lambda: (
                (registers.integer("ttbr0_el1"), registers.integer("ttbr1_el1")) if arm else (registers.integer("cr3"),)
            )
        ),
        active_vtl=vp.active_vtl,
        enabled_vtls=vp.enabled_vtls,
        is_arm64=arm,
        ip_was_saved=not (arm and "pc" in registers and not ip and not registers.get("cpsr")),
    )
