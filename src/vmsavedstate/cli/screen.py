"""``vmrs screen``: the saved picture of the console, as a PNG file or drawn in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..errors import ScreenError
from .arguments import Evidence, opened, state_arguments
from .output import output_file, refuse_terminal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..screen import Screen

MAX_COLUMNS = 320
MAX_ROWS = 500  # a picture that is a hundred times as high as wide is drawn out of proportion
SAMPLES = 64  # pixels of a cell's width, or height, that are looked at
SHADES = " ░▒▓█"


@click.command()
@state_arguments
@click.option("--out", type=click.Path(), help="Write a PNG file; `-` writes it to the pipe.")
@click.option("--force", is_flag=True, help="Let --out replace an existing file.")
@click.option("--width", type=click.IntRange(1, MAX_COLUMNS), help="Columns to draw in, instead of the terminal's.")
def command(evidence: Evidence, out: str | None, force: bool, width: int | None) -> None:
    """The picture the console showed when the VM was saved: drawn here, or written as a PNG file."""
    with opened(evidence) as state:
        screen = state.screen
        if screen is None:
            raise ScreenError(
                "the state holds no picture of the console",
                file=state.files[0],
                remedy="not every VM has a video monitor, and not every writer saves its picture",
            )
        if out is None:
            columns = width or min(shutil.get_terminal_size().columns, screen.width, MAX_COLUMNS)
            for line in draw(screen, columns, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ):
                click.echo(line, color=True)
        elif out == "-":
            refuse_terminal()
            sys.stdout.buffer.write(screen.to_png())
            sys.stdout.buffer.flush()
        else:
            with output_file(out, evidence=(*state.files, *evidence.inputs), force=force) as stream:
                stream.write(screen.to_png())
            click.echo(f"{out}: {screen.width} x {screen.height} pixels", err=True)


def draw(screen: Screen, columns: int, *, colour: bool) -> Iterator[str]:
    """Lines of text: two pixels per character with half blocks in colour, one in shades without."""
    rows = min(MAX_ROWS, max(1, round(columns * screen.height / screen.width / 2)))
    if colour:
        pixels = _scaled(screen, columns, 2 * rows)
        for top, bottom in zip(pixels[0::2], pixels[1::2], strict=True):
            cells = (
                f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀"
                for a, b in zip(top.tolist(), bottom.tolist(), strict=True)
            )
            yield "".join(cells) + "\x1b[0m"
        return
    grey = _scaled(screen, columns, rows).max(axis=2).astype(int)
    steps = grey * (len(SHADES) - 1) // max(1, int(grey.max()))
    for row in steps.tolist():
        yield "".join(SHADES[step] for step in row).rstrip()


def _scaled(screen: Screen, width: int, height: int) -> npt.NDArray[np.uint8]:
    """The picture in ``height`` x ``width`` pixels: the mean of each area, brightened to keep thin text visible."""
    import numpy as np

    whole = np.frombuffer(screen.rgb, dtype=np.uint8).reshape(screen.height, screen.width, 3)
    pixels = whole[:: max(1, screen.height // (height * SAMPLES)), :: max(1, screen.width // (width * SAMPLES))]
    tops, bottoms = _edges(pixels.shape[0], height)
    lefts, rights = _edges(pixels.shape[1], width)
    mean = np.empty((height, width, 3))
    for row, (top, bottom) in enumerate(
        zip(tops, bottoms, strict=True)
    ):  # row by row: a picture may have 33 million pixels
        sums = np.zeros((pixels.shape[1] + 1, 3))
        sums[1:] = pixels[top:bottom].sum(axis=0, dtype=np.int64).cumsum(axis=0)
        mean[row] = (sums[rights] - sums[lefts]) / ((rights - lefts) * (bottom - top))[:, None]
    brightest, limit = mean.max(), pixels.max()
    if brightest > 0:
        mean *= limit / brightest
    scaled: npt.NDArray[np.uint8] = mean.round().astype(np.uint8)
    return scaled


def _edges(size: int, parts: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last pixel (excluded) of each of ``parts`` areas, at least one pixel each."""
    import numpy as np

    starts = np.arange(parts, dtype=np.int64) * size // parts
    ends = np.maximum(starts + 1, (np.arange(parts, dtype=np.int64) + 1) * size // parts)
    return starts, ends
