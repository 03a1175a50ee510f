"""The words that answers use, as enumerations that are text: equal to, formatted and JSON-encoded as their value."""

from __future__ import annotations

from enum import Enum


class TextEnum(str, Enum):
    """An enumeration whose members are text: ``Reason.HOLE == "hole"``, and prints as ``hole``."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]  # the same, but for the name of a parameter

    def __repr__(self) -> str:
        """The text in quotes, as in a tuple of plain text."""
        return repr(self.value)


class Family(TextEnum):
    """The kind of processor: x86 (16, 32 and 64 bit) or ARM64."""

    X86 = "x86"
    ARM64 = "arm64"


class Reason(TextEnum):
    """Why memory cannot be read.

    ``hole``: the state does not claim to hold it. ``missing``: claimed, but not in the file. ``damaged``: stored, and cannot
    be decoded. ``unmapped``: a virtual address that no page table maps.
    """

    HOLE = "hole"
    MISSING = "missing"
    DAMAGED = "damaged"
    UNMAPPED = "unmapped"


class StepKind(TextEnum):
    """What an entry of a page table does.

    ``table`` points to a further table, ``page`` maps memory, ``absent`` maps nothing, ``outside`` is in a table that is not
    part of the saved memory, ``too high`` names an address that the paging form cannot have.
    """

    TABLE = "table"
    PAGE = "page"
    ABSENT = "absent"
    OUTSIDE = "outside"
    TOO_HIGH = "too high"
