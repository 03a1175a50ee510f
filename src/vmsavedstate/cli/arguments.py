"""What the commands take: files, numbers as people write them, whose memory is meant, and the options they share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click
from click.core import ParameterSource

from ..datatypes import PagingMode
from ..errors import GuestMemoryError, InvalidArgumentError, NoVirtualProcessorError, VtlNotEnabledError
from ..paging import AddressSpace
from ..processor import VirtualProcessor
from ..state import SavedState
from ..state import open as open_state
from .output import Outcome, report_findings

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
        match = _NUMBER.fullmatch(value.replace("`", ""))  # WinDbg writes 0xffffffff`80100000
        unit = _UNITS.get(match[2].lower()) if match and (self._units or not match[2]) else None
        examples = "4096, 0x1000, 64KiB or 2MiB" if self._units else "12 or 0xc"
        if re.fullmatch(r"[0-9a-f`]*[a-f][0-9a-f`]*|0[0-9`]+", value.strip(), re.IGNORECASE):
            self.fail(f"{value!r} is not a number such as {examples}; a hex number has 0x in front", param, ctx)
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
ADDRESS_LIMIT = 1 << 64
PAGING_MODES = {
    "none": PagingMode.NON_PAGED,
    "32bit": PagingMode.X86_32BIT,
    "pae": PagingMode.PAE,
    "long": PagingMode.LONG,
    "armv8": PagingMode.ARMV8,
}
FILE = click.Path(readable=False, exists=False)  # whether it can be read is for the package to say, in its own words


def file_argument(function: Function) -> Function:
    """The file, without anything that only saved states have."""
    return click.argument("file", type=FILE)(function)


class Evidence(NamedTuple):
    """The saved state a command is about, and how to open it, as the options of :func:`state_arguments` say."""

    file: str
    companion: str | None
    registers: str | None
    strict: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        """The files that are read besides the state's own, so that no output replaces them."""
        return tuple(path for path in (self.file, self.companion, self.registers) if path is not None)


registers_option = click.option(
    "--registers", type=FILE, help="Registers that a QEMU dump lacks: `info registers -a`, or JSON."
)
companion_option = click.option(
    "--companion", type=FILE, help="The other file of a .bin/.vsv pair, if it is not next to the first."
)


strict_option = click.option(
    "--strict", is_flag=True, help="Refuse damage and a pending replay log instead of continuing past them."
)


def state_arguments(function: Function) -> Function:
    """The saved state and how to open it; the command gets them as ``evidence``, for :func:`opened`."""

    @functools.wraps(function)
    def command(
        *arguments: Any, file: str, companion: str | None, registers: str | None, strict: bool, **others: Any
    ) -> Any:
        return function(*arguments, evidence=Evidence(file, companion, registers, strict), **others)

    options = (
        companion_option,
        registers_option,
        strict_option,
    )
    for option in reversed(options):
        command = option(command)
    return file_argument(cast(Function, command))


class SpaceChoice(NamedTuple):
    """Whose virtual memory a command speaks of, as the options of :func:`space_arguments` say."""

    vp_id: int
    vtl: int | None
    root: int | None
    paging_mode: str | None
    given: bool  # whether any of the options was

    def require_virtual(self, virtual: bool) -> None:
        """Raise a usage error where the options are given for a command about physical memory."""
        if self.given and not virtual:
            raise click.UsageError(
                "--vp, --vtl, --root and --paging-mode are about virtual memory: give --virtual or --gva"
            )

    def processor(self, state: SavedState) -> VirtualProcessor:
        """The processor, seen from the VTL asked for. Raises InvalidArgumentError."""
        return chosen_processor(state, self.vp_id, self.vtl)

    def space(self, state: SavedState) -> AddressSpace:
        """Its virtual memory, with what is forced.

        Raises InvalidArgumentError, also for a root that is not in the saved memory, and RegisterNotAvailableError.
        """
        mode = None if self.paging_mode is None else PAGING_MODES[self.paging_mode]
        space = self.processor(state).address_space(paging_mode=mode, root=self.root)
        if self.root is not None and space.roots:
            try:
                state.memory.require(space.roots[0], 8)
            except GuestMemoryError as error:  # everything would be unmapped, and nobody would know why
                raise InvalidArgumentError(
                    f"the page-table root {space.roots[0]:#x} is not part of the saved memory", file=state.files[0],
                    remedy="`vmrs chunks` shows the map of memory, `vmrs regs` the roots of the processors",
                ) from error  # fmt: skip
        return space


def require_processors(state: SavedState) -> None:
    """Raise NoVirtualProcessorError, with the reason, where the state holds no processor."""
    if not state.processors:
        raise NoVirtualProcessorError(
            f"there is no virtual processor: {state.no_processors}", file=state.files[0],
            remedy="physical memory can be read: --gpa, `vmrs chunks`, `vmrs find`",
        )  # fmt: skip


def chosen_processor(state: SavedState, vp_id: int, vtl: int | None) -> VirtualProcessor:
    """The processor of an id, seen from a VTL if one is given. Raises InvalidArgumentError."""
    require_processors(state)
    if vp_id >= len(state.processors):
        raise InvalidArgumentError(
            f"there is no VP {vp_id}; the state has {len(state.processors)}, counted from 0", file=state.files[0]
        )
    vp = state.processors[vp_id]
    try:
        return vp if vtl is None else vp.vtl(vtl)
    except VtlNotEnabledError as error:
        raise InvalidArgumentError(error.message, file=state.files[0]) from error


def space_arguments(function: Function) -> Function:
    """The options that say whose virtual memory is meant; the command gets them as ``choice``."""

    @functools.wraps(function)
    def command(
        *arguments: Any, vp_id: int, vtl: int | None, root: int | None, paging_mode: str | None, **others: Any
    ) -> Any:
        context = click.get_current_context()
        names = ("vp_id", "vtl", "root", "paging_mode")
        given = any(context.get_parameter_source(name) != ParameterSource.DEFAULT for name in names)
        return function(*arguments, choice=SpaceChoice(vp_id, vtl, root, paging_mode, given), **others)

    options = (
        click.option(
            "--vp", "vp_id", type=VP_ID, default=0, show_default=True, help="Virtual memory of this processor."
        ),
        click.option("--vtl", type=VTL, help="Of this virtual trust level, instead of the active one."),
        click.option("--root", type=ADDRESS, help="Page tables from here, instead of CR3 (ARM64: TTBR0)."),
        click.option("--paging-mode", type=click.Choice(list(PAGING_MODES)), help="Walk tables of this mode."),
    )
    for option in reversed(options):
        command = option(command)
    return cast(Function, command)


def range_arguments(function: Function) -> Function:
    """From where to where: the command gets ``start`` and ``end`` (excluded), which is above it."""

    @functools.wraps(function)
    def command(*arguments: Any, start: int, end: int, **others: Any) -> Any:
        if start >= end:
            raise click.UsageError(f"--start {start:#x} is not below --end {end:#x}")
        return function(*arguments, start=start, end=end, **others)

    with_end = click.option("--end", type=ADDRESS, default=ADDRESS_LIMIT, help="Address to end before.")(command)
    return cast(Function, click.option("--start", type=ADDRESS, default=0, help="Address to begin at.")(with_end))


json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs (docs/cli.md describes it).")


@contextmanager
def opened(evidence: Evidence, *, quiet: bool = False) -> Iterator[SavedState]:
    """The saved state; at the end, unless ``quiet``, a word on stderr if there are findings.

    The exit code is 1 at best where it is what is left of a damaged file.
    """
    file, companion, registers, strict = evidence
    with open_state(file, companion, registers=registers, strict=strict) as state:
        if state.salvaged:
            outcome = click.get_current_context().find_object(Outcome)
            assert outcome is not None
            outcome.least = 1
        yield state
        if not quiet:
            report_findings(state.findings)
