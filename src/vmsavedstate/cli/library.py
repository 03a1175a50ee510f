"""``vmrs library``: the C library that drops in for Microsoft's DLL."""

from __future__ import annotations

import click

from ..provider.library.build import build


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder for include, lib and examples.")
def command(out: str) -> None:
    """Build the C library with the interface of Microsoft's VM Saved State Dump Provider.

    DIR/include gets the headers, DIR/lib the libraries of both generations of the interface, DIR/lib/pkgconfig what
    pkg-config reads, DIR/examples two programs. Needs a C compiler, Python's headers and shared library, and cffi; CC,
    CFLAGS and LDFLAGS are used. The libraries stay tied to this Python and its packages. What is there is replaced.
    """
    if not out:
        raise click.BadParameter("name a folder", param_hint="'--out'")
    for path in build(out):
        click.echo(path)
