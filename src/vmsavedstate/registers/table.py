"""The one table of all registers: name, type and width of each, by processor family.

The names stand in :mod:`.names`, where editors and type checkers find them; this table is what programs read.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple, get_type_hints

from .names import Arm64HighRegisterNames, Arm64RegisterNames, X86RegisterNames

_VECTOR = re.compile(r"(xmm|fpmmx|q)\d+")


class Register(NamedTuple):
    """A register: ``type`` is int, SegmentRegister, TableRegister or FpuState; ``bits`` is the width of an integer."""

    name: str
    type: type
    bits: int


@cache
def registers_of(family: str) -> dict[str, Register]:
    """The registers of a family (``"x86"`` or ``"arm64"``) by name, in the order in which people expect them."""
    classes = (Arm64RegisterNames, Arm64HighRegisterNames) if family == "arm64" else (X86RegisterNames,)
    return {
        name: Register(name, kind, 128 if _VECTOR.fullmatch(name) else 64)
        for names in classes
        for name, kind in get_type_hints(names).items()
    }
