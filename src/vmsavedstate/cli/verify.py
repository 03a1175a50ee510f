"""``vmrs verify``: check every structure of a file and decode all of its memory."""

from __future__ import annotations

import click

from ..verification import Report
from ..verification import verify as check
from .app import DONE, INPUT_AT_FAULT
from .arguments import companion_option, file_argument, json_option, registers_option
from .output import closing_with, printable, progress_bar, show_findings, show_json

SHOWN_GAPS = 1000


@click.command()
@file_argument
@companion_option
@registers_option
@json_option
def command(file: str, companion: str | None, registers: str | None, as_json: bool) -> int:
    """Check every structure and decode all memory. Exit code 1 for damage; notes alone are not damage."""
    with progress_bar("memory", None) as progress:
        report = check(file, companion, registers=registers, progress=progress)
    code = DONE if report.sound else INPUT_AT_FAULT
    with closing_with(code):
        if as_json:
            show_json("verify", report.to_dict())
        else:
            _show(report)
    return code


def _show(report: Report) -> None:
    if report.checked:
        click.echo(f"Checked {printable(report.file)}: {report.checked}")
    if report.findings or report.error is None:
        show_findings(report.findings)
    for gap in report.unreadable[:SHOWN_GAPS]:
        click.secho(f"  guest memory {gap.start:#x} to {gap.end - 1:#x} cannot be read ({gap.reason})", fg="red")
    if len(report.unreadable) > SHOWN_GAPS:
        click.echo(f"  and {len(report.unreadable) - SHOWN_GAPS:,} more ranges: --json lists all")
    if report.error is not None:
        click.secho(f"Cannot be read: {printable(report.error.for_command())}", fg="red")
