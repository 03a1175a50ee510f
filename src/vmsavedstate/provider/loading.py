"""Loading and releasing saved states (API specification, 6.1)."""

from __future__ import annotations

from ..containers.hvstorage.apply_log import apply_replay_log
from ..errors import CompanionError, FormatError, InvalidArgumentError, NoVirtualProcessorError
from ..findings import Finding, Severity
from ..state import PathArgument, SavedState
from ..state import open as open_state
from .instance import HANDLES, Instance

BOTH = "load both with LoadSavedStateFiles"


def LoadSavedStateFile(vmrs_file: PathArgument) -> int:
    """Load a ``.vmrs`` (or a dump of QEMU, which Microsoft's provider does not know); its handle.

    Everything that keeps the file from being used is raised here: SourceError, FormatError, CorruptFileError,
    EncryptedStateError, PartitionStateNotFoundError, GuestMemoryNotFoundError, NoVirtualProcessorError.
    """
    try:
        state = open_state(vmrs_file, salvage=False)
    except CompanionError as error:  # one file of a pair
        if error.absent:
            error.remedy = BOTH
        raise
    if state.format == "bin+vsv":
        state.close()
        raise FormatError("this is one file of a .bin/.vsv pair", file=state.files[0], remedy=BOTH)
    return _loaded(state)


def LoadSavedStateFiles(bin_file: PathArgument, vsv_file: PathArgument) -> int:
    """Load a ``.bin`` and its ``.vsv``; their handle. Raises as :func:`LoadSavedStateFile`, and CompanionError."""
    try:
        state = open_state(bin_file, vsv_file, salvage=False)
    except InvalidArgumentError as error:  # a file that has no other
        error.remedy = "load it with LoadSavedStateFile"
        raise
    return _loaded(state)


def _loaded(state: SavedState) -> int:
    try:
        if not state.processors:
            raise NoVirtualProcessorError(f"there is no virtual processor: {state.no_processors}", file=state.files[0])
        state.lock()
    except BaseException:
        state.close()
        raise
    return HANDLES.add(Instance(state))


def damage(handle: int) -> list[Finding]:
    """What was found damaged so far in the files of a handle; no code of Microsoft's says so."""
    return [item for item in HANDLES.get(handle).state.findings if item.severity is Severity.DAMAGE]


def ApplyPendingSavedStateFileReplayLog(vmrs_file: PathArgument) -> None:
    """Write a pending replay log into the file; nothing where none is pending. The only function that changes a file.

    Loading applies it in memory, so nothing here needs it. Raises SourceError (ERROR_SHARING_VIOLATION while a handle has
    the file loaded), FormatError, CorruptFileError.
    """
    apply_replay_log(vmrs_file)


def ReleaseSavedStateFiles(handle: int) -> None:
    """Forget a handle. The files are closed when the last call that uses it is over. Raises InvalidArgumentError."""
    HANDLES.remove(handle).release()
