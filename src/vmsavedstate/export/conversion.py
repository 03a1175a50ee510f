"""Any saved machine as a ``.vmrs`` that Hyper-V's tools open, and an account of what could not be taken over as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ..datatypes import PagingMode, VirtualProcessorVendor
from ..errors import GuestMemoryError, NoVirtualProcessorError, PageTablesError, RegisterNotAvailableError
from ..integers import as_int_in
from ..memory import GuestPhysicalMemory, MemoryBlock
from ..paging import Access
from ..processor import VirtualProcessor
from ..registers.values import RegisterValue
from ..remedies import FILL_OR_INTACT
from ..snapshot import MemoryRange
from ..state import SavedState
from ..state import open as open_state
from ..vocabulary import Family
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
    if not state.processors:
        raise NoVirtualProcessorError(
            f"a saved state needs a processor, and there is none: {state.no_processors}", file=state.files[0]
        )
    arm = state.processors[0].family == Family.ARM64
    version = state.vm_version or 0
    taken = _Taken(fill, progress)
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
            writer.add_memory(item.start, item.size, _Range(state.memory, item, taken).read, node=item.node)
        screen = state.screen
        if screen is not None:
            writer.set_screen(screen)
    with open_state(path) as written:
        assumed = state.processor_vendor not in _VENDORS
        changes, left = tuple(_changes(state, written)), _left_behind(state, written)
        return Conversion(written.files[0], changes, taken.filled, assumed, left)


class _Range:
    """One range of the source's memory as the writer asks for it: in order, a piece at a time, out of the block stream."""

    def __init__(self, memory: GuestPhysicalMemory, item: MemoryRange, taken: _Taken) -> None:
        self._memory = memory
        self._start = item.start
        self._blocks = memory.blocks(item.start, item.end)
        self._block = MemoryBlock(item.start, b"")
        self._taken = taken

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``, which is where the last call ended."""
        at, end = self._start + offset, self._start + offset + size
        parts: list[bytes] = []
        while at < end:
            if at >= self._block.end:
                self._block = next(self._blocks)
                continue
            stop = min(end, self._block.end)
            parts.append(self._piece(at, stop))
            at = stop
        self._taken.add(size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, start: int, end: int) -> bytes:
        block = self._block
        if not block.gaps:
            whole = (start, end) == (block.start, block.end)
            return block.data if whole else block.data[start - block.start : end - block.start]
        fill = self._taken.fill
        if fill is None or self._memory.strict:
            try:
                self._memory.refuse_gap(block.gaps[0])
            except GuestMemoryError as error:
                error.remedy = FILL_OR_INTACT
                raise
        self._taken.filled += end - start
        return bytes((fill or 0,)) * (end - start)


class _Taken:
    """What was taken over so far: the fill byte, the bytes that it stands for, and the bytes in all."""

    def __init__(self, fill: int | None, progress: Callable[[int], object] | None) -> None:
        self.fill = None if fill is None else as_int_in(fill, "the fill byte", 0, 255)
        self.filled = 0
        self._progress = progress
        self._done = 0

    def add(self, size: int) -> None:
        """So many bytes more."""
        self._done += size
        if self._progress is not None:
            self._progress(self._done)


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
        used = any(not item.access & _EXECUTE for item in vp.space.regions(lost=lambda table: None))
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
