"""Whether each x86 processor of a dump is in long mode: EFER is in no note, so it has to be told from the rest.

What is there decides: an EFER that was given, a code segment with the L bit, a register that only a 64-bit processor can
hold. The machine type of the file says it of the first processor, since QEMU chooses it by that. Only where none of these
speaks is it inferred from the first one, which is a finding unless that one has PAE paging, too: the processors of an
operating system are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...findings import FindingLog
from ...registers.values import RegisterValue, SegmentRegister, TableRegister
from . import layout
from .notes import Processor

CR0_PG, CR4_PAE = 1 << 31, 1 << 5
EFER_LMA = 1 << 10
SEGMENT_LONG = 1 << 13
_ADDRESSES = [
    "rip",
    "rsp",
    "rbp",
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "cr2",
    "cr3",
]  # not KERNEL_GS_BASE, an MSR: it stays 64 bits wide when the processor leaves long mode
SHOWN = 16  # processors that a finding names


def with_long_mode(processors: Sequence[Processor], machine: int, file: str, log: FindingLog) -> tuple[Processor, ...]:
    """The processors with what is known of EFER.LMA, and one finding about those of which it is only inferred."""
    first = machine == layout.EM_X86_64
    decided: list[Processor] = []
    inferred: list[int] = []
    for number, processor in enumerate(processors):
        found = _stated(processor, file, log)
        if found is None and "cr0" in processor.registers:
            found = first
            if number and not _pages_with_pae(processors[0]):
                inferred.append(processor.vp_index)
        decided.append(processor._replace(long_mode=found))
    if inferred:
        more = f" and {len(inferred) - SHOWN} more" if len(inferred) > SHOWN else ""
        log.note(
            "elf.processor.long-mode", file, None,
            f"nothing in the notes of VP index {', '.join(map(str, inferred[:SHOWN]))}{more} says whether it is in "
            f"long mode; it is taken to be {'' if first else 'not '}in long mode, as the first processor is; "
            "QEMU's `info registers -a` holds EFER, which can be given beside the dump",
        )  # fmt: skip
    return tuple(decided)


def _stated(processor: Processor, file: str, log: FindingLog) -> bool | None:
    """What the registers of a processor say themselves, None where they leave it open."""
    registers = processor.registers
    cr0, cr4, efer, cs = (registers.get(name) for name in ("cr0", "cr4", "efer", "cs"))
    wide = (isinstance(cs, SegmentRegister) and bool(cs.attributes & SEGMENT_LONG)) or any(
        value >> 32 for value in _addresses(registers)
    )
    if isinstance(efer, int):
        long_mode = bool(efer & EFER_LMA)
        if wide and not long_mode:
            log.note(
                "elf.registers.efer", file, None,
                f"VP index {processor.vp_index}: the EFER that was given says that the processor is not in long mode, its "
                "other registers say that it is; EFER counts", found=hex(efer),
            )  # fmt: skip
        return long_mode
    if not isinstance(cr0, int) or not isinstance(cr4, int):
        return None
    if not _pages_with_pae(processor):
        return False
    return True if wide else None


def _pages_with_pae(processor: Processor) -> bool:
    cr0, cr4 = processor.registers.get("cr0"), processor.registers.get("cr4")
    return isinstance(cr0, int) and isinstance(cr4, int) and bool(cr0 & CR0_PG and cr4 & CR4_PAE)


def _addresses(registers: dict[str, RegisterValue]) -> Iterator[int]:
    """The values of registers that hold addresses or are as wide as one: above 32 bits only in long mode."""
    for name in _ADDRESSES:
        value = registers.get(name)
        if isinstance(value, int):
            yield value
    for value in registers.values():
        if isinstance(value, (SegmentRegister, TableRegister)):
            yield value.base
