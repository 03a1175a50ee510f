"""``vmrs maps``: all that the page tables of a processor map."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..paging import LostTable, MappedRegion, MappedRun
from ..sizes import human_size
from ..vocabulary import Reason
from .app import DONE, INPUT_AT_FAULT
from .arguments import Evidence, SpaceChoice, json_option, opened, range_arguments, space_arguments, state_arguments
from .output import stream_json

SHOWN_LOST = 20
_HEADER = f"{'Virtual':37}  {'Size':>10}  KRN USR"


@click.command()
@state_arguments
@space_arguments
@range_arguments
@click.option("--merge", is_flag=True, help="Join neighbours of equal rights, wherever they are in physical memory.")
@json_option
def command(
    evidence: Evidence,
    choice: SpaceChoice,
    start: int,
    end: int,
    merge: bool,
    as_json: bool,
) -> int:
    """All that the page tables of a processor map, as maximal runs in ascending order.

    A run is a stretch of virtual addresses whose pages follow each other in physical memory and have the same rights.
    Exit code 1 if page tables are lost, so that there may be more.
    """
    lost: list[LostTable] = []
    with opened(evidence) as state:
        space = choice.space(state)
        runs: Iterator[MappedRun | MappedRegion] = (
            space.regions(start, end, lost=lost.append) if merge else space.mappings(start, end, lost=lost.append)
        )
        if as_json:
            stream_json(
                "maps",
                "runs",
                (run.to_dict() for run in runs),
                lambda: {"lost": [item.to_dict() for item in lost]},
            )
        else:
            click.secho(_HEADER.rstrip() if merge else f"{_HEADER}  {'Physical':>14}", bold=True)
            for run in runs:
                click.echo(_line(run))
            _report_lost(lost)
    return INPUT_AT_FAULT if any(item.reason != Reason.HOLE for item in lost) else DONE


def _line(run: MappedRun | MappedRegion) -> str:
    where = f"  {run.gpa:#14x}" if isinstance(run, MappedRun) else ""
    return f"{run.gva:#018x}-{run.gva + run.size - 1:#018x}  {human_size(run.size):>10}  {run.access}{where}"


def _report_lost(lost: list[LostTable]) -> None:
    for item in lost[:SHOWN_LOST]:
        why = "is outside of the saved memory" if item.reason == Reason.HOLE else f"cannot be read ({item.reason})"
        click.echo(
            f"vmrs: the page table at {item.table:#x} {why}: what it maps from {item.gva:#x} on is not shown", err=True
        )
    if len(lost) > SHOWN_LOST:
        click.echo(f"vmrs: and {len(lost) - SHOWN_LOST} more page tables", err=True)
