"""The boundary between file formats and the engine: what every format hands over.

A format fills a :class:`Snapshot`; memory, processors and everything behind them read nothing else. Formats know no
paging, the engine knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .containers.keytree import KeyTree
from .files.ranges import Coverage
from .findings import FindingLog
from .registers.values import RegisterValue
from .screen import Screen

PAGE_SIZE = 4096


@dataclass(frozen=True)
class ProcessorRecord:
    """One virtual processor as a format found it.

    Attributes:
        index: the hypervisor's number of the processor (sparse).
        family: ``"x86"`` (16, 32 and 64 bit) or ``"arm64"``.
        vtls: enabled virtual trust levels, ascending.
        active_vtl: the one the processor was running in.
        registers: per VTL a function that decodes the registers the state holds; called at most once per view.
        unconfirmed: per VTL the same for values whose meaning only third parties have worked out.
        cpl: per VTL the privilege level the state stores beside the segments, None where it holds none.
        long_mode: what the file says of EFER.LMA where it does not hold EFER, None where it says nothing.
        nested: whether the file holds state of nested virtualization for it.
    """

    index: int
    family: str
    vtls: tuple[int, ...]
    active_vtl: int
    registers: Mapping[int, Callable[[], dict[str, RegisterValue]]]
    unconfirmed: Mapping[int, Callable[[], dict[str, int]]] = field(default_factory=dict)
    cpl: Mapping[int, int | None] = field(default_factory=dict)
    long_mode: bool | None = None
    nested: bool = False


class StateChunk(NamedTuple):
    """A piece of the stored machine state, understood or not.

    Attributes:
        id: its number in the file; ``name`` in words, ``unknown`` for undocumented ids.
        offset: of its header, bytes from the start of the value that holds the state.
        data: its content.
        vp: index of the processor it belongs to, None for the partition.
        vtl: the virtual trust level it stands under; 0 before any.
    """

    id: int
    name: str
    offset: int
    data: bytes
    vp: int | None
    vtl: int

    def to_dict(self) -> dict[str, Any]:
        """The state chunk as JSON has it, without its content."""
        return {
            "offset": hex(self.offset), "id": hex(self.id), "name": self.name, "vp": self.vp, "vtl": self.vtl,
            "size": len(self.data),
        }  # fmt: skip

    def __repr__(self) -> str:
        """What it is, without its content."""
        return f"<StateChunk {self.id:#010x} {self.name} VP {self.vp} VTL {self.vtl}: {len(self.data)} bytes>"


class CpuidLeaf(NamedTuple):
    """One leaf of the processor's CPUID as the state stores it."""

    leaf: int
    subleaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int


class MemoryRange(NamedTuple):
    """A run of guest memory: ``page_count`` pages from guest page ``start_page``, kept from page ``backing_page`` on.

    Attributes:
        start_page, page_count, backing_page: pages of 4096 bytes.
        node: virtual NUMA node.
        flags: bit 0 hot-added, 1 SGX, 2 VTL2 memory, 3 specific purpose (format specification, 4.1).
    """

    start_page: int
    page_count: int
    backing_page: int
    node: int = 0
    flags: int = 0

    @property
    def start(self) -> int:
        """First guest physical address, bytes."""
        return self.start_page * PAGE_SIZE

    @property
    def end(self) -> int:
        """The guest physical address behind the last byte."""
        return self.start + self.size

    @property
    def size(self) -> int:
        """Bytes."""
        return self.page_count * PAGE_SIZE

    def to_dict(self) -> dict[str, Any]:
        """The range as JSON has it."""
        return {
            "start_page": self.start_page, "page_count": self.page_count, "numa_node": self.node, "flags": self.flags
        }  # fmt: skip


class Unreadable(NamedTuple):
    """Backing bytes that cannot be delivered: from ``start`` to ``end`` (excluded), and why.

    ``reason`` is ``"missing"`` or ``"damaged"``.
    """

    start: int
    end: int
    reason: str
    message: str
    file: str | None = None


class PageBacking(Protocol):
    """Where a format keeps guest memory: bytes addressed by backing position, in whatever form they are stored."""

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """``size`` bytes from backing position ``position`` (bytes); unreadable bytes are zero and listed."""
        ...

    def read_into(self, position: int, buffer: memoryview) -> Sequence[Unreadable]:
        """The same into a writable byte view."""
        ...

    def next_stored(self, position: int) -> int | None:
        """The first backing position from ``position`` on that anything is stored for; None if there is none."""
        ...

    def describe(self) -> dict[str, int]:
        """Counts for people: how many blocks are stored in which way."""
        ...

    def check(self, done: Coverage) -> Iterator[int]:
        """Decode once what is stored outside of ``done`` (backing positions), reporting damage to the findings.

        Yields the bytes done so far.
        """
        ...


class Snapshot(NamedTuple):
    """Everything a format knows about one saved machine; None stands for what it does not say."""

    format: str
    files: tuple[str, ...]
    log: FindingLog
    vm_version: int | None
    saved_state_type: str | None
    writer_version: str | None
    store: KeyTree | None
    processors: tuple[ProcessorRecord, ...]
    enabled_vtls: tuple[int, ...]
    guest_os_ids: Mapping[int, int] | None
    vendor: int | None
    cpuid: tuple[CpuidLeaf, ...]
    nested: bool
    ranges: tuple[MemoryRange, ...]
    backing: PageBacking
    load_screen: Callable[[], Screen | None]
    chunks: Sequence[StateChunk]
    close: Callable[[], None]
    no_processors: str | None = None  # why there are none, where there are none
    salvaged: bool = False  # whether this is what is left of a damaged file
