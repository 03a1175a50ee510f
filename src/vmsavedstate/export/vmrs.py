"""Writes ``.vmrs`` files: for tests, the sample, and conversion from other kinds of dump."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence

from .. import codec
from ..containers.hvstorage.writer import StoreWriter
from ..errors import InvalidArgumentError
from ..files.new_file import CompletesOnExit
from ..files.opening import PathArgument
from ..formats.hyperv.layout import memory as layout
from ..formats.hyperv.layout.keys import CONFIGURED_VERSION, MODERN, SAVED_STATE_TYPE
from ..formats.hyperv.layout.keys import VM_VERSION as VM_VERSION_KEY
from ..formats.hyperv.layout.partition_state import CPUID_CHUNK_SIZE, CPUID_HEADER, CPUID_LEAF, VENDOR_ARM, VENDORS
from ..formats.hyperv.layout.screen import STATE as SCREEN_STATE
from ..integers import as_int
from ..registers.values import RegisterValue
from ..screen import Screen
from ..snapshot import CpuidLeaf
from .partition_state import ProcessorInput, build_partition_state, known_registers

VM_VERSION = 0x0A00
VIDEO_MEMORY = 0x800000
_VENDORS = {"x64": 1, "arm64": VENDOR_ARM}
_FAMILIES = {"x64": "x86", "arm64": "arm64"}

ReadMemory = Callable[[int, int], bytes]


class SavedStateWriter(CompletesOnExit):
    """A ``.vmrs`` file being written; a context manager that completes the file, or removes it after an error.

    Arguments:
        path: must not exist, unless ``overwrite``.
        architecture: ``"x64"`` (also for 16- and 32-bit guests) or ``"arm64"``.
        vm_version: ``(major << 8) | minor``.
        saved_state_type: text of ``/savedstate/type``, or None to leave it out.
        vendor: processor vendor number of the Prolog (0 AMD, 1 Intel, 2 Hygon, 0x10 ARM); by architecture if not given.
        guest_os_ids: guest-OS-id per VTL.
        cpuid: leaves to keep.
        compress: store blocks as page tokens instead of plain.

    Raises SourceError, InvalidArgumentError; the latter also at the end without a processor or without memory (rule 11).
    """

    def __init__(
        self,
        path: PathArgument,
        *,
        architecture: str = "x64",
        vm_version: int = VM_VERSION,
        saved_state_type: str | None = "Normal",
        vendor: int | None = None,
        guest_os_ids: Mapping[int, int] | None = None,
        cpuid: Sequence[CpuidLeaf] = (),
        compress: bool = False,
        overwrite: bool = False,
    ) -> None:
        if architecture not in _FAMILIES:
            raise InvalidArgumentError(f"architecture {architecture!r} is neither 'x64' nor 'arm64'")
        self._family = _FAMILIES[architecture]
        vm_version = as_int(vm_version, "a VM version")
        self._vendor = _VENDORS[architecture] if vendor is None else as_int(vendor, "a vendor")
        if self._vendor not in VENDORS or (self._vendor == VENDOR_ARM) != (architecture == "arm64"):
            raise InvalidArgumentError(f"vendor {self._vendor:#x} does not make {architecture} processors")
        if not 0x0100 < vm_version <= 0xFFFF:
            raise InvalidArgumentError(f"{vm_version:#x} is not a VM version that can be read again")
        self._os_ids = {
            as_int(vtl, "a VTL"): as_int(number, "a guest OS id") for vtl, number in (guest_os_ids or {}).items()
        }
        self._cpuid = tuple(CpuidLeaf(*(as_int(number, "a CPUID value") for number in leaf)) for leaf in cpuid)
        _check_inputs(self._os_ids, self._cpuid)
        self._compress = compress
        self._processors: dict[int, ProcessorInput] = {}
        self._ranges: list[tuple[int, int]] = []
        self._blocks = 0
        self._store = StoreWriter(path, overwrite=overwrite)
        try:
            self._store.set(CONFIGURED_VERSION, "int", vm_version)  # rule 10: both, as Int
            self._store.set(VM_VERSION_KEY, "int", vm_version)
            if saved_state_type is not None:
                self._store.set(SAVED_STATE_TYPE, "string", saved_state_type)
        except BaseException:
            self._store.abort()
            raise

    @property
    def register_names(self) -> frozenset[str]:
        """The registers that :meth:`add_processor` takes for this architecture."""
        return known_registers(self._family)

    def add_processor(
        self,
        index: int,
        registers: Mapping[str, RegisterValue] | None = None,
        *,
        vtls: Mapping[int, Mapping[str, RegisterValue]] | None = None,
        active_vtl: int | None = None,
    ) -> None:
        """Add a virtual processor.

        Give ``registers`` for a processor with VTL0 alone, or ``vtls`` with the registers of each VTL. Names and
        values are those of :class:`vmsavedstate.processor.Registers`, and ``cpl``. A chunk is written when one of its
        registers is given; the others in it are then zero.
        """
        index = as_int(index, "the index of a processor")
        by_vtl = {0: registers or {}} if vtls is None else {as_int(vtl, "a VTL"): item for vtl, item in vtls.items()}
        active = min(by_vtl, default=0) if active_vtl is None else as_int(active_vtl, "a VTL")
        if not by_vtl or active not in by_vtl or not all(0 <= vtl < 16 for vtl in by_vtl):
            raise InvalidArgumentError(f"VP {index}: VTLs are 0 to 15, and the active one must be among those given")
        if not 0 <= index < 4096 or index in self._processors:
            raise InvalidArgumentError(f"{index} is not a valid number for a further processor")
        self._processors[index] = ProcessorInput(index, by_vtl, active)

    def add_memory(
        self, start: int, size: int, read: ReadMemory, *, zero_runs: Sequence[tuple[int, int]] = (), node: int = 0
    ) -> None:
        """Add a range of guest memory: ``size`` bytes at guest physical address ``start``, both whole pages.

        ``read(offset, size)`` delivers bytes of the range, offsets counted from its start, at most 1 MiB at a time
        and in ascending order. ``zero_runs`` lists (offset, size) runs in ascending order that are zero: they are not
        read, and in plain blocks become holes of the file. Every range begins on a new block.
        """
        start, size, node = as_int(start, "an address"), as_int(size, "a size"), as_int(node, "a NUMA node")
        zero_runs = [(as_int(at, "an offset"), as_int(length, "a size")) for at, length in zero_runs]
        page = layout.PAGE
        if start % page or size % page or size <= 0 or start < 0 or (start + size) // page > layout.MAX_PAGE:
            raise InvalidArgumentError(f"memory of {size:#x} bytes at {start:#x} is not a range of whole pages")
        if not 0 <= node <= 0xFFFFFFFF:
            raise InvalidArgumentError(f"{node} is not a valid NUMA node number")
        if any(start < other + length and other < start + size for other, length in self._ranges):
            raise InvalidArgumentError(f"memory of {size:#x} bytes at {start:#x} overlaps memory added before")
        metadata = layout.RAM_METADATA.pack(
            layout.RAM_METADATA_VERSION, 0, size // page, self._blocks * layout.BLOCK_PAGES, start // page, node, 0, 0
        )
        parent, prefix = MODERN.metadata_parent, MODERN.metadata_prefix
        self._store.set(f"{parent}/{prefix}{len(self._ranges)}", "array", metadata)
        self._ranges.append((start, size))
        zeros = _ZeroRuns(zero_runs)
        for offset in range(0, size, layout.BLOCK):
            self._add_block(offset, min(layout.BLOCK, size - offset), read, zeros)

    def set_screen(self, screen: Screen) -> None:
        """Keep a picture of the console, as Hyper-V does (format specification, 3.1)."""
        state = SCREEN_STATE.pack(VIDEO_MEMORY, 0, screen.width, screen.height, 1)
        self._store.set(f"{MODERN.screen}/State", "array", state)
        self._store.set(f"{MODERN.screen}/Screen", "array", screen.to_rgb565())

    def _complete(self) -> None:
        if not self._processors or not self._ranges:
            raise InvalidArgumentError("a saved state needs at least one processor and one range of memory")
        ordered = [self._processors[index] for index in sorted(self._processors)]
        blob = build_partition_state(self._family, self._vendor, ordered, self._os_ids, self._cpuid)
        self._store.set(MODERN.partition_state, "array", blob)
        self._store.close()

    def _discard(self) -> None:
        self._store.abort()

    def _add_block(self, offset: int, size: int, read: ReadMemory, zeros: _ZeroRuns) -> None:
        path = f"{MODERN.blocks_parent}/{MODERN.blocks_prefix}{self._blocks}"
        self._blocks += 1
        pieces = _pieces(offset, size, read, zeros)
        if not self._compress:
            self._store.set_array(path, layout.BLOCK, pieces)  # a partial block is padded: shorter means compressed
            return
        block = bytearray(layout.BLOCK)
        for at, data in pieces:
            block[at : at + len(data)] = data
        packed = codec.active().encode_block(bytes(block))
        self._store.set(path, "array", packed if len(packed) < layout.BLOCK else bytes(block))


def _check_inputs(os_ids: Mapping[int, int], cpuid: Sequence[CpuidLeaf]) -> None:
    if any(not 0 <= vtl < 16 or not 0 <= number < 1 << 64 for vtl, number in os_ids.items()):
        raise InvalidArgumentError("guest OS ids are numbers of 64 bits for VTLs 0 to 15")
    room = (CPUID_CHUNK_SIZE - CPUID_HEADER.size) // CPUID_LEAF.size
    if len(cpuid) > room or any(not 0 <= number < 1 << 32 for leaf in cpuid for number in leaf):
        raise InvalidArgumentError(f"CPUID leaves are at most {room}, of six numbers of 32 bits each")


class _ZeroRuns:
    """Ascending runs of zeros in a range, to be asked for the stretches between them."""

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in runs]
        self._ends = [start + size for start, size in runs]
        if any(low < 0 or high < low for low, high in zip(self._starts, self._ends, strict=True)) or any(
            after < before for before, after in zip(self._ends, self._starts[1:], strict=False)
        ):
            raise InvalidArgumentError("zero runs must be ascending and must not overlap")

    def data_between(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(start, end) of the stretches of ``start`` to ``end`` that are not known to be zero."""
        index = bisect_right(self._ends, start)
        while start < end:
            low = self._starts[index] if index < len(self._starts) else end
            if start < low:
                yield start, min(low, end)
            if index == len(self._starts):
                return
            start, index = self._ends[index], index + 1


def _pieces(offset: int, size: int, read: ReadMemory, zeros: _ZeroRuns) -> Iterator[tuple[int, bytes]]:
    """(position in the block, bytes) of what must be stored of one block."""
    for start, end in zeros.data_between(offset, offset + size):
        data = read(start, end - start)
        if len(data) != end - start:
            raise InvalidArgumentError(f"read() gave {len(data):#x} of {end - start:#x} bytes at offset {start:#x}")
        yield start - offset, data
