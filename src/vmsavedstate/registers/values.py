"""The shapes of register values that are more than one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class SegmentRegister(NamedTuple):
    """An x86 segment register with its hidden part; ``base`` and ``limit`` in bytes, ``attributes`` 16 bits:

    0-3 type, 4 non-system, 5-6 DPL, 7 present, 8-11 reserved, 12 available, 13 long, 14 default, 15 granularity.
    """

    base: int
    limit: int
    selector: int
    attributes: int


class TableRegister(NamedTuple):
    """GDTR or IDTR: linear base address and limit in bytes."""

    base: int
    limit: int


class FpuState(NamedTuple):
    """The x87 and SSE control state of FXSAVE bytes 0 to 31, and the eight x87/MMX registers as 128-bit integers."""

    control: int
    status: int
    tag: int
    opcode: int
    ip: int
    dp: int
    mxcsr: int
    mxcsr_mask: int
    st: tuple[int, ...]


RegisterValue = int | SegmentRegister | TableRegister | FpuState

GivenRegisters = Mapping[int, Mapping[str, RegisterValue]]
"""Registers that a caller adds to a file that lacks them: processor index -> name -> value."""
