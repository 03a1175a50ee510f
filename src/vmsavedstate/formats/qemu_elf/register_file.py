"""The processors of a dump with the registers that a person adds, because the dump lacks them."""

from __future__ import annotations

from collections.abc import Mapping

from ...findings import FindingLog
from ...registers import parse_qemu_text as parse_processor  # the name it had in 0.1.0 development versions
from ...registers.values import RegisterValue
from .notes import Processor

__all__ = ["add_registers", "parse_processor"]


def add_registers(processor: Processor, given: Mapping[str, RegisterValue], file: str, log: FindingLog) -> Processor:
    """The processor with what it lacks; where both have a register the dump's stays, and a difference is noted."""
    for name, value in given.items():
        own = processor.registers.get(name)
        if own is not None and own != value:
            log.note(
                "elf.registers.differs",
                file,
                None,
                f"VP index {processor.vp_index}: the register {name} that was given differs, the dump's counts",
                found=_shown(value),
                expected=_shown(own),
            )
    return processor._replace(registers={**given, **processor.registers})


def _shown(value: RegisterValue) -> str:
    return hex(value) if isinstance(value, int) else repr(value)
