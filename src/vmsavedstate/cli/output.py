"""How commands speak: tables on a terminal, aligned text in a pipe, JSON for programs, files in one piece."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from ..errors import ERROR_WRITE_FAULT, InvalidArgumentError, SourceError
from ..files.new_file import NewFile
from ..findings import Finding, Severity
from ..state import is_evidence

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Row = Sequence[object]
LINES_WITH_BAR = 100
MOST_ALIGNED = 10_000  # rows of a table that are looked at for the widths of its columns


def printable(text: str) -> str:
    """``text`` with everything escaped that could steer a terminal or break a line: names come out of evidence."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def show_json(kind: str, content: dict[str, Any]) -> None:
    """One JSON object; ``schema`` names its shape and version."""
    click.echo(json.dumps({"schema": f"vmrs/{kind}/1", **content}, indent=2))


def stream_json(kind: str, name: str, rows: Iterable[dict[str, Any]], last: Callable[[], dict[str, Any]]) -> None:
    """One JSON object with a list that may be long, written as it comes; ``last`` gives what stands behind the list."""
    click.echo('{\n  "schema": ' + json.dumps(f"vmrs/{kind}/1") + f',\n  "{name}": [', nl=False)
    separator = "\n"
    for row in rows:
        click.echo(f"{separator}    {json.dumps(row)}", nl=False)
        separator = ",\n"
    click.echo("\n  ]", nl=False)
    for key, value in last().items():
        click.echo(f",\n  {json.dumps(key)}: {json.dumps(value)}", nl=False)
    click.echo("\n}")


class Bar:
    """Shows how many bytes are done, where there is a bar; and prints lines, which never run into it."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress = progress
        self._task = task
        self._lines = 0

    def __call__(self, done: int) -> None:
        """So many bytes are done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done)

    def line(self, text: str) -> None:
        """A line of output. The bar makes way; after many lines it stays away, they show progress themselves."""
        if self._progress is None or not sys.stdout.isatty():
            click.echo(text)
            return
        self._progress.stop()
        click.echo(text)
        self._lines += 1
        if self._lines < LINES_WITH_BAR:
            self._progress.start()


@contextmanager
def progress_bar(label: str, total: Callable[[], int] | None) -> Iterator[Bar]:
    """A bar on stderr where that is a terminal, else one that shows nothing and does not ask for ``total``, in bytes.

    Without ``total`` the bar only moves: how much there is to do is not known when it begins.
    """
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        yield Bar(progress, progress.add_task(label, total=None if total is None else total()))


def show_fields(title: str, fields: Iterable[tuple[str, object]]) -> None:
    """A titled list of names and values."""
    rows = [(name, printable(str(value))) for name, value in fields]
    width = max((len(name) for name, _ in rows), default=0)
    click.secho(printable(title), bold=True)
    for name, value in rows:
        click.echo(f"  {click.style(f'{name:{width}}', fg='cyan')}  {value}")


def show_table(title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A titled table; numbers to the right. On a terminal with lines, in a pipe as aligned text without them."""
    found = iter(rows)
    texts = [[printable(str(cell)) for cell in row] for row in islice(found, MOST_ALIGNED)]
    right = [all(cell[:1].isdigit() or cell == "-" for cell in column) for column in zip(*texts, strict=True)]
    click.secho(title, bold=True)
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    if (
        sys.stdout.isatty()
        and len(texts) < MOST_ALIGNED
        and sum(widths) + 3 * len(widths) <= shutil.get_terminal_size().columns
    ):
        _rich_table(columns, texts, right)
        return  # else plain lines, which the terminal wraps: no number is ever cropped, and paths can be copied
    for line in [list(columns), *texts]:
        cells = (
            f"{cell:>{width}}" if number else f"{cell:{width}}"
            for cell, width, number in zip(line, widths, right or [False] * len(widths), strict=True)
        )
        click.echo(("  " + "  ".join(cells)).rstrip())
    for row in found:  # as they come, in the widths of the first: a table may have a million
        cells = (f"{printable(str(cell)):{width}}" for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(("  " + "  ".join(cells)).rstrip() + "\n")


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="cyan")
    for index, name in enumerate(columns):
        number = index < len(right) and right[index]
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(Padding(table, (0, 0, 0, 2), expand=False))


def show_findings(findings: Sequence[Finding], limit: int | None = None) -> None:
    """Every finding on a line, or the first ``limit`` and how many more there are."""
    if not findings:
        click.echo("Findings: none")
        return
    damage = sum(item.severity is Severity.DAMAGE for item in findings)
    click.secho(f"Findings: {damage} damage, {len(findings) - damage} note", bold=True)
    for item in findings[:limit]:
        color = "red" if item.severity is Severity.DAMAGE else "yellow"
        click.secho(f"  {printable(str(item))}", fg=color)
    if limit is not None and len(findings) > limit:
        click.echo(f"  and {len(findings) - limit} more: `vmrs verify` lists all")


def report_findings(findings: Sequence[Finding]) -> None:
    """A word on stderr that there is more to know, for commands that show something else."""
    if findings:
        damage = sum(item.severity is Severity.DAMAGE for item in findings)
        click.echo(f"vmrs: {damage} damage, {len(findings) - damage} note: `vmrs verify` lists them", err=True)


def output_file(path: str, *, evidence: Sequence[str], force: bool) -> NewFile:
    """A new file at ``path``: never one of the ``evidence`` files nor any other that is known, whatever ``force`` says.

    Raises SourceError.
    """
    if any(_same_file(path, other) for other in evidence) or is_evidence(path):
        raise SourceError(
            "this file is recognised as a saved state, a dump, a disk or an archive: evidence is never overwritten",
            file=path,
            remedy="choose another name",
            hresult=ERROR_WRITE_FAULT,
        )
    return NewFile(path, overwrite=force)


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def refuse_terminal() -> None:
    """Raise InvalidArgumentError where bytes would go to a terminal."""
    if sys.stdout.isatty():
        raise InvalidArgumentError("raw bytes are not written to a terminal: name a file with --out, or use a pipe")


class ReaderGoneError(BrokenPipeError):
    """The reader of the pipe went away, and the command's exit code counts nevertheless."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class Outcome:
    """How a run of the command ends at best: ``least`` is the lowest exit code that it may have."""

    least = 0


@contextmanager
def closing_with(code: int) -> Iterator[None]:
    """Output whose exit code counts even when nobody reads it to the end."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError(code) from error


def hex_lines(data: bytes, address: int, width: int) -> Iterator[str]:
    """A hex dump, 16 bytes a line; a run of equal lines is shown as one and ``*``."""
    previous, skipping = b"", False
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        if row == previous and at + 16 < len(data):
            if not skipping:
                yield "*"
            skipping = True
            continue
        previous, skipping = row, False
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{address + at:0{width}x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  |{text}|"
