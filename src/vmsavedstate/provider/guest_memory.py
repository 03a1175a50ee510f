"""Guest memory: chunks, reads, translation, raw stream, fixes, cache (API specification, 6.1 to 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..datatypes.structures import GpaMemoryChunk
from ..errors import GuestMemoryError, InvalidArgumentError, PageNotMapped
from ..integers import as_int, as_int_in
from ..memory import MAX_ADDRESS, GuestPhysicalMemory, MemoryRun
from .instance import HANDLES, Instance

PAGE = 4096
LARGEST_SPAN = 1 << 39  # of an entry of four levels (API specification, 6.1)


class MemoryChunks(NamedTuple):
    """The answers of GetGuestPhysicalMemoryChunks: bytes of a page, and the chunks, counted in pages."""

    page_size: int
    chunks: tuple[GpaMemoryChunk, ...]


def GetGuestPhysicalMemoryChunks(handle: int) -> MemoryChunks:
    """The map of guest memory: maximal runs of pages, ascending."""
    memory = HANDLES.get(handle).memory
    return MemoryChunks(PAGE, tuple(GpaMemoryChunk(item.start_page, item.page_count) for item in memory.chunks))


def ReadGuestPhysicalAddress(handle: int, physical_address: int, size: int) -> bytes:
    """Up to ``size`` bytes of guest memory with the fixes applied: short where a hole or the end comes, empty inside a hole.

    Raises GuestMemoryError where the first byte is saved and cannot be read, InvalidArgumentError.
    """
    physical_address = as_int(physical_address, "an address")
    buffer = bytearray(_checked(HANDLES.get(handle), physical_address, size))
    return bytes(buffer[: read_physical(handle, physical_address, memoryview(buffer))])


def read_physical(handle: int, address: int, view: memoryview) -> int:
    """The same into a buffer; the bytes delivered. What is behind them may have been overwritten."""
    with HANDLES.get(handle) as instance:
        memory = instance.memory
        return _fill(memory, memory.runs(address, min(len(view), MAX_ADDRESS - address)), view)


def GetGuestRawSavedMemorySize(handle: int) -> int:
    """Bytes of the flat stream of all saved memory, without the holes."""
    return HANDLES.get(handle).raw_memory.size


def GuestPhysicalAddressToRawSavedMemoryOffset(handle: int, physical_address: int) -> int:
    """Where an address stands in the flat stream, bytes. Raises GuestMemoryError (E_INVALIDARG) for a hole."""
    return HANDLES.get(handle).raw_memory.raw_offset(physical_address)


def ReadGuestRawSavedMemory(handle: int, raw_offset: int, size: int) -> bytes:
    """Up to ``size`` bytes of the flat stream as it was saved, without fixes; short at its end, empty exactly there.

    Raises InvalidArgumentError behind the end, GuestMemoryError where the first byte cannot be read.
    """
    raw_offset = as_int(raw_offset, "an offset")
    buffer = bytearray(_checked(HANDLES.get(handle), raw_offset, size))
    return bytes(buffer[: read_raw(handle, raw_offset, memoryview(buffer))])


def read_raw(handle: int, offset: int, view: memoryview) -> int:
    """The same into a buffer; the bytes delivered. What is behind them may have been overwritten."""
    with HANDLES.get(handle) as instance:
        memory = instance.raw_memory
        if offset > memory.size:
            raise InvalidArgumentError(
                f"the raw offset {offset:#x} lies behind the end of the stream, {memory.size:#x}"
            )
        return _fill(memory, memory.raw_runs(offset, len(view)), view)


def why_no_more(handle: int, address: int, *, raw: bool = False) -> str | None:
    """Why a read ended before this address, or raw offset: damage, in words. None for a hole and the end of memory."""
    with HANDLES.get(handle) as instance:
        memory = instance.raw_memory if raw else instance.memory
        run = next(iter(memory.raw_runs(address, 1) if raw else memory.runs(address, 1)), None)
        try:
            if run is not None and run.position is not None:
                memory.read_raw(memory.raw_offset(run.gpa), 1)
        except GuestMemoryError as error:
            return error.message
    return None


def GuestVirtualAddressToPhysicalAddress(handle: int, vp_id: int, virtual_address: int) -> int:
    """The physical address, by the processor's page tables or what is forced; a page-table root alone decides, not CR0.PG.

    Raises PageNotMapped, whose ``unmapped_size`` is what SDK 22000 hands out beside; GuestMemoryError where a table is
    lost; RegisterNotAvailableError, InvalidArgumentError.
    """
    with HANDLES.get(handle) as instance:
        try:
            return instance.space(vp_id).translate(virtual_address)
        except PageNotMapped as error:
            if error.level is None:  # no entry spans it: as much as the largest entry of four levels
                error.unmapped_size = min(error.unmapped_size, LARGEST_SPAN)
            if instance.walks_unpaged(vp_id):
                error.remedy = (
                    "the processor has paging off; tables are walked all the same, unless Paging_NonPaged is forced"
                )
            raise


def ApplyGuestMemoryFix(handle: int, vp_id: int, virtual_address: int, data: bytes | memoryview) -> None:
    """Lay a copy of ``data`` over guest memory for this handle: virtual and physical reads show it, raw ones do not.

    No file changes. All or nothing; translated as it is mapped now. Raises PageNotMapped, GuestMemoryError for what is
    not saved, InvalidArgumentError for nothing or what leaves the address space.
    """
    with HANDLES.get(handle) as instance:
        if not data:
            raise InvalidArgumentError("a fix of no bytes")
        virtual_address = as_int(virtual_address, "an address")
        if virtual_address + len(data) > MAX_ADDRESS:
            raise InvalidArgumentError(
                f"a fix of {len(data):#x} bytes at {virtual_address:#x} leaves the address space"
            )
        instance.fix(vp_id, virtual_address, data)


def SetMemoryBlockCacheLimit(handle: int, limit: int) -> None:
    """Keep the last ``limit`` decoded blocks of 1 MiB; 0, as at first, keeps none besides the reader's own caches.

    Raises InvalidArgumentError unless it is a number of 64 bits.
    """
    HANDLES.get(handle).limit_cache(limit)


def GetMemoryBlockCacheLimit(handle: int) -> int:
    """What was set, 0 at first."""
    return HANDLES.get(handle).cache_limit


def _checked(instance: Instance, start: int, size: int) -> int:
    """The bytes to make room for: what is asked for, if there is as much. Raises InvalidArgumentError."""
    as_int_in(start, "an address or offset", 0, MAX_ADDRESS - 1)
    return min(as_int_in(size, "a size", 0, (1 << 32) - 1), instance.memory.size)


def _fill(memory: GuestPhysicalMemory, runs: Iterable[MemoryRun], view: memoryview) -> int:
    """Read runs one after another into ``view``, up to the first hole or byte that cannot be read; the bytes delivered.

    Raises GuestMemoryError where that is the very first byte; ``view`` is untouched then.
    """
    done = 0
    for run in runs:
        if run.position is None:
            break
        if not done and run.size <= PAGE:  # of small reads nothing but the answer reaches the buffer
            try:
                view[: run.size] = memory.read(run.gpa, run.size)
                done = run.size
                continue
            except GuestMemoryError:
                pass
        if not done:
            memory.read_raw(memory.raw_offset(run.gpa), 1)  # raises for the first byte
        got = _fill_run(memory, run.gpa, view[done : done + run.size])
        done += got
        if got < run.size:
            break
    return done


def _fill_run(memory: GuestPhysicalMemory, gpa: int, view: memoryview) -> int:
    """Read as much as can be read without a gap; what the error names last may not be the first that is lost."""
    size = len(view)
    while size:
        try:
            memory.read_into(gpa, view[:size])
            break
        except GuestMemoryError as error:
            size = max(0, error.start - gpa)
    return size
