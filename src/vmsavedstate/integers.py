"""Integers as callers give them: anything with ``__index__`` except ``bool``, made ``int`` once, at the public entry."""

from __future__ import annotations

import operator

from .errors import InvalidArgumentError

_BOOLS = {"bool", "bool_"}  # Python's, and numpy's by either name: its old versions take theirs for an index


def as_int(value: object, what: str) -> int:
    """``value`` as a plain int; ``what`` names it in the error. Raises InvalidArgumentError for all else, bool too."""
    if type(value) is int:
        return value
    if type(value).__name__ not in _BOOLS:
        try:
            return operator.index(value)  # type: ignore[arg-type]  # that is what is being found out
        except TypeError:
            pass
    raise InvalidArgumentError(f"{what} is an integer, not {value!r}")


def as_optional_int(value: object, what: str) -> int | None:
    """The same, with None for None."""
    return None if value is None else as_int(value, what)


def as_int_in(value: object, what: str, low: int, high: int) -> int:
    """The same from ``low`` to ``high`` (included)."""
    number = as_int(value, what)
    if not low <= number <= high:
        raise InvalidArgumentError(f"{what} {number:#x} is not between {low:#x} and {high:#x}")
    return number
