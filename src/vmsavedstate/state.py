"""SavedState and open(): the only place where formats meet the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

from .containers.keytree import KeyTree
from .datatypes.enums import VirtualProcessorVendor
from .errors import RegisterNotAvailableError, SourceError, VtlNotEnabledError
from .files.opening import PathArgument
from .findings import Finding, FindingLog
from .formats.detect import Inputs, is_core_dump, open_snapshot, open_tree
from .memory import GuestPhysicalMemory
from .paging import AddressSpaces
from .processor import Cpuid, GuestOs, VirtualProcessor
from .registers.values import GivenRegisters
from .screen import Screen
from .snapshot import Snapshot, StateChunk

if TYPE_CHECKING:
    from .files.locks import SharedLock

__all__ = ["PathArgument", "SavedState", "is_core_dump", "open", "open_store"]

_VENDORS: dict[int, VirtualProcessorVendor] = {
    0: VirtualProcessorVendor.AMD,
    1: VirtualProcessorVendor.INTEL,
    2: VirtualProcessorVendor.HYGON,
    0x10: VirtualProcessorVendor.ARM,
}


class SavedState:
    """An open saved state; a context manager.

    Attributes:
        format: ``"vmrs"``, ``"bin+vsv"`` or ``"qemu-elf"``.
        files: the files it consists of.
        vm_version: ``(major << 8) | minor``, an int; None where the file has no such thing (a dump of QEMU).
        saved_state_type: ``"Normal"``, ``"Snapshot"``, ... or None where the state does not say.
        writer_version: version of the worker process that wrote it, or None.
        store: the key tree, or None for formats without one.
        processors: the virtual processors by id.
        memory: the guest's physical memory.
        enabled_vtls: virtual trust levels of the partition, ascending.
        processor_vendor: vendor of the processor the guest saw.
        cpuid: the saved CPUID leaves, empty where none were saved.
        nested: whether a processor carries state of nested virtualization.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.format = snapshot.format
        self.files = snapshot.files
        self.vm_version = snapshot.vm_version
        self.saved_state_type = snapshot.saved_state_type
        self.writer_version = snapshot.writer_version
        self.store: KeyTree | None = snapshot.store
        self.memory = GuestPhysicalMemory(snapshot.ranges, snapshot.backing, strict=snapshot.log.strict)
        spaces = AddressSpaces(self.memory)
        self.processors = tuple(
            VirtualProcessor(number, item, spaces) for number, item in enumerate(snapshot.processors)
        )
        self.enabled_vtls = snapshot.enabled_vtls
        vendors = {} if snapshot.vendor is None else _VENDORS
        self.processor_vendor = vendors.get(snapshot.vendor or 0, VirtualProcessorVendor.UNKNOWN)
        self.cpuid = Cpuid(snapshot.cpuid)
        self.nested = snapshot.nested
        self._locks: list[SharedLock] = []
        self._closed = False

    def __repr__(self) -> str:
        """File, processors and memory."""
        return f"<SavedState {self.files[0]!r}: {len(self.processors)} processors, {self.memory.size:#x} bytes>"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is odd or broken, as far as it has been read; empty for a sound file.

        Opening checks every structure; the content of memory blocks is checked when it is read, all of it by
        :meth:`check_memory`.
        """
        return tuple(self._snapshot.log)

    @property
    def chunks(self) -> Sequence[StateChunk]:
        """Every chunk of the partition state in stored order, unknown ones too."""
        return self._snapshot.chunks

    @cached_property
    def screen(self) -> Screen | None:
        """The picture the VM's console showed, None where none was saved. Raises ScreenError for an unknown layout."""
        return self._snapshot.load_screen()

    def guest_os(self, vtl: int = 0) -> GuestOs:
        """What the guest of a VTL said about itself.

        Raises VtlNotEnabledError, and RegisterNotAvailableError where the file does not hold the guest-OS-id.
        """
        if vtl not in self.enabled_vtls:
            enabled = ", ".join(map(str, self.enabled_vtls))
            raise VtlNotEnabledError(f"VTL {vtl} is not enabled in this partition (enabled: {enabled})")
        if self._snapshot.guest_os_ids is None:
            raise RegisterNotAvailableError("the file does not hold the guest-OS-id", file=self.files[0])
        return GuestOs(self._snapshot.guest_os_ids.get(vtl, 0))

    def storage(self) -> dict[str, int]:
        """How guest memory is stored: counts of blocks by kind, and the bytes they take in the file."""
        return self._snapshot.backing.describe()

    def check_memory(self, progress: Callable[[int], object] | None = None) -> None:
        """Decode all guest memory once, so that :attr:`findings` speaks of everything.

        ``progress`` is called with the bytes of memory done so far.
        """
        for done in self._snapshot.backing.check():
            if progress is not None:
                progress(done)

    def lock(self) -> None:
        """Hold advisory locks, shared with other readers, on the files until :meth:`close`.

        They keep :func:`.hvstorage.apply_replay_log` away; reading does not need them. Nothing where there are no such
        locks. Raises SourceError (ERROR_SHARING_VIOLATION) while another process holds an exclusive lock, and after
        :meth:`close`.
        """
        if self._closed:
            raise SourceError("the file is closed", file=self.files[0], remedy="lock before the state is closed")
        from .files.locks import SharedLock

        for file in self.files[len(self._locks) :]:
            self._locks.append(SharedLock(file))

    def close(self) -> None:
        """Close the files."""
        self._closed = True
        self._snapshot.close()
        for lock in self._locks:
            lock.close()

    def __enter__(self) -> SavedState:
        """The state itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()


def open(
    path: PathArgument,
    companion: PathArgument | None = None,
    *,
    registers: PathArgument | GivenRegisters | None = None,
    strict: bool = False,
) -> SavedState:
    """Open a saved state: a ``.vmrs``, one file of a ``.bin``/``.vsv`` pair, or an ELF dump of QEMU.

    Arguments: ``path``, and ``companion``, the other file of the pair where it does not lie beside it under the same
    name; ``registers``, for a dump of QEMU, what it does not hold: a file with QEMU's ``info registers -a`` or with JSON
    (docs/qemu.md), or {processor index: {register: value}}; what the dump holds itself stays. ``strict`` refuses what is
    otherwise continued past and listed in ``findings``.

    Raises SourceError (cannot be opened), FormatError (no saved state), PartitionStateNotFoundError,
    GuestMemoryNotFoundError, NoVirtualProcessorError, EncryptedStateError, CompanionError, CorruptFileError.
    """
    log = FindingLog(strict=strict)
    with log.attached():
        return SavedState(open_snapshot(path, Inputs(companion, registers), log))


def open_store(path: PathArgument, *, strict: bool = False) -> KeyTree:
    """Open one file for its keys alone: ``.vmrs``, ``.vmcx``, ``.bin`` or ``.vsv``, with or without a saved state.

    Raises SourceError, FormatError, CorruptFileError.
    """
    log = FindingLog(strict=strict)
    with log.attached():
        return open_tree(path, log)
