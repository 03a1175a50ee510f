"""``vmrs read``: bytes of guest memory, by physical or virtual address."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from ..errors import GuestMemoryError, PageNotMapped
from ..memory import MemoryGap
from ..memory.protocol import Memory
from ..sizes import human_size
from ..vocabulary import Reason
from .app import DONE, INPUT_AT_FAULT
from .arguments import ADDRESS, BYTE, SIZE, Evidence, SpaceChoice, opened, space_arguments, state_arguments
from .output import hex_lines, output_file, refuse_terminal

PIECE = 1 << 20
SHOWN_GAPS = 20


@click.command()
@state_arguments
@click.option("--gpa", type=ADDRESS, help="Guest physical address to begin at.")
@click.option("--gva", type=ADDRESS, help="Guest virtual address to begin at.")
@space_arguments
@click.option("--size", type=SIZE, required=True, help="Number of bytes.")
@click.option("--hex", "as_hex", is_flag=True, help="A hex dump, also in a pipe.")
@click.option("--out", type=click.Path(), help="Write the bytes to a new file; `-` is the pipe.")
@click.option("--force", is_flag=True, help="Let --out replace an existing file.")
@click.option("--fill", type=BYTE, help="Byte to put where memory is missing or damaged, instead of stopping.")
def command(
    evidence: Evidence,
    gpa: int | None,
    gva: int | None,
    choice: SpaceChoice,
    size: int,
    as_hex: bool,
    out: str | None,
    force: bool,
    fill: int | None,
) -> int:
    """Bytes of guest memory: a hex dump on a terminal, the bytes themselves in a pipe.

    Memory that the state does not hold, or that is not mapped, is an error, unless --fill gives a byte to put there;
    then stderr lists the ranges that were filled, and the exit code is 1 if any of them is damage.
    """
    if (gpa is None) == (gva is None):
        raise click.UsageError("give one of --gpa and --gva")
    choice.require_virtual(gva is not None)
    if as_hex and out is not None:
        raise click.UsageError("--hex and --out exclude each other")
    with opened(evidence) as state, _explaining(evidence.file, fill):
        place: Memory = state.memory if gva is None else choice.space(state)
        start = gva if gva is not None else gpa or 0
        gaps = list(place.gaps(start, size)) if fill is not None else []
        if fill is None:
            place.require(start, size)  # before the first byte goes out: a pipe cannot take anything back
        _deliver(
            _pieces(place, start, size, fill),
            (*state.files, *evidence.inputs),
            out,
            force,
            as_hex,
            max(8, len(f"{start + size:x}")),
        )
        return _report_gaps(gaps)


def _deliver(
    pieces: Iterator[tuple[int, bytes]], evidence: Sequence[str], out: str | None, force: bool, as_hex: bool, width: int
) -> None:
    """The bytes into a file, a hex dump, or the pipe."""
    if out is not None and out != "-":
        with output_file(out, evidence=evidence, force=force) as target:
            for _, data in pieces:
                target.write(data)
    elif as_hex or (out is None and sys.stdout.isatty()):
        for at, data in pieces:
            for line in hex_lines(data, at, width):
                click.echo(line)
    else:
        refuse_terminal()
        for _, data in pieces:
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _report_gaps(gaps: Sequence[MemoryGap]) -> int:
    """What the fill byte stands for; the exit code."""
    for gap in gaps[:SHOWN_GAPS]:
        click.echo(f"vmrs: filled {gap.start:#x} to {gap.end - 1:#x} ({gap.reason})", err=True)
    if len(gaps) > SHOWN_GAPS:
        total = sum(gap.end - gap.start for gap in gaps)
        click.echo(f"vmrs: and {len(gaps) - SHOWN_GAPS} more ranges, {human_size(total)} in all", err=True)
    return INPUT_AT_FAULT if any(gap.reason not in (Reason.HOLE, Reason.UNMAPPED) for gap in gaps) else DONE


@contextmanager
def _explaining(file: str, fill: int | None) -> Iterator[None]:
    """Errors about missing memory name the file and this command's options."""
    try:
        yield
    except PageNotMapped as error:
        error.file = error.file or file
        error.remedy = "`vmrs maps` shows what is mapped; --fill 0 puts a byte of your choice there instead"
        raise
    except GuestMemoryError as error:
        error.file = error.file or file
        shown = (
            "`vmrs chunks` shows what is saved"
            if error.reason == Reason.HOLE
            else "`vmrs verify` lists what cannot be read"
        )
        further = "--fill 0 puts a byte of your choice there instead" if fill is None else "--strict fills holes alone"
        error.remedy = f"{shown}; {further}"
        raise


def _pieces(place: Memory, start: int, size: int, fill: int | None) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of the range, about 1 MiB at a time: cut where blocks begin, but not inside a line of a dump."""
    end = start + size
    while start < end:
        piece = min(end - start, -(-(PIECE - start % PIECE) // 16) * 16)
        yield start, place.read(start, piece, fill=fill)
        start += piece
