"""``vmrs regs``: the registers of the virtual processors."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

import click

from ..processor import VirtualProcessor
from ..registers.values import FpuState, SegmentRegister, TableRegister
from .arguments import VP_ID, VTL, Evidence, chosen_processor, json_option, opened, require_processors, state_arguments
from .output import show_json

COLUMNS = 4


@click.command()
@state_arguments
@click.option("--vp", "vp_id", type=VP_ID, help="Only this processor (its id, 0 to n-1).")
@click.option("--vtl", type=VTL, help="Of this virtual trust level, instead of the active one.")
@json_option
def command(evidence: Evidence, vp_id: int | None, vtl: int | None, as_json: bool) -> None:
    """Registers of the virtual processors, as the state holds them."""
    with opened(evidence) as state:
        require_processors(state)
        chosen = range(len(state.processors)) if vp_id is None else (vp_id,)
        views = [chosen_processor(state, number, vtl) for number in chosen]
        if as_json:
            show_json("regs", {"processors": [vp.to_dict() for vp in views]})
            return
        for number, vp in enumerate(views):
            if number:
                click.echo()
            _show(vp)


def _show(vp: VirtualProcessor) -> None:
    vtl = f", VTL {vp.viewed_vtl}" if vp.enabled_vtls != (0,) else ""
    click.secho(f"VP {vp.id} (index {vp.index}{vtl})", bold=True)
    registers = vp.registers
    if not registers:
        click.echo("  the state holds no registers for it")
    words = [(name, value) for name, value in registers.items() if isinstance(value, int)]
    _show_words([item for item in words if not _is_wide(item[0])], 16)
    for name, value in registers.items():
        if isinstance(value, SegmentRegister):
            click.echo(
                f"  {_name(f'{name:6}')} {value.selector:04x}  base {value.base:016x}  limit {value.limit:08x}  "
                f"attributes {value.attributes:04x}"
            )
        elif isinstance(value, TableRegister):
            click.echo(f"  {_name(f'{name:6}')}       base {value.base:016x}  limit {value.limit:08x}")
        elif isinstance(value, FpuState):
            parts = {name: part for name, part in value._asdict().items() if name != "st"}
            click.echo(f"  {_name(f'{name:6}')} " + " ".join(f"{part} {number:x}" for part, number in parts.items()))
    _show_words([item for item in words if _is_wide(item[0])], 32)
    if vp.unconfirmed:
        click.echo("  the meaning of these is not confirmed on a real state:")
        _show_words(list(vp.unconfirmed.items()), 16)


def _is_wide(name: str) -> bool:
    return name.startswith(("xmm", "fpmmx")) or (name[0] == "q" and name[1:].isdigit())


def _name(text: str) -> str:
    return click.style(text, fg="cyan")


def _columns() -> int:
    """The width of the terminal; in a pipe a fixed one, so that scripts see the same everywhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 120


def _show_words(words: Sequence[tuple[str, int]], digits: int) -> None:
    width = max((len(name) for name, _ in words), default=0)
    across = max(1, min(COLUMNS, (_columns() - 2) // (width + digits + 3)))
    for at in range(0, len(words), across):
        cells: Iterable[str] = (
            f"{_name(f'{name:{width}}')} {value:0{digits}x}" for name, value in words[at : at + across]
        )
        click.echo("  " + "  ".join(cells))
