"""``vmrs translate``: where virtual addresses are, and on request every step on the way."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..errors import GuestMemoryError
from ..paging import Access, AddressSpace, Walk, WalkStep
from ..sizes import human_size
from ..state import SavedState
from .app import DONE, INPUT_AT_FAULT
from .arguments import ADDRESS, Evidence, SpaceChoice, json_option, opened, space_arguments, state_arguments
from .output import show_json, show_table


@click.command()
@state_arguments
@click.argument("addresses", metavar="GVA...", type=ADDRESS, nargs=-1, required=True)
@space_arguments
@click.option("--walk", "with_steps", is_flag=True, help="Show every page-table entry on the way.")
@json_option
def command(
    evidence: Evidence,
    addresses: Sequence[int],
    choice: SpaceChoice,
    with_steps: bool,
    as_json: bool,
) -> int:
    """Where virtual addresses are in guest physical memory. Exit code 1 if one of them is not mapped.

    Access rights are shown, and never make an address unmapped.
    """
    with opened(evidence) as state:
        space = choice.space(state)
        walks = [_walk(space, address) for address in addresses]
        if as_json:
            show_json(
                "translate", {"translations": [{**walk.to_dict(), "saved": _is_saved(walk, state)} for walk in walks]}
            )
        elif with_steps:
            for number, walk in enumerate(walks):
                if number:
                    click.echo()
                _show_steps(walk, state)
        else:
            rows = [(hex(walk.gva), *_cells(walk, state)) for walk in walks]
            show_table(f"VP {choice.vp_id}: {space}", ("GVA", "GPA", "Page", "Kernel", "User"), rows)
            _show_reasons(walks)
        return DONE if all(walk.gpa is not None for walk in walks) else INPUT_AT_FAULT


def _walk(space: AddressSpace, gva: int) -> Walk:
    """The walk; where a page table is lost, what was read of it, and why the rest is unknown."""
    try:
        return space.walk(gva)
    except GuestMemoryError as error:
        steps = tuple(step for step in error.steps if isinstance(step, WalkStep))
        return Walk(gva, None, Access(0), 0, steps, f"not known: {error.message}")


def _cells(walk: Walk, state: SavedState) -> tuple[str, ...]:
    if walk.gpa is None:
        return "not mapped" if walk.size else "not known", "-", "---", "---"
    outside = "" if _is_saved(walk, state) else " (not saved)"
    return f"{walk.gpa:#x}{outside}", human_size(walk.size), walk.access.kernel, walk.access.user


def _is_saved(walk: Walk, state: SavedState) -> bool:
    """Whether the physical address is part of the saved memory; devices are not."""
    return walk.gpa is not None and all(run.position is not None for run in state.memory.runs(walk.gpa, 1))


def _show_reasons(walks: Sequence[Walk]) -> None:
    for walk in walks:
        if walk.reason is not None:
            click.echo(f"  {walk.gva:#x} is {_why(walk)}")


def _why(walk: Walk) -> str:
    if not walk.size:  # a page table is lost
        return str(walk.reason)
    return f"not mapped: {walk.reason}; {walk.size:#x} bytes from there on are not"


def _show_steps(walk: Walk, state: SavedState) -> None:
    click.secho(f"{walk.gva:#x}", bold=True)
    width = max((len(step.level) for step in walk.steps), default=0)
    digits = max((len(_shown(step)) for step in walk.steps), default=0)
    for step in walk.steps:
        entry = f"{_shown(step):>{digits}}  {' '.join(step.flags)}".rstrip()
        click.echo(
            f"  {step.level:{width}}  {step.number:4} of table {step.table:#x}, at {step.entry_address:#x}: {entry}"
        )
        shown = step.kind if step.target is None else f"{step.kind} {step.target:#x}, {step.access}"
        reserved = f"; reserved bits set: {step.reserved:#x}" if step.reserved else ""
        click.echo(f"  {'':{width}}  -> {shown}{reserved}")
    if walk.gpa is None:
        click.echo(f"  {_why(walk)}")
    else:
        outside = "" if _is_saved(walk, state) else ", which is not part of the saved memory"
        where = f"in a page of {human_size(walk.size)}" if walk.steps else "without paging"
        click.echo(f"  = {walk.gpa:#x} {where}, kernel {walk.access.kernel}, user {walk.access.user}{outside}")


def _shown(step: WalkStep) -> str:
    return "-" if step.entry is None else f"{step.entry:#x}"
