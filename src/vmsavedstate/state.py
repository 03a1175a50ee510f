"""SavedState and open(): the only place where formats meet the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from .containers.keytree import KeyTree
from .datatypes.enums import VirtualProcessorVendor
from .errors import InvalidArgumentError, RegisterNotAvailableError, VtlNotEnabledError
from .files.objects import FileArgument
from .files.opening import PathArgument
from .findings import Finding, FindingLog
from .formats.detect import Inputs, is_evidence, open_snapshot, open_tree
from .integers import as_int
from .memory import GuestPhysicalMemory
from .memory.lifetime import Lifetime
from .paging import AddressSpaces
from .processor import Cpuid, GuestOs, VirtualProcessor
from .registers.values import GivenRegisters
from .screen import Screen
from .snapshot import Snapshot, StateChunk

if TYPE_CHECKING:
    from .files.locks import SharedLock
    from .summary import Summary
    from .verification import Report

__all__ = ["PathArgument", "SavedState", "is_evidence", "open", "open_store"]

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
        processors: the virtual processors by id; empty for formats that hold none, ``no_processors`` then says why.
        memory: the guest's physical memory.
        salvaged: whether this is what is left of a damaged file that cannot be opened otherwise.
        enabled_vtls: virtual trust levels of the partition, ascending.
        processor_vendor: vendor of the processor the guest saw.
        cpuid: the saved CPUID leaves, empty where none were saved.
        nested: whether a processor carries state of nested virtualization.
    """

    def __init__(self, snapshot: Snapshot, origin: Origin | None = None) -> None:
        self._snapshot = snapshot
        self._origin = origin
        self._lifetime = Lifetime(snapshot.files[0])
        self.format = snapshot.format
        self.files = snapshot.files
        self.vm_version = snapshot.vm_version
        self.saved_state_type = snapshot.saved_state_type
        self.writer_version = snapshot.writer_version
        self.store: KeyTree | None = snapshot.store
        self.memory = GuestPhysicalMemory(
            snapshot.ranges, snapshot.backing, strict=snapshot.log.strict, lifetime=self._lifetime
        )
        spaces = AddressSpaces(self.memory)
        self.processors = tuple(
            VirtualProcessor(number, item, spaces) for number, item in enumerate(snapshot.processors)
        )
        self.no_processors = None if self.processors else snapshot.no_processors or "this file holds no processor"
        self.salvaged = snapshot.salvaged
        self.enabled_vtls = snapshot.enabled_vtls
        vendors = {} if snapshot.vendor is None else _VENDORS
        self.processor_vendor = vendors.get(snapshot.vendor or 0, VirtualProcessorVendor.UNKNOWN)
        self.cpuid = Cpuid(snapshot.cpuid)
        self.nested = snapshot.nested
        self._locks: list[SharedLock] = []

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

    @property
    def screen(self) -> Screen | None:
        """The picture the VM's console showed, None where none was saved. Raises ScreenError for an unknown layout."""
        self._lifetime.check()
        return self._screen

    @cached_property
    def _screen(self) -> Screen | None:
        return self._snapshot.load_screen()

    def summary(self) -> Summary:
        """What is in the state, on one page: the object behind ``vmrs info``. Reads no guest memory."""
        from .summary import summarise

        self._lifetime.check()
        return summarise(self)

    def verify(self, progress: Callable[[int], object] | None = None) -> Report:
        """Check every value and decode all memory on all cores: the object behind ``vmrs verify``.

        ``progress`` is called with the bytes of memory done so far. :func:`vmsavedstate.verify` does the same for a
        file that may not open.
        """
        from .verification import verify_state

        self._lifetime.check()
        return verify_state(self, progress)

    def guest_os(self, vtl: int = 0) -> GuestOs:
        """What the guest of a VTL said about itself.

        Raises VtlNotEnabledError, and RegisterNotAvailableError where the file does not hold the guest-OS-id.
        """
        vtl = as_int(vtl, "a VTL")
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
        from .verification import decode_all

        self._lifetime.check()
        decode_all(self.memory, self.memory.backing, progress)

    def lock(self) -> None:
        """Hold advisory locks, shared with other readers, on the files until :meth:`close`.

        They keep :func:`.hvstorage.apply_replay_log` away; reading does not need them. Nothing where there are no such
        locks. Raises SourceError (ERROR_SHARING_VIOLATION) while another process holds an exclusive lock, and after
        :meth:`close`.
        """
        self._lifetime.check()
        from .files.locks import SharedLock

        for file in self._paths[len(self._locks) :]:
            self._locks.append(SharedLock(file))

    @property
    def _paths(self) -> tuple[str, ...]:
        """The files that have paths; what was opened as an object belongs to the caller."""
        return self.files if self._origin is None else self._origin.paths_of(self.files)

    def close(self) -> None:
        """Close the files; file objects stay open. Every call that reads or translates then raises SourceError."""
        self._lifetime.end()
        self._snapshot.close()
        for lock in self._locks:
            lock.close()

    def __reduce__(self) -> tuple[object, ...]:
        """A state that was opened by path pickles to its path and options, and is opened again on the other side."""
        self._lifetime.check()
        if self._origin is None:
            raise InvalidArgumentError("this saved state was not opened from a file, so it cannot be pickled")
        return _reopen, self._origin.for_pickle()

    def __enter__(self) -> SavedState:
        """The state itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()


class Origin(NamedTuple):
    """How a state was opened: what the caller gave, paths made absolute."""

    file: FileArgument
    companion: FileArgument | None
    registers: FileArgument | GivenRegisters | None
    strict: bool

    def paths_of(self, files: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the state's files that were opened by path."""
        return tuple(
            shown for shown, given in zip(files, (self.file, self.companion), strict=False) if not _is_object(given)
        )

    def for_pickle(self) -> tuple[object, ...]:
        """The same for another process. Raises InvalidArgumentError where an object cannot go there."""
        for given, what in ((self.file, "it"), (self.companion, "its companion"), (self.registers, "its registers")):
            if _is_object(given):
                raise InvalidArgumentError(
                    f"the saved state cannot be pickled: {what} was opened from a file object, which stays in this process",
                    remedy="open it by path",
                )
        return tuple(self)


def _is_object(given: object) -> bool:
    return given is not None and not isinstance(given, (Mapping, str, bytes, os.PathLike))


def _absolute(given: Any) -> Any:
    """A path that means the same in another process, whatever folder that is in."""
    return os.path.abspath(given) if isinstance(given, (str, bytes, os.PathLike)) else given


def _reopen(file: Any, companion: Any, registers: Any, strict: bool) -> SavedState:
    opener = open  # the function below, not the built-in
    return opener(file, companion, registers=registers, strict=strict)


def open(
    path: FileArgument,
    companion: FileArgument | None = None,
    *,
    registers: FileArgument | GivenRegisters | None = None,
    strict: bool = False,
    salvage: bool = True,
) -> SavedState:
    """Open a saved state: a ``.vmrs``, one file of a ``.bin``/``.vsv`` pair, or an ELF dump of QEMU.

    Arguments: ``path``, a path or a seekable binary file object (``read(size)`` and ``seek(offset, whence)``, which
    returns the position); ``companion``, the other file of the pair unless it is next to the first under the same
    name, also a path or an object; ``registers``, for a dump of QEMU, what it does not hold: a file with QEMU's
    ``info registers -a`` or with JSON (docs/qemu.md), or {processor index: {register: value}}; what the dump holds
    itself stays. ``strict`` refuses what is otherwise continued past and listed in ``findings``. Of a ``.vmrs`` that is
    truncated or damaged beyond that, what is left is opened if any memory is (``state.salvaged``): ``salvage=False`` and
    ``strict`` refuse it.

    Raises SourceError (cannot be opened), FormatError (no saved state), PartitionStateNotFoundError,
    GuestMemoryNotFoundError, NoVirtualProcessorError, EncryptedStateError, CompanionError, CorruptFileError.
    """
    log = FindingLog(strict=strict)
    with log.attached():
        snapshot = open_snapshot(path, Inputs(companion, registers, salvage), log)
        return SavedState(snapshot, Origin(_absolute(path), _absolute(companion), _absolute(registers), strict))


def open_store(path: FileArgument, *, strict: bool = False) -> KeyTree:
    """Open one file for its keys alone: ``.vmrs``, ``.vmcx``, ``.bin`` or ``.vsv``, with or without a saved state.

    ``path`` is a path or a seekable binary file object.

    Raises SourceError, FormatError, CorruptFileError.
    """
    log = FindingLog(strict=strict)
    with log.attached():
        return open_tree(path, log)
