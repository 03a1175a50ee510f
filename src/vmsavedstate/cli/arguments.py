"""What the commands take: files, numbers in the forms people write them, and the options they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..state import SavedState
from ..state import open as open_state
from .output import tell_findings

Function = TypeVar("Function", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Parameter = click.ParamType[int]
else:
    _Parameter = click.ParamType  # not generic before click 8.3

_UNITS = {"": 1, "b": 1} | {
    unit: 1 << 10 * power for power, letter in enumerate("kmgtp", start=1) for unit in (letter, f"{letter}ib")
}
_NUMBER = re.compile(r"\s*(0x[0-9a-f_]+|[0-9_]+)\s*([a-z]*)\s*", re.IGNORECASE)


class Number(_Parameter):
    """An address, a size or another number: ``4096``, ``0x1000``, ``4KiB``, ``2M`` (all units are powers of 1024)."""

    def __init__(self, name: str, highest: int | None = None, *, units: bool = True) -> None:
        self.name = name
        self._highest = highest
        self._units = units

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number in bytes; a usage error for anything else."""
        if isinstance(value, int):
            return value
        match = _NUMBER.fullmatch(value)
        unit = _UNITS.get(match[2].lower()) if match and (self._units or not match[2]) else None
        examples = "4096, 0x1000, 64KiB or 2MiB" if self._units else "12 or 0xc"
        if match is None or unit is None:
            self.fail(f"{value!r} is not a number such as {examples}", param, ctx)
        try:
            number = int(match[1].replace("_", ""), 0 if match[1][:2] in ("0x", "0X") else 10) * unit
        except ValueError:
            self.fail(f"{value!r} is not a number such as {examples}", param, ctx)
        if self._highest is not None and number > self._highest:
            self.fail(f"{value} is more than {self._highest}", param, ctx)
        return number


ADDRESS = Number("address")
SIZE = Number("size")
BYTE = Number("byte", 255, units=False)
VP_ID = Number("id", units=False)
VTL = Number("number", 15, units=False)
FILE = click.Path(readable=False, exists=False)  # whether it can be read is for the package to say, in its own words


def file_argument(function: Function) -> Function:
    """The file, without anything that only saved states have."""
    return click.argument("file", type=FILE)(function)


def state_arguments(function: Function) -> Function:
    """The saved state and how to open it; pass them to :func:`opened`."""
    function = click.option(
        "--strict", is_flag=True, help="Refuse damage and a pending replay log instead of reading on."
    )(function)
    function = click.option(
        "--companion", type=FILE, help="The other file of a .bin/.vsv pair, where it does not lie beside the first."
    )(function)
    return file_argument(function)


json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs (docs/cli.md describes it).")


@contextmanager
def opened(file: str, companion: str | None, strict: bool, *, quiet: bool = False) -> Iterator[SavedState]:
    """The saved state the shared arguments name; at the end, unless ``quiet``, a word on stderr if there are findings."""
    with open_state(file, companion, strict=strict) as state:
        yield state
        if not quiet:
            tell_findings(state.findings)
