"""``vmrs read``: bytes of guest physical memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from ..errors import GuestMemoryError
from ..memory import GuestPhysicalMemory, MemoryGap
from .app import DONE, INPUT_AT_FAULT
from .arguments import ADDRESS, BYTE, SIZE, opened, state_arguments
from .output import hex_lines, human_size, output_file, refuse_terminal

PIECE = 1 << 20
SHOWN_GAPS = 20


@click.command()
@state_arguments
@click.option("--gpa", type=ADDRESS, required=True, help="Guest physical address to begin at.")
@click.option("--size", type=SIZE, required=True, help="Number of bytes.")
@click.option("--hex", "as_hex", is_flag=True, help="A hex dump, also in a pipe.")
@click.option("--out", type=click.Path(), help="Write the bytes to a new file; `-` is the pipe.")
@click.option("--force", is_flag=True, help="Let --out replace an existing file.")
@click.option("--fill", type=BYTE, help="Byte to put where memory is missing or damaged, instead of stopping.")
def command(
    file: str,
    companion: str | None,
    strict: bool,
    gpa: int,
    size: int,
    as_hex: bool,
    out: str | None,
    force: bool,
    fill: int | None,
) -> int:
    """Bytes of guest physical memory: a hex dump on a terminal, the bytes themselves in a pipe.

    Memory that the state does not hold is an error, unless --fill names a byte to stand for it; then stderr tells which
    ranges were filled, and the exit code is 1 if any of them is damage and not a hole.
    """
    if as_hex and out is not None:
        raise click.UsageError("--hex and --out exclude each other")
    with opened(file, companion, strict) as state, _explaining(file, fill):
        memory = state.memory
        gaps = list(memory.gaps(gpa, size)) if fill is not None else []
        if fill is None:
            memory.require(gpa, size)  # before the first byte goes out: a pipe cannot take anything back
        _deliver(_pieces(memory, gpa, size, fill), state.files, out, force, as_hex, max(8, len(f"{gpa + size:x}")))
        return _tell_gaps(gaps)


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


def _tell_gaps(gaps: Sequence[MemoryGap]) -> int:
    """What the fill byte stands for; the exit code."""
    for gap in gaps[:SHOWN_GAPS]:
        click.echo(f"vmrs: filled {gap.start:#x} to {gap.end - 1:#x} ({gap.reason})", err=True)
    if len(gaps) > SHOWN_GAPS:
        total = sum(gap.end - gap.start for gap in gaps)
        click.echo(f"vmrs: and {len(gaps) - SHOWN_GAPS} more ranges, {human_size(total)} in all", err=True)
    return INPUT_AT_FAULT if any(gap.reason != "hole" for gap in gaps) else DONE


@contextmanager
def _explaining(file: str, fill: int | None) -> Iterator[None]:
    """Missing memory is told with the file and in the words of this command."""
    try:
        yield
    except GuestMemoryError as error:
        error.file = error.file or file
        shown = (
            "`vmrs chunks` shows what is saved" if error.reason == "hole" else "`vmrs verify` lists what cannot be read"
        )
        further = (
            "--fill 0 reads on with a byte of your choice instead" if fill is None else "--strict fills holes alone"
        )
        error.remedy = f"{shown}; {further}"
        raise


def _pieces(memory: GuestPhysicalMemory, gpa: int, size: int, fill: int | None) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of the range, about 1 MiB at a time: cut where blocks begin, but not inside a line of a dump."""
    end = gpa + size
    while gpa < end:
        piece = min(end - gpa, -(-(PIECE - gpa % PIECE) // 16) * 16)
        yield gpa, memory.read(gpa, piece, fill=fill)
        gpa += piece
