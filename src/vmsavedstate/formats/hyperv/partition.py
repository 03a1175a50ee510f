"""Partition state: from chunks to processors, VTLs, guest OS ids and CPUID (format specification, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from ...errors import NoVirtualProcessorError
from ...findings import FindingLog
from ...registers.values import RegisterValue
from ...remedies import CUT_SHORT
from ...snapshot import CpuidLeaf, ProcessorRecord, StateChunk
from . import registers
from .layout import partition_state as layout
from .layout.partition_state import ChunkId
from .state_chunks import Blob, Chunk, read_chunks, read_envelope

MAX_VPS = 65_536  # the hypervisor knows 2,048; nothing is allocated by an unchecked number
HIGHEST_VTL = 15
NESTED = (ChunkId.VP_NESTED_BASE, ChunkId.VP_NESTED_CURRENT_VMCS)  # their layout is unpublished


@dataclass
class _VpState:
    """What the stream says of one processor while it is read; chunks by VTL, then by id."""

    chunks: dict[int, dict[int, bytes]] = field(default_factory=dict)
    vtls: set[int] = field(default_factory=set)
    vtl: int = 0
    active_vtl: int = 0


class PartitionState(NamedTuple):
    """Everything understood of the partition state, and every chunk of it.

    Attributes:
        vendor: processor vendor as the Prolog has it: 0 AMD, 1 Intel, 2 Hygon, 0x10 ARM.
        nested: whether a processor carries state of nested virtualization.
    """

    vendor: int
    enabled_vtls: tuple[int, ...]
    os_ids: dict[int, int]
    cpuid: tuple[CpuidLeaf, ...]
    processors: tuple[ProcessorRecord, ...]
    nested: bool
    chunks: tuple[StateChunk, ...]


def read_partition_state(data: bytes, file: str, offset: int, log: FindingLog) -> PartitionState:
    """Parse the value of ``partition_state``; ``offset`` is where it stands in the file, for messages.

    Raises EncryptedStateError, NoVirtualProcessorError; with a strict log CorruptFileError.
    """
    blob = Blob(data, file, offset, log)
    return _Reader(blob).read(*read_envelope(blob))


class _Reader:
    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.chunks: list[StateChunk] = []
        self.vendor = 0
        self.partition_vtls: set[int] = set()
        self.partition_vtl = 0
        self.os_ids: dict[int, int] = {}
        self.cpuid: tuple[CpuidLeaf, ...] = ()
        self.listed_vps: set[int] | None = None
        self.vps: dict[int, _VpState] = {}
        self.unknown_ids: set[int] = set()
        self.current: _VpState | None = None
        self.current_index: int | None = None
        self._handlers: dict[int, Callable[[Chunk], None]] = {
            ChunkId.PROLOG: self._prolog,
            ChunkId.PARTITION_VTL: self._partition_vtl,
            ChunkId.OS_ID: self._os_id,
            ChunkId.PROCESSOR_CPUID_DATA: self._cpuid,
            ChunkId.VP_INDICES: self._vp_indices,
            ChunkId.VP: self._vp,
        }

    def read(self, start: int, end: int) -> PartitionState:
        for chunk in read_chunks(self.blob, start, end):
            self._take(chunk)
        if not self.vps:
            raise NoVirtualProcessorError(
                "the partition state holds no virtual processor",
                file=self.blob.file,
                offset=self.blob.offset,
                remedy=CUT_SHORT,
            )
        self._compare_vp_lists()
        self._report_bare()
        processors = tuple(self._processor(index, self.vps[index]) for index in sorted(self.vps))
        vtls = self.partition_vtls or {vtl for record in processors for vtl in record.vtls}
        return PartitionState(
            self.vendor,
            tuple(sorted(vtls)),
            self.os_ids,
            self.cpuid,
            processors,
            any(chunk.id in NESTED for chunk in self.chunks),
            tuple(self.chunks),
        )

    @property
    def family(self) -> str:
        return "arm64" if self.vendor == layout.VENDOR_ARM else "x86"

    def _take(self, chunk: Chunk) -> None:
        if chunk.id & layout.CHUNK_SCOPE_MASK == layout.VP_SCOPE and chunk.id not in (ChunkId.VP_INDICES, ChunkId.VP):
            self._vp_chunk(chunk)
            return
        handler = self._handlers.get(chunk.id)
        if handler is not None:
            handler(chunk)
        elif chunk.id not in layout.KNOWN_CHUNKS:
            self._unknown(chunk)
        if chunk.id == ChunkId.VP:
            self._list(chunk, self.current_index, 0)
        else:
            self._list(chunk, None, self.partition_vtl)

    def _list(self, chunk: Chunk, vp: int | None, vtl: int) -> None:
        self.chunks.append(StateChunk(chunk.id, chunk.name, chunk.offset, chunk.data, vp, vtl))

    def _unknown(self, chunk: Chunk) -> None:
        """One note per id; every chunk is in the list of chunks."""
        if chunk.id not in self.unknown_ids:
            self.unknown_ids.add(chunk.id)
            self.blob.note(
                "partition.chunk.unknown",
                chunk.offset,
                f"chunk of unknown id {chunk.id:#010x}, kept unread",
                found=len(chunk.data),
            )

    def _long_enough(self, chunk: Chunk, size: int) -> bool:
        if len(chunk.data) >= size:
            return True
        self.blob.damage(
            "partition.chunk.short",
            chunk.offset,
            f"chunk {chunk.name} is too short, it is left out",
            found=len(chunk.data),
            expected=f"{size:#x}",
        )
        return False

    def _prolog(self, chunk: Chunk) -> None:
        _, summary, self.vendor = layout.PROLOG.unpack_from(chunk.data)
        if summary:
            self.blob.note(
                "partition.summary", chunk.offset, "this is a summary state, it may be incomplete", found=summary
            )
        if self.vendor not in layout.VENDORS:
            self.blob.note("partition.vendor", chunk.offset, "unknown processor vendor, read as x86", found=self.vendor)

    def _partition_vtl(self, chunk: Chunk) -> None:
        if self._long_enough(chunk, 1):
            self._check_vtl(chunk)
            self.partition_vtl = chunk.data[0]
            self.partition_vtls.add(chunk.data[0])

    def _check_vtl(self, chunk: Chunk) -> None:
        if chunk.data[0] > HIGHEST_VTL:
            self.blob.damage(
                "partition.vtl",
                chunk.offset,
                "a virtual trust level that cannot be",
                found=chunk.data[0],
                expected="0 to 15",
            )

    def _os_id(self, chunk: Chunk) -> None:
        if self._long_enough(chunk, 8):
            if self.partition_vtl in self.os_ids:
                self.blob.note(
                    "partition.guest-os.twice",
                    chunk.offset,
                    f"second guest OS id of VTL {self.partition_vtl}, the first one counts",
                )
            self.os_ids.setdefault(self.partition_vtl, int.from_bytes(chunk.data[:8], "little"))

    def _cpuid(self, chunk: Chunk) -> None:
        if not self._long_enough(chunk, layout.CPUID_HEADER.size):
            return
        _, count, _, _ = layout.CPUID_HEADER.unpack_from(chunk.data)
        room = (len(chunk.data) - layout.CPUID_HEADER.size) // layout.CPUID_LEAF.size
        if count > room:
            self.blob.damage(
                "partition.cpuid.count",
                chunk.offset,
                "more CPUID leaves than the chunk holds",
                found=count,
                expected=f"{room:#x}",
            )
        leaves = (
            layout.CPUID_LEAF.unpack_from(chunk.data, layout.CPUID_HEADER.size + index * layout.CPUID_LEAF.size)
            for index in range(min(count, room))
        )
        self.cpuid = tuple(CpuidLeaf(*leaf) for leaf in leaves)

    def _vp_indices(self, chunk: Chunk) -> None:
        if not self._long_enough(chunk, 5):
            return
        bitmap = chunk.data[4 : 4 + MAX_VPS // 8]
        if any(chunk.data[4 + MAX_VPS // 8 :]):
            self.blob.damage(
                "partition.processors.list-size",
                chunk.offset,
                f"the list of processors goes beyond number {MAX_VPS}",
                found=len(chunk.data),
            )
        self.listed_vps = {
            8 * place + bit for place, byte in enumerate(bitmap) if byte for bit in range(8) if byte >> bit & 1
        }

    def _vp(self, chunk: Chunk) -> None:
        if not self._long_enough(chunk, 4):
            self.current, self.current_index = None, None
            return
        index = int.from_bytes(chunk.data[:4], "little")
        if index >= MAX_VPS:
            self.blob.damage(
                "partition.processors.number",
                chunk.offset,
                "a processor of an absurd number, it is left out",
                found=index,
            )
            self.current, self.current_index = None, None
            return
        if index in self.vps:
            self.blob.damage(
                "partition.processors.twice", chunk.offset, "a second row of chunks for one processor", found=index
            )
        self.current = self.vps.setdefault(index, _VpState())
        self.current.vtl = 0
        self.current_index = index

    def _vp_chunk(self, chunk: Chunk) -> None:
        vp = self.current
        if vp is None:
            self.blob.damage(
                "partition.chunk.before-processor",
                chunk.offset,
                f"processor chunk {chunk.id:#010x} before any processor",
            )
            self._list(chunk, None, 0)
            return
        if chunk.id == ChunkId.VP_VTL and self._long_enough(chunk, 1):
            self._check_vtl(chunk)
            vp.vtl = chunk.data[0]
            vp.vtls.add(vp.vtl)
        elif chunk.id == ChunkId.VP_VTL_CONTROL_PAGE and self._long_enough(chunk, layout.VTL_CONTROL_PAGE.size):
            _, runnable = layout.VTL_CONTROL_PAGE.unpack_from(chunk.data)
            if runnable:
                vp.active_vtl = vp.vtl
        elif chunk.id not in layout.KNOWN_CHUNKS:
            self._unknown(chunk)
        self._list(chunk, self.current_index, vp.vtl)
        if chunk.id != ChunkId.VP_VTL:
            self._keep(vp, chunk)

    def _keep(self, vp: _VpState, chunk: Chunk) -> None:
        size = registers.expected_sizes(self.family).get(chunk.id)
        if size is not None:
            vp.vtls.add(vp.vtl)  # registers before any VpVtl belong to VTL0 (6.7)
            if not self._long_enough(chunk, size):
                return
            if len(chunk.data) > size:
                self.blob.note(
                    "partition.chunk.long",
                    chunk.offset,
                    f"chunk {chunk.name} is longer than known",
                    found=len(chunk.data),
                    expected=f"{size:#x}",
                )
        level = registers.stored_cpl(chunk.data) if chunk.id == ChunkId.VP_SEGMENT_REGISTERS else None
        if level is not None and level > 3:
            self.blob.damage(
                "partition.privilege-level",
                chunk.offset,
                "a privilege level that cannot be",
                found=level,
                expected="0 to 3",
            )
        kept = vp.chunks.setdefault(vp.vtl, {})
        if size is not None and chunk.id in kept:
            self.blob.damage(
                "partition.chunk.twice",
                chunk.offset,
                f"second chunk {chunk.name} of one processor and VTL, the first one counts",
            )
        kept.setdefault(chunk.id, chunk.data)

    def _compare_vp_lists(self) -> None:
        if self.listed_vps is not None and self.listed_vps != set(self.vps):
            self.blob.damage(
                "partition.processors.list",
                0,
                "the list of processors and the processors that follow disagree; those that follow count",
                found=_indices(self.vps),
                expected=_indices(self.listed_vps),
            )

    def _report_bare(self) -> None:
        """A processor without general registers: odd, and every tool will miss them."""
        for index, vp in sorted(self.vps.items()):
            if not any(ChunkId.VP_GP_REGISTERS in chunks for chunks in vp.chunks.values()):
                self.blob.note(
                    "partition.processors.bare",
                    0,
                    f"the processor with the index {index} has no general registers in this state",
                )

    def _processor(self, index: int, vp: _VpState) -> ProcessorRecord:
        vtls = tuple(sorted(vp.vtls or {0}))
        family = self.family
        views: dict[int, Callable[[], dict[str, RegisterValue]]] = {}
        unconfirmed: dict[int, Callable[[], dict[str, int]]] = {}
        by_vtl: Mapping[int, Mapping[int, bytes]] = vp.chunks
        for vtl in vtls:
            views[vtl] = partial(registers.registers_of_vtl, by_vtl, vtl, family)
            unconfirmed[vtl] = partial(registers.unconfirmed_of_vtl, by_vtl, vtl, family)
        return ProcessorRecord(
            index,
            family,
            vtls,
            vp.active_vtl if vp.active_vtl in vtls else vtls[0],
            views,
            unconfirmed,
            {vtl: registers.cpl_of_vtl(by_vtl, vtl, family) for vtl in vtls},
            nested=any(chunk in kept for kept in by_vtl.values() for chunk in NESTED),
        )


def _indices(numbers: object) -> str:
    assert isinstance(numbers, (dict, set))
    shown = sorted(numbers)
    return ", ".join(f"{number:#x}" for number in shown[:16]) + (", ..." if len(shown) > 16 else "") or "none"
