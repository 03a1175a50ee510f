"""``vmrs verify``: check every structure of a file and decode all of its memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import cast

import click

from ..errors import PartitionStateNotFoundError, ScreenError, VmSavedStateError
from ..findings import Finding, Severity
from ..state import SavedState, open_store
from .app import DONE, INPUT_AT_FAULT
from .arguments import FILE, file_argument, json_option, open_file
from .output import findings_json, human_size, printable, show_findings, show_json


@click.command()
@file_argument
@click.option(
    "--companion", type=FILE, help="The other file of a .bin/.vsv pair, where it does not lie beside the first."
)
@json_option
def command(file: str, companion: str | None, as_json: bool) -> int:
    """Check every structure and decode all memory. Exit code 1 for damage; notes alone are not damage."""
    try:
        checked, findings = _check(file, companion)
        failure = None
    except VmSavedStateError as error:
        checked, findings, failure = "", cast(tuple[Finding, ...], error.findings), error
    ordered = sorted(findings, key=lambda item: (item.file or "", -1 if item.offset is None else item.offset))
    sound = failure is None and not any(item.severity is Severity.DAMAGE for item in ordered)
    if as_json:
        show_json(
            "verify",
            {
                "file": file,
                "sound": sound,
                "checked": checked or None,
                "error": str(failure) if failure is not None else None,
                "findings": findings_json(ordered),
            },
        )
    else:
        _show(file, checked, ordered, failure)
    return DONE if sound else INPUT_AT_FAULT


def _check(file: str, companion: str | None) -> tuple[str, Sequence[Finding]]:
    """What was checked, in words, and the findings."""
    try:
        state = open_file(file, companion, strict=False)
    except PartitionStateNotFoundError:
        with open_store(file) as store:
            count = sum(1 for entry in store.walk() if entry.value is not None or entry.type in ("node", "array"))
            return f"{count} keys; there is no saved state in this file", store.findings
    with state:
        for _ in _with_progress(state):
            pass
        screen = "" if _screen(state) is None else ", the screen"
        counted = f"{len(state.processors)} processors, {human_size(state.memory.size)} of memory{screen}"
        keys = sum(1 for _ in state.store.walk()) if state.store is not None else 0
        return f"{keys} keys, {counted}", state.findings


def _screen(state: SavedState) -> object:
    """An unknown picture layout loses no evidence: it is no damage, and `vmrs screen` explains it."""
    try:
        return state.screen
    except ScreenError:
        return None


def _with_progress(state: SavedState) -> Iterator[int]:
    """The steps of checking the memory, with a bar on a terminal."""
    if not sys.stderr.isatty():
        yield from state.check_memory()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("memory"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("memory", total=state.storage()["blocks"] << 20)
        for done in state.check_memory():
            progress.update(task, completed=done)
            yield done


def _show(file: str, checked: str, findings: Sequence[Finding], failure: VmSavedStateError | None) -> None:
    if checked:
        click.echo(f"Checked {printable(file)}: {checked}")
    show_findings(findings)
    if failure is not None:
        click.secho(f"Cannot be read: {printable(str(failure))}", fg="red")
