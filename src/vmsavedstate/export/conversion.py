"""Any saved machine as a ``.vmrs`` that Hyper-V's tools open, and an account of what could not be taken over as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from ..datatypes import PagingMode, VirtualProcessorVendor
from ..errors import GuestMemoryError, PageTablesError, RegisterNotAvailableError
from ..memory import GuestPhysicalMemory
from ..paging import Access
from ..processor import VirtualProcessor
from ..registers.values import RegisterValue
from ..state import SavedState
from ..state import open as open_state
from .vmrs import SavedStateWriter

EFER_LONG, EFER_NXE = 0x500, 0x800  # LME and LMA; NXE
_EXECUTE = Access.KERNEL_EXECUTE | Access.USER_EXECUTE
LAST_PAIR_VERSION = 0x0500  # up to this one, states are pairs of files
WRITTEN_VERSION = 0x0A00  # what those, and dumps that have no version, become
_VENDORS = {
    VirtualProcessorVendor.AMD: 0,
    VirtualProcessorVendor.INTEL: 1,
    VirtualProcessorVendor.HYGON: 2,
    VirtualProcessorVendor.ARM: 0x10,
}


class RegisterChange(NamedTuple):
    """A register that is not in both files: ``source`` and ``written`` are its values, None where it is absent.

    A saved state keeps registers in groups, so one that the source lacks is written as ``written`` where another one of
    its group is there.
    """

    vp_id: int
    vtl: int
    name: str
    source: RegisterValue | None
    written: RegisterValue | None


class Conversion(NamedTuple):
    """What was written.

    Attributes:
        path: the new file.
        changes: registers that the two files do not share, and the derived EFER.
        filled: bytes of memory that stand for what the source could not deliver.
        vendor_assumed: whether the source does not hold the processor's vendor, so that one was chosen.
        left_behind: names of the pieces of state that are not registers and were not taken over.
    """

    path: str
    changes: tuple[RegisterChange, ...]
    filled: int
    vendor_assumed: bool
    left_behind: tuple[str, ...]


def write_vmrs(
    state: SavedState,
    path: str | os.PathLike[str],
    *,
    compress: bool = False,
    fill: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Conversion:
    """Write ``state`` to a new ``.vmrs`` at ``path``, which must not exist.

    Memory, processors with all virtual trust levels, CPUID, guest OS ids and the screen are taken over. EFER, which dumps
    of QEMU lack, is written as far as it follows: LME and LMA in long mode, NXE where the page tables use bit 63.

    Arguments: ``compress`` stores memory as page tokens; ``fill`` (0 to 255) stands for memory the source cannot deliver,
    which is an error otherwise; ``progress`` is called with the bytes of memory done.

    Raises GuestMemoryError, SourceError; an unfinished file is removed.
    """
    arm = state.processors[0].family == "arm64"
    version = state.vm_version or 0
    memory = _Memory(state.memory, fill, progress)
    with SavedStateWriter(
        path,
        architecture="arm64" if arm else "x64",
        vendor=_VENDORS.get(state.processor_vendor),
        guest_os_ids=_guest_os_ids(state),
        cpuid=tuple(state.cpuid.values()),
        compress=compress,
        saved_state_type=state.saved_state_type or "Normal",
        vm_version=version if version > LAST_PAIR_VERSION else WRITTEN_VERSION,
    ) as writer:
        for vp in state.processors:
            views = {vtl: _registers(vp.vtl(vtl), writer.register_names) for vtl in vp.enabled_vtls}
            writer.add_processor(vp.index, vtls=views, active_vtl=vp.active_vtl)
        for item in state.memory.ranges:
            start = item.start_page * state.memory.page_size
            writer.add_memory(
                start, item.page_count * state.memory.page_size, partial(memory.read, start), node=item.node
            )
        screen = state.screen
        if screen is not None:
            writer.set_screen(screen)
    with open_state(path) as written:
        assumed = state.processor_vendor not in _VENDORS
        changes, left = tuple(_changes(state, written)), _left_behind(state, written)
        return Conversion(written.files[0], changes, memory.filled, assumed, left)


class _Memory:
    """The source's memory as the writer asks for it."""

    def __init__(self, memory: GuestPhysicalMemory, fill: int | None, progress: Callable[[int], object] | None) -> None:
        self._memory = memory
        self._fill = fill
        self._progress = progress
        self._done = 0
        self.filled = 0

    def read(self, start: int, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset`` of the range that begins at ``start``."""
        try:
            data = self._memory.read(start + offset, size)
        except GuestMemoryError as error:
            if self._fill is None:
                error.remedy = "choose a byte to stand for what cannot be read (--fill), or use an intact file"
                raise
            self.filled += sum(gap.end - gap.start for gap in self._memory.gaps(start + offset, size))
            data = self._memory.read(start + offset, size, fill=self._fill)
        self._done += size
        if self._progress is not None:
            self._progress(self._done)
        return data


def _guest_os_ids(state: SavedState) -> dict[int, int]:
    try:
        return {vtl: state.guest_os(vtl).raw for vtl in state.enabled_vtls}
    except RegisterNotAvailableError:
        return {}


def _registers(vp: VirtualProcessor, known: frozenset[str]) -> dict[str, RegisterValue]:
    """The registers of one VTL that a saved state can hold, the privilege level, and EFER where it follows."""
    values = {name: value for name, value in vp.registers.items() if name in known}
    if vp.family == "x86":
        try:
            values["cpl"] = vp.cpl
        except RegisterNotAvailableError:
            values.pop("cpl", None)
        if "cr3" in values and "efer" not in values:
            values["efer"] = _derived_efer(vp)
    return values


def _derived_efer(vp: VirtualProcessor) -> int:
    """What is certain of EFER: long mode, and NXE where the page tables use the bit that it allows."""
    mode = vp.paging_mode
    if mode not in (PagingMode.LONG, PagingMode.PAE):
        return 0
    used = False
    with suppress(PageTablesError):  # as far as they could be seen
        used = any(not run.access & _EXECUTE for run in vp.mappings(lost=lambda table: None))
    return (EFER_LONG if mode == PagingMode.LONG else 0) | (EFER_NXE if used else 0)


def _changes(state: SavedState, written: SavedState) -> Iterator[RegisterChange]:
    for old, new in zip(state.processors, written.processors, strict=True):
        for vtl in old.enabled_vtls:
            before, after = old.vtl(vtl).registers, new.vtl(vtl).registers
            for name in {**before, **after}:
                source, value = before.get(name), after.get(name)
                if source != value:
                    yield RegisterChange(old.id, vtl, name, source, value)


def _left_behind(state: SavedState, written: SavedState) -> tuple[str, ...]:
    """Pieces of state the new file has none of; the notes of a processor in a dump of QEMU are registers."""
    kept = {chunk.name for chunk in written.chunks}
    names = [chunk.name for chunk in state.chunks if not (state.format == "qemu-elf" and chunk.vp is not None)]
    return tuple(dict.fromkeys(name for name in names if name not in kept))
