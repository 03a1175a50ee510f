"""Checking a saved state as a whole: every structure, every value, all of its memory. The object behind ``vmrs verify``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .containers.keytree import KeyTree
from .errors import CorruptFileError, InvalidArgumentError, PartitionStateNotFoundError, ScreenError, VmSavedStateError
from .files.ranges import Coverage
from .findings import Finding, FindingLog, Severity
from .memory import GuestPhysicalMemory, MemoryGap
from .sizes import human_size
from .vocabulary import Reason

if TYPE_CHECKING:
    from .files.objects import FileArgument
    from .registers.values import GivenRegisters
    from .snapshot import PageBacking
    from .state import SavedState

Progress = Callable[[int], object]
LONGEST_CHECKED = 64 << 10  # bytes of a value that is decoded to see whether it can be


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        file: the file that was checked.
        keys: how many keys were checked, 0 for formats without keys.
        processors: how many processors the state holds, None where there is no saved state.
        memory_size: bytes of guest memory that were checked, None where there is no saved state.
        has_screen: whether a picture of the console was read.
        findings: all findings, by file and offset.
        unreadable: guest memory that cannot be read, ascending; guest physical addresses.
        error: what ended the check, None where it went through.
    """

    file: str
    keys: int = 0
    processors: int | None = None
    memory_size: int | None = None
    has_screen: bool = False
    findings: tuple[Finding, ...] = ()
    unreadable: tuple[MemoryGap, ...] = ()
    error: VmSavedStateError | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged or missing and nothing ended the check; notes are not damage, nor are holes."""
        whole = all(gap.reason == Reason.HOLE for gap in self.unreadable)
        return self.error is None and whole and not any(item.severity is Severity.DAMAGE for item in self.findings)

    @property
    def checked(self) -> str | None:
        """What was checked, in words; None where nothing was."""
        if self.error is not None:
            return None
        keys = _counted(self.keys, "key")
        if self.processors is None or self.memory_size is None:
            return f"{keys}; there is no saved state in this file"
        screen = ", the screen" if self.has_screen else ""
        return f"{keys}, {_counted(self.processors, 'processor')}, {human_size(self.memory_size)} of memory{screen}"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "file": self.file,
            "sound": self.sound,
            "checked": self.checked,
            "error": None if self.error is None else self.error.for_command(),
            "findings": [item.to_dict() for item in self.findings],
            "unreadable": [gap.to_dict() for gap in self.unreadable],
        }


def verify(
    path: FileArgument,
    companion: FileArgument | None = None,
    *,
    registers: FileArgument | GivenRegisters | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check a file, whether or not it can be opened and holds a saved state; arguments as for :func:`vmsavedstate.open`.

    ``progress`` is called with the bytes of memory done so far. What keeps the file from being opened is the report's
    ``error``; nothing is raised for it.
    """
    from .files.objects import shown_name
    from .state import open as open_state
    from .state import open_store

    shown = shown_name(path)
    try:
        with open_state(path, companion, registers=registers) as state:
            return state.verify(progress)
    except PartitionStateNotFoundError:
        with open_store(path) as store:
            count, bad = _check_values(store)
            return Report(shown, keys=count, findings=_ordered([*store.findings, *bad]))
    except InvalidArgumentError:  # the call is wrong, which says nothing of the file
        raise
    except VmSavedStateError as error:
        return Report(shown, findings=_ordered(cast(tuple[Finding, ...], error.findings)), error=error)


def verify_state(state: SavedState, progress: Progress | None) -> Report:
    """See :meth:`SavedState.verify`."""
    unreadable = decode_all(state.memory, state.memory.backing, progress)
    has_screen, notes = _check_screen(state)
    keys, bad = _check_values(state.store) if state.store is not None else (0, [])
    return Report(
        state.files[0],
        keys=keys,
        processors=len(state.processors),
        memory_size=state.memory.size,
        has_screen=has_screen,
        findings=_ordered([*state.findings, *bad, *notes]),
        unreadable=tuple(unreadable),
    )


def decode_all(memory: GuestPhysicalMemory, backing: PageBacking, progress: Progress | None) -> list[MemoryGap]:
    """Decode all memory once, on all cores, so that the findings speak of everything; what cannot be read."""
    done = 0
    unreadable: list[MemoryGap] = []
    for chunk in memory.chunks:
        for block in memory.blocks(chunk.start, chunk.end):
            unreadable += block.gaps
            done += block.size
            if progress is not None:
                progress(done)
    covered = Coverage()
    for item in memory.ranges:
        covered.add(item.backing_page * memory.page_size, (item.backing_page + item.page_count) * memory.page_size)
    for more in backing.check(covered):  # what is stored, and is no part of any range
        if progress is not None:
            progress(done + more)
    return unreadable


def _check_values(store: KeyTree) -> tuple[int, list[Finding]]:
    """The number of keys, and a finding for each value that cannot be read.

    Arrays and very long texts are checked by their place alone.
    """
    count, bad = 0, FindingLog()
    for entry in store.walk():
        count += 1
        try:
            if entry.type == "array" or entry.size > LONGEST_CHECKED:
                entry.check_extent()
            else:
                _ = entry.value
        except CorruptFileError as error:
            bad.loss("key.value", error.file, error.offset, error.message)
    return count, list(bad)


def _check_screen(state: SavedState) -> tuple[bool, list[Finding]]:
    """Whether there is a picture; a note where it cannot be shown: an unknown layout loses no other evidence."""
    try:
        return state.screen is not None, []
    except ScreenError as error:
        return False, [Finding(Severity.NOTE, error.file, error.offset, error.message, code="state.screen")]


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda item: (item.file or "", -1 if item.offset is None else item.offset)))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
