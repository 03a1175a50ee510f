"""``vmrs find``: finds text, bytes or a regular expression in memory."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import click

from ..errors import InvalidArgumentError
from ..memory import GuestPhysicalMemory, MemoryGap, Pattern, merged_gaps
from ..memory.protocol import Memory
from ..paging import AddressSpace
from ..sizes import human_size
from ..state import SavedState
from .app import DONE, INPUT_AT_FAULT
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
SHOWN_PATTERN = 60


@click.command()
@state_arguments
@click.argument("pattern")
@click.option("--text", "is_text", is_flag=True, help="PATTERN is text, in UTF-8 (the default).")
@click.option("--utf16", "is_utf16", is_flag=True, help="PATTERN is text, in UTF-16 as Windows keeps it.")
@click.option("--hex", "is_hex", is_flag=True, help="PATTERN is bytes in hex, with or without blanks.")
@click.option("--regex", "is_regex", is_flag=True, help="PATTERN is a Python regular expression over bytes.")
@click.option("--virtual", is_flag=True, help="Search virtual memory, instead of physical.")
@space_arguments
@range_arguments
@click.option("--max", "limit", type=click.IntRange(1), help="Stop after so many.")
@json_option
def command(
    evidence: Evidence,
    pattern: str,
    is_text: bool,
    is_utf16: bool,
    is_hex: bool,
    is_regex: bool,
    virtual: bool,
    choice: SpaceChoice,
    start: int,
    end: int,
    limit: int | None,
    as_json: bool,
) -> int:
    """Find text, bytes or a regular expression in memory, across the borders of pages and blocks.

    In a regular expression `.` stands for any byte, `(?i)` ignores case, and `\\x00` is a byte in hex. Put `--` before a
    PATTERN that begins with a dash. Exit code 1 if there is memory that could not be searched.
    """
    kinds = [
        name for name, given in (("text", is_text), ("utf16", is_utf16), ("hex", is_hex), ("regex", is_regex)) if given
    ]
    if len(kinds) > 1:
        raise click.UsageError(f"--{kinds[0]} and --{kinds[1]} exclude each other")
    choice.require_virtual(virtual)
    wanted = _pattern(pattern, kinds[0] if kinds else "text")
    unread: list[MemoryGap] = []
    with opened(evidence) as state:
        place: Memory = choice.space(state) if virtual else state.memory
        with progress_bar("searched", lambda: _total(state, place, start, end)) as bar:
            found = islice(place.find(wanted, start, end, progress=bar, unread=unread.append), limit)
            if as_json:
                rows = ({"address": hex(at), "bytes": _preview(place, at).hex()} for at in found)
                stream_json("find", "matches", rows, lambda: _last_json(virtual, unread))
            else:
                none = True
                for at in found:
                    none = False
                    bar.line(f"0x{next(hex_lines(_preview(place, at), at, 16))}")
                if none:
                    click.echo("vmrs: no match", err=True)
    return _report_unread(unread)


def _report_unread(unread: list[MemoryGap]) -> int:
    """What was not searched, in a line; the exit code."""
    if not unread:
        return DONE
    total = human_size(sum(gap.end - gap.start for gap in unread))
    first = min(unread)
    click.echo(f"vmrs: {total} could not be searched, the first at {first.start:#x} ({first.reason})", err=True)
    return INPUT_AT_FAULT


def _last_json(virtual: bool, unread: list[MemoryGap]) -> dict[str, Any]:
    gaps = merged_gaps(iter(sorted(unread)))
    return {"memory": "virtual" if virtual else "physical", "unread": [gap.to_dict() for gap in gaps]}


def _pattern(text: str, kind: str) -> Pattern:
    raw = text.encode("utf-8", "surrogateescape")
    try:
        if kind == "hex":
            digits = "".join(text.removeprefix("0x").split())
            if len(digits) % 2:
                raise ValueError("it has an odd number of digits")
            return bytes.fromhex(digits)
        if kind == "regex":
            return re.compile(raw, re.DOTALL)
    except (ValueError, re.error, RecursionError, OverflowError) as error:
        shown = text if len(text) <= SHOWN_PATTERN else f"{text[:SHOWN_PATTERN]}..."
        raise InvalidArgumentError(f"{shown!r} is not a valid pattern: {error}") from error
    return text.encode("utf-16-le", "surrogatepass") if kind == "utf16" else raw


def _total(state: SavedState, place: Memory, start: int, end: int) -> int:
    """Bytes to search, for the bar."""
    if isinstance(place, GuestPhysicalMemory):
        ranges = iter([(start, max(0, end - start))])
    else:
        assert isinstance(place, AddressSpace)
        ranges = ((run.gpa, run.size) for run in place.mappings(start, end, lost=lambda table: None))
    return sum(run.size for gpa, size in ranges for run in state.memory.runs(gpa, size) if run.position is not None)


def _preview(place: Memory, at: int) -> bytes:
    """The first bytes of a match, and what follows as far as it can be read."""
    size = min(SHOWN_BYTES, ADDRESS_LIMIT - at)
    size = next((gap.start - at for gap in place.gaps(at, size)), size)
    return place.read(at, size)
