"""``vmrs find``: where text, bytes or a regular expression stand in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from ..errors import InvalidArgumentError
from ..memory import GuestPhysicalMemory, Pattern
from ..paging import AddressSpace
from ..state import SavedState
from .arguments import (
    ADDRESS_LIMIT,
    Evidence,
    SpaceChoice,
    json_option,
    opened,
    range_arguments,
    space_arguments,
    state_arguments,
)
from .output import hex_lines, progress_bar, stream_json

SHOWN_BYTES = 16


@click.command()
@state_arguments
@click.argument("pattern")
@click.option("--text", "kind", flag_value="text", default=True, help="PATTERN is text, in UTF-8 (the default).")
@click.option("--utf16", "kind", flag_value="utf16", help="PATTERN is text, in UTF-16 as Windows keeps it.")
@click.option("--hex", "kind", flag_value="hex", help="PATTERN is bytes in hex, with or without blanks.")
@click.option("--regex", "kind", flag_value="regex", help="PATTERN is a Python regular expression over bytes.")
@click.option("--virtual", is_flag=True, help="Search virtual memory, instead of physical.")
@space_arguments
@range_arguments
@click.option("--max", "limit", type=click.IntRange(1), help="Stop after so many.")
@json_option
def command(
    evidence: Evidence,
    pattern: str,
    kind: str,
    virtual: bool,
    choice: SpaceChoice,
    start: int,
    end: int,
    limit: int | None,
    as_json: bool,
) -> None:
    """Where text, bytes or a regular expression stand in memory, across the borders of pages and blocks.

    In a regular expression `.` stands for any byte, `(?i)` ignores case, and `\\x00` is a byte in hex. The options about a
    processor count with --virtual alone.
    """
    wanted = _pattern(pattern, kind)
    with opened(evidence) as state:
        place: GuestPhysicalMemory | AddressSpace = choice.space(state) if virtual else state.memory
        total = _total(state, place, start, end)
        with progress_bar("searched", total) as progress:
            found = islice(place.find(wanted, start, end, progress=progress), limit)
            if as_json:
                rows = ({"address": hex(at), "bytes": _preview(place, at).hex()} for at in found)
                stream_json("find", "matches", rows, lambda: _kind_json(virtual))
                return
            for at in found:
                click.echo(next(hex_lines(_preview(place, at), at, 16)))


def _kind_json(virtual: bool) -> dict[str, Any]:
    return {"memory": "virtual" if virtual else "physical"}


def _pattern(text: str, kind: str) -> Pattern:
    raw = text.encode("utf-8", "surrogateescape")
    try:
        if kind == "hex":
            return bytes.fromhex(text.removeprefix("0x"))
        if kind == "regex":
            return re.compile(raw, re.DOTALL)
    except (ValueError, re.error) as error:
        raise InvalidArgumentError(f"{text!r} is no pattern: {error}") from error
    return text.encode("utf-16-le", "surrogatepass") if kind == "utf16" else raw


def _total(state: SavedState, place: GuestPhysicalMemory | AddressSpace, start: int, end: int) -> int:
    """Bytes to search, for the bar."""
    if isinstance(place, GuestPhysicalMemory):
        ranges: Iterator[tuple[int, int]] = ((start, max(0, end - start)) for _ in range(1))
    else:
        ranges = ((run.gpa, run.size) for run in place.mappings(start, end))
    return sum(run.size for gpa, size in ranges for run in state.memory.runs(gpa, size) if run.position is not None)


def _preview(place: GuestPhysicalMemory | AddressSpace, at: int) -> bytes:
    """The first bytes of a match, and what follows as far as it can be read."""
    size = min(SHOWN_BYTES, ADDRESS_LIMIT - at)
    size = next((gap.start - at for gap in place.gaps(at, size)), size)
    return place.read(at, size)
