"""``vmrs convert``: a ``.vmrs`` from a dump of QEMU or any other saved state."""

from __future__ import annotations

import click

from ..export import Conversion, RegisterChange, write_vmrs
from ..sizes import human_size
from .app import DONE, INPUT_AT_FAULT
from .arguments import BYTE, Evidence, opened, state_arguments
from .output import progress_bar


@click.command()
@state_arguments
@click.argument("out", type=click.Path())
@click.option("--compress", is_flag=True, help="Store memory compressed.")
@click.option("--fill", type=BYTE, help="Byte to put where memory cannot be read, instead of stopping.")
def command(evidence: Evidence, out: str, compress: bool, fill: int | None) -> int:
    """Write a Hyper-V saved state (.vmrs) from a dump of QEMU or KVM, or from any other saved state.

    The file is meant for Hyper-V's tools as well; OUT must not exist. Registers that the source does not hold, and that
    share a group with others, are written as zero; stderr lists them. Exit code 1 if memory had to be filled.
    """
    with opened(evidence) as state, progress_bar("memory", lambda: state.memory.size) as progress:
        done = write_vmrs(state, out, compress=compress, fill=fill, progress=progress)
    _report(done)
    return INPUT_AT_FAULT if done.filled else DONE


def _report(done: Conversion) -> None:
    """What is not as it was, on stderr."""
    supplied = [change for change in done.changes if change.source is None]
    lost = dict.fromkeys(change.name for change in done.changes if change.written is None)
    zero = dict.fromkeys(change.name for change in supplied if not _is_set(change))
    if zero:
        click.echo(f"vmrs: not in the source, written as zero: {', '.join(zero)}", err=True)
    for change in supplied:
        if _is_set(change):
            value = hex(change.written) if isinstance(change.written, int) else change.written
            click.echo(f"vmrs: VP {change.vp_id}: {change.name} is not in the source, written as {value}", err=True)
    if done.vendor_assumed:
        click.echo("vmrs: the vendor of the processor is not in the source, written as Intel", err=True)
    if lost or done.left_behind:
        click.echo(f"vmrs: not taken over: {', '.join([*lost, *done.left_behind])}", err=True)
    if done.filled:
        click.echo(f"vmrs: {human_size(done.filled)} of memory could not be read and were filled", err=True)


def _is_set(change: RegisterChange) -> bool:
    value = change.written
    return bool(value) if isinstance(value, int) else any(map(bool, value or ()))
