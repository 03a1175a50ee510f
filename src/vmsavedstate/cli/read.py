"""``vmrs read``: bytes of guest physical memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..errors import GuestMemoryError
from ..memory import GuestPhysicalMemory
from .arguments import ADDRESS, SIZE, open_file, state_arguments
from .output import hex_lines, output_file

PIECE = 1 << 20


@click.command()
@state_arguments
@click.option("--gpa", type=ADDRESS, required=True, help="Guest physical address to begin at.")
@click.option("--size", type=SIZE, required=True, help="Number of bytes.")
@click.option("--hex", "as_hex", is_flag=True, help="A hex dump, also in a pipe.")
@click.option("--out", type=click.Path(), help="Write the bytes to a new file.")
@click.option("--force", is_flag=True, help="Let --out replace an existing file.")
@click.option("--fill", type=click.IntRange(0, 255), help="Byte to put where memory is missing, instead of stopping.")
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
) -> None:
    """Bytes of guest physical memory: a hex dump on a terminal, the bytes themselves in a pipe.

    Memory that the state does not hold is an error, unless --fill names a byte to stand for it.
    """
    if as_hex and out is not None:
        raise click.UsageError("--hex and --out exclude each other")
    with open_file(file, companion, strict) as state, _explaining(file):
        if fill is None:
            state.memory.require(gpa, size)  # before the first byte goes out: a pipe cannot take anything back
        pieces = _pieces(state.memory, gpa, size, fill)
        if out is not None:
            with output_file(out, evidence=state.files, force=force) as stream:
                for _, data in pieces:
                    stream.write(data)
        elif as_hex or sys.stdout.isatty():
            width = max(8, len(f"{gpa + size:x}"))
            for at, data in pieces:
                for line in hex_lines(data, at, width):
                    click.echo(line)
        else:
            for _, data in pieces:
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


@contextmanager
def _explaining(file: str) -> Iterator[None]:
    """Missing memory is told with the file and in the words of this command."""
    try:
        yield
    except GuestMemoryError as error:
        error.file = error.file or file
        error.remedy = "`vmrs chunks` shows what is saved; --fill 0 reads on with a byte of your choice instead"
        raise


def _pieces(memory: GuestPhysicalMemory, gpa: int, size: int, fill: int | None) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of the range, about 1 MiB at a time: cut where blocks begin, but not inside a line of a dump."""
    end = gpa + size
    while gpa < end:
        piece = min(end - gpa, -(-(PIECE - gpa % PIECE) // 16) * 16)
        yield gpa, memory.read(gpa, piece, fill=fill)
        gpa += piece
