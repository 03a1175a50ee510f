"""``vmrs verify``: check every structure of a file and decode all of its memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import click

from ..containers.keytree import KeyTree
from ..errors import CorruptFileError, PartitionStateNotFoundError, ScreenError, VmSavedStateError
from ..findings import Finding, Severity
from ..memory import MemoryGap
from ..state import SavedState, open_store
from ..state import open as open_state
from .app import DONE, INPUT_AT_FAULT
from .arguments import companion_option, file_argument, json_option, registers_option
from .output import (
    closing_with,
    findings_json,
    gaps_json,
    human_size,
    printable,
    progress_bar,
    show_findings,
    show_json,
)


@click.command()
@file_argument
@companion_option
@registers_option
@json_option
def command(file: str, companion: str | None, registers: str | None, as_json: bool) -> int:
    """Check every structure and decode all memory. Exit code 1 for damage; notes alone are not damage."""
    report = _check(file, companion, registers)
    code = DONE if report.sound else INPUT_AT_FAULT
    with closing_with(code):
        if as_json:
            show_json("verify", _as_json(report))
        else:
            _show(report)
    return code


class _Report(NamedTuple):
    """What was checked, in words, what was found, the memory that cannot be read, and what ended the check."""

    file: str
    checked: str
    findings: Sequence[Finding]
    gaps: Sequence[MemoryGap] = ()
    failure: VmSavedStateError | None = None

    @property
    def sound(self) -> bool:
        return self.failure is None and not any(item.severity is Severity.DAMAGE for item in self.findings)


def _check(file: str, companion: str | None, registers: str | None) -> _Report:
    try:
        with open_state(file, companion, registers=registers) as state:
            return _check_state(file, state)
    except PartitionStateNotFoundError:
        with open_store(file) as store:
            count, bad = _check_values(store)
            return _Report(
                file, f"{count} keys; there is no saved state in this file", _ordered([*store.findings, *bad])
            )
    except VmSavedStateError as error:
        return _Report(file, "", _ordered(cast(tuple[Finding, ...], error.findings)), failure=error)


def _check_state(file: str, state: SavedState) -> _Report:
    _check_memory(state)
    screen, notes = _screen(state)
    keys, bad = _check_values(state.store) if state.store is not None else (0, [])
    count = len(state.processors)
    counted = f"{count} processor{'s' * (count != 1)}, {human_size(state.memory.size)} of memory{screen}"
    found = _ordered([*state.findings, *bad, *notes])
    damaged = any(item.severity is Severity.DAMAGE for item in found)
    gaps = (
        [gap for chunk in state.memory.chunks for gap in state.memory.gaps(chunk.start, chunk.size)] if damaged else []
    )
    return _Report(file, f"{keys} keys, {counted}", found, gaps)


def _check_values(store: KeyTree) -> tuple[int, list[Finding]]:
    """The number of keys, and a finding for each value that cannot be read; arrays are checked by their place alone."""
    entries, bad = list(store.walk()), []
    for entry in entries:
        try:
            if entry.type == "array":
                entry.check_extent()
            else:
                _ = entry.value
        except CorruptFileError as error:
            bad.append(Finding(Severity.DAMAGE, error.file, error.offset, error.message))
    return len(entries), bad


def _ordered(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda item: (item.file or "", -1 if item.offset is None else item.offset))


def _screen(state: SavedState) -> tuple[str, list[Finding]]:
    """The screen in words; a note where it cannot be shown: an unknown layout loses no other evidence."""
    try:
        return "" if state.screen is None else ", the screen", []
    except ScreenError as error:
        return "", [Finding(Severity.NOTE, error.file, error.offset, error.message)]


def _check_memory(state: SavedState) -> None:
    """Decode everything, with a bar on a terminal."""
    with progress_bar("memory", lambda: state.memory.size) as progress:
        state.check_memory(progress)


def _show(report: _Report) -> None:
    if report.checked:
        click.echo(f"Checked {printable(report.file)}: {report.checked}")
    if report.findings or report.failure is None:
        show_findings(report.findings)
    for gap in report.gaps:
        click.secho(f"  guest memory {gap.start:#x} to {gap.end - 1:#x} cannot be read ({gap.reason})", fg="red")
    if report.failure is not None:
        click.secho(f"Cannot be read: {printable(str(report.failure))}", fg="red")


def _as_json(report: _Report) -> dict[str, Any]:
    return {
        "file": report.file,
        "sound": report.sound,
        "checked": report.checked or None,
        "error": str(report.failure) if report.failure is not None else None,
        "findings": findings_json(report.findings),
        "unreadable": gaps_json(report.gaps),
    }
