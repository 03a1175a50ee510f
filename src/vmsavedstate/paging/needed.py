"""The registers that a translation needs, or the error that names those that are missing."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import RegisterNotAvailableError
from ..registers.values import RegisterValue
from ..remedies import GIVE_REGISTERS, GIVE_REGISTERS_OR_FORCE

Registers = Mapping[str, RegisterValue]


def needed(registers: Registers, names: tuple[str, ...], owner: str) -> list[int]:
    """The values of registers. Raises RegisterNotAvailableError, which names all that are missing."""
    values = [registers.get(name) for name in names]
    found = [value for value in values if isinstance(value, int)]
    if len(found) != len(names):
        raise missing(registers, names, owner)
    return found


def missing(registers: Registers, names: tuple[str, ...], owner: str) -> RegisterNotAvailableError:
    """The error for those of ``names`` that are not there."""
    absent = [name for name in names if not isinstance(registers.get(name), int)]
    remedy = GIVE_REGISTERS if any("_el" in name for name in absent) else GIVE_REGISTERS_OR_FORCE
    return RegisterNotAvailableError(
        f"translation needs {', '.join(absent)} of {owner}, which the saved state does not hold", remedy=remedy
    )
