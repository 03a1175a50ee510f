"""One loaded saved state as the provider knows it, with what its callers force; and the table of handles."""

from __future__ import annotations

import itertools
import secrets
import threading
from types import TracebackType
from typing import TypeVar

from ..datatypes.enums import PagingMode, VirtualProcessorArch
from ..errors import InvalidArgumentError
from ..files.overlay import Patch, PatchSet
from ..integers import as_int, as_int_in
from ..memory import MAX_ADDRESS, GuestPhysicalMemory
from ..paging import AddressSpace
from ..processor import VirtualProcessor
from ..state import SavedState

Forced = TypeVar("Forced", VirtualProcessorArch, PagingMode)


class Instance:
    """A loaded saved state behind a handle.

    A context manager around each call that reads the files: they are closed, and their locks given back, when the
    handle is released and no such call is under way. A callback may release the handle of its own call.

    Attributes:
        state: the saved state; forcing changes nothing in it.
        memory: its physical memory with the fixes that were applied.
        raw_memory: the same without them.
        cache_limit: what SetMemoryBlockCacheLimit was given, blocks of 1 MiB.
        symbol_callback: what SetSavedStateSymbolProviderDebugInfoCallback was given; nothing calls it.
    """

    def __init__(self, state: SavedState) -> None:
        self.state = state
        self.cache_limit = 0
        self.symbol_callback: object = None
        self.memory = self.raw_memory = state.memory
        self._in_use = threading.Lock()  # of the two below
        self._calls = 0
        self._released = False
        self._lock = threading.Lock()  # of everything that is forced; reads take none
        self._fixes = PatchSet()  # by guest physical address
        self._processors = list(state.processors)
        self._architectures: dict[int, VirtualProcessorArch] = {}
        self._modes: dict[int, PagingMode] = {}
        self._spaces: dict[int, AddressSpace] = {}

    def __enter__(self) -> Instance:
        """Keep the files open; raises InvalidArgumentError where the handle was released meanwhile."""
        with self._in_use:
            if self._released:
                raise InvalidArgumentError("the handle has been released")
            self._calls += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """One call less."""
        with self._in_use:
            self._calls -= 1
            over = self._released and not self._calls
        if over:
            self.state.close()

    def release(self) -> None:
        """Close the files, now or after the last call."""
        with self._in_use:
            self._released = True
            over = not self._calls
        if over:
            self.state.close()

    def processor(self, vp_id: int) -> VirtualProcessor:
        """Processor ``vp_id``, 0 to count - 1, seen from its active or forced VTL. Raises InvalidArgumentError."""
        vp_id = as_int(vp_id, "a processor id")
        if not 0 <= vp_id < len(self._processors):
            raise InvalidArgumentError(
                f"there is no virtual processor {vp_id}; they are 0 to {len(self._processors) - 1}"
            )
        return self._processors[vp_id]

    def architecture(self, vp_id: int) -> VirtualProcessorArch:
        """What the processor was executing, or what is forced. Raises InvalidArgumentError, RegisterNotAvailableError."""
        processor = self.processor(vp_id)
        return self._architectures.get(vp_id) or processor.architecture

    def paging_mode(self, vp_id: int) -> PagingMode:
        """The mode its control registers speak of, CR0.PG or not (API specification, section 11), or what is forced.

        Raises InvalidArgumentError, RegisterNotAvailableError.
        """
        processor = self.processor(vp_id)
        forced = self._modes.get(vp_id)
        if forced is not None:
            return forced
        if processor.family == "arm64":
            return PagingMode.ARMV8
        return processor.address_space(ignore_pg=True).paging_mode

    def space(self, vp_id: int) -> AddressSpace:
        """The address space translation uses, with everything that is forced and all fixes.

        Raises InvalidArgumentError, RegisterNotAvailableError.
        """
        vp_id = as_int(vp_id, "a processor id")
        space = self._spaces.get(vp_id)
        if space is None:
            with self._lock:
                space = self._spaces[vp_id] = self.processor(vp_id).address_space(
                    architecture=self._architectures.get(vp_id),
                    paging_mode=self._modes.get(vp_id),
                    ignore_pg=True,
                    memory=self.memory,
                )
        return space

    def walks_unpaged(self, vp_id: int) -> bool:
        """Whether the tables are walked although the processor has paging off (API specification, section 11)."""
        processor = self.processor(vp_id)
        return (
            processor.family == "x86" and vp_id not in self._modes and not processor.registers.integer("cr0") >> 31 & 1
        )

    def force_architecture(self, vp_id: int, architecture: VirtualProcessorArch) -> None:
        """Use another architecture; UNKNOWN goes back to the processor's own. Raises InvalidArgumentError."""
        self._force(self._architectures, vp_id, architecture)

    def force_paging_mode(self, vp_id: int, mode: PagingMode) -> None:
        """Use another paging mode; INVALID goes back to the processor's own. Raises InvalidArgumentError."""
        self._force(self._modes, vp_id, mode)

    def _force(self, forced: dict[int, Forced], vp_id: int, value: Forced) -> None:
        vp_id = as_int(vp_id, "a processor id")
        self.processor(vp_id)
        with self._lock:
            if value:
                forced[vp_id] = value
            else:
                forced.pop(vp_id, None)
            self._spaces.pop(vp_id, None)

    def force_vtl(self, vp_id: int, vtl: int) -> None:
        """Take registers and translation from another VTL. Raises InvalidArgumentError, VtlNotEnabledError."""
        view = self.processor(vp_id).vtl(vtl)
        with self._lock:
            self._processors[vp_id] = view
            self._spaces.pop(vp_id, None)

    def fix(self, vp_id: int, gva: int, data: bytes | memoryview) -> None:
        """Lay bytes over guest memory, page by page as it is mapped now; all of them or none. They are copied.

        Raises PageNotMapped, GuestMemoryError, InvalidArgumentError, RegisterNotAvailableError.
        """
        gva = as_int(gva, "an address")
        space = self.space(vp_id)
        firsts: list[int] = []  # where in the data the pieces begin that are in one piece in memory, too
        places: list[int] = []  # and at which guest physical addresses
        done = 0
        while done < len(data):  # nothing is read before all of it has a place
            gpa = space.translate(gva + done)
            if not firsts or gpa - places[-1] != done - firsts[-1]:
                firsts.append(done)
                places.append(gpa)
            done += 4096 - (gva + done) % 4096
        ends = [*firsts[1:], len(data)]
        pieces = [Patch(place, bytes(data[first:end])) for place, first, end in zip(places, firsts, ends, strict=True)]
        with self._lock:
            fixes = PatchSet([*self._fixes, *pieces])
            self.memory = self.raw_memory.overlaid(fixes)
            self._fixes = fixes
            self._spaces.clear()

    def limit_cache(self, blocks: int) -> None:
        """Keep so many decoded blocks of 1 MiB; 0 drops them. What the reader keeps for itself is not counted.

        Raises InvalidArgumentError.
        """
        blocks = as_int_in(blocks, "a number of blocks", 0, MAX_ADDRESS - 1)
        with self._lock:
            memory: GuestPhysicalMemory = self.state.memory
            self.cache_limit = blocks
            self.raw_memory = memory.cached(blocks) if blocks else memory
            self.memory = self.raw_memory.overlaid(self._fixes) if self._fixes else self.raw_memory
            self._spaces.clear()


class _Handles:
    """Numbers for instances: never 0, never a pointer, never used twice in a process."""

    def __init__(self) -> None:
        self._numbers = itertools.count(secrets.randbelow(1 << 20) << 10 | 0x40000001)
        self._instances: dict[int, Instance] = {}

    def add(self, instance: Instance) -> int:
        """A handle for an instance."""
        handle = next(self._numbers)
        self._instances[handle] = instance
        return handle

    def get(self, handle: int) -> Instance:
        """The instance of a handle. Raises InvalidArgumentError, at once, for an invalid or released handle."""
        try:
            return self._instances[handle if type(handle) is int else as_int(handle, "a handle")]
        except (KeyError, InvalidArgumentError):
            raise _no_handle(handle) from None

    def remove(self, handle: int) -> Instance:
        """Forget a handle. Raises InvalidArgumentError."""
        try:
            return self._instances.pop(as_int(handle, "a handle"))
        except (KeyError, InvalidArgumentError):
            raise _no_handle(handle) from None


def _no_handle(handle: object) -> InvalidArgumentError:
    shown = f"{handle:#x}" if isinstance(handle, int) else repr(handle)
    return InvalidArgumentError(
        f"{shown} is not a handle of a loaded saved state", remedy="it was released, or never came from a load function"
    )


HANDLES = _Handles()
