"""The processors of a dump: all registers that its notes hold, under the names of this package, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...findings import FindingLog
from ...registers.values import RegisterValue, SegmentRegister, TableRegister
from ...snapshot import StateChunk
from . import layout
from .headers import ElfCore, Note

CR0_PG, CR4_PAE = 1 << 31, 1 << 5
_NAMES = {
    ("CORE", layout.NT_PRSTATUS): "prstatus",
    ("CORE", layout.NT_PRFPREG): "prfpreg",
    ("QEMU", 0): "qemu_cpu_state",
    ("VMCOREINFO", 0): "vmcoreinfo",
}


class Processor(NamedTuple):
    """A processor of the dump: its number, its registers, and what the file says of EFER.LMA (x86)."""

    vp_index: int
    registers: dict[str, RegisterValue]
    long_mode: bool | None


class Processors(NamedTuple):
    """All processors, and every note as a piece of state."""

    processors: tuple[Processor, ...]
    chunks: tuple[StateChunk, ...]


def read_processors(core: ElfCore, file: str, log: FindingLog) -> Processors:
    """QEMU writes a prstatus note per processor, and in the same order its own notes (x86) or vector registers (ARM64)."""
    status = [note for note in core.notes if (note.owner, note.type) == ("CORE", layout.NT_PRSTATUS)]
    owner, kind = ("CORE", layout.NT_PRFPREG) if core.machine == layout.EM_AARCH64 else ("QEMU", 0)
    details = [note for note in core.notes if (note.owner, note.type) == (owner, kind)]
    if details and len(details) != len(status):
        log.damage(
            "elf.processor.pairs",
            file,
            details[0].offset,
            "the notes of the processors do not pair up, the second ones are left out",
            found=len(details),
            expected=str(len(status)),
        )
        details = []
    found: dict[int, Processor] = {}
    owners: dict[int, int] = {}
    highest = -1
    for number, note in enumerate(status):
        detail = details[number] if details else None
        processor = _processor(core.machine, number, note, detail, file, log)
        if processor.vp_index in found:
            log.damage(
                "elf.processor.number",
                file,
                note.offset,
                "two processors have the same number",
                found=processor.vp_index,
            )
            processor = processor._replace(vp_index=highest + 1)
        highest = max(highest, processor.vp_index)
        found[processor.vp_index] = processor
        owners.update({item.offset: processor.vp_index for item in (note, detail) if item is not None})
    chunks = tuple(_chunk(note, owners.get(note.offset)) for note in core.notes)
    return Processors(tuple(found[index] for index in sorted(found)), chunks)


def _chunk(note: Note, vp: int | None) -> StateChunk:
    return StateChunk(
        note.type, _NAMES.get((note.owner, note.type), f"unknown ({note.owner})"), note.offset, note.data, vp, 0
    )


def _processor(machine: int, number: int, status: Note, detail: Note | None, file: str, log: FindingLog) -> Processor:
    form = layout.PRSTATUS[machine]
    if len(status.data) < form.size:
        log.damage(
            "elf.processor.status-size",
            file,
            status.offset,
            "a processor status is too short, its registers are lost",
            found=len(status.data),
            expected=f"{form.size:#x}",
        )
        return Processor(number, {}, None)
    pid = int.from_bytes(status.data[form.pid_at : form.pid_at + 4], "little")
    index = pid - 1 if 0 < pid <= 4096 else number
    registers = dict(_words(form, status.data))
    if machine == layout.EM_AARCH64:
        return Processor(index, {**_stack_pointer(registers), **_vectors(detail, file, log)}, None)
    own = {} if detail is None else _cpu_note(detail, file, log)
    return Processor(index, {**registers, **own}, _long_mode(machine, own))


def _words(form: layout.Prstatus, data: bytes) -> Iterator[tuple[str, RegisterValue]]:
    for number, name in enumerate(form.names):
        at = form.registers_at + number * form.width
        if name != "-":
            yield name, int.from_bytes(data[at : at + form.width], "little")


def _stack_pointer(registers: dict[str, RegisterValue]) -> dict[str, RegisterValue]:
    """The note holds the stack pointer in use: that of EL1 or of EL0, as PSTATE (EL in bits 3-2, SP in bit 0) says."""
    named = {name: value for name, value in registers.items() if name != "sp"}
    state = registers["cpsr"]
    assert isinstance(state, int)
    if state >> 2 & 3 == 1 and state & 1:
        named["sp_el1"] = registers["sp"]
    elif not state & 1 or state >> 2 & 3 == 0:
        named["sp_el0"] = registers["sp"]
    return named


def _vectors(note: Note | None, file: str, log: FindingLog) -> dict[str, RegisterValue]:
    if note is None:
        return {}
    if len(note.data) < layout.PRFPREG_SIZE:
        log.damage(
            "elf.processor.vectors-size",
            file,
            note.offset,
            "a set of vector registers is too short, they are lost",
            found=len(note.data),
        )
        return {}
    size = layout.VECTOR_SIZE
    values: dict[str, RegisterValue] = {
        f"q{number}": int.from_bytes(note.data[number * size : (number + 1) * size], "little")
        for number in range(layout.VECTORS)
    }
    values["fpsr"], values["fpcr"] = layout.VECTOR_STATUS.unpack_from(note.data, layout.VECTORS * size)
    return values


def _cpu_note(note: Note, file: str, log: FindingLog) -> dict[str, RegisterValue]:
    """QEMU's own note: general registers, segments with their hidden parts, control registers."""
    data = note.data
    if len(data) < layout.CPU_NOTE_SIZE:
        log.damage(
            "elf.processor.note-size",
            file,
            note.offset,
            "QEMU's note of a processor is too short, its registers are lost",
            found=len(data),
        )
        return {}
    version, _ = layout.CPU_NOTE_HEADER.unpack_from(data)
    if version != layout.CPU_NOTE_VERSION:
        log.note(
            "elf.processor.note-version",
            file,
            note.offset,
            "QEMU's note of a processor has another version, it is read as version 1",
            found=version,
        )
    general = layout.CPU_NOTE_GENERAL.unpack_from(data, layout.CPU_NOTE_HEADER.size)
    values: dict[str, RegisterValue] = dict(zip(layout.CPU_NOTE_GENERAL_NAMES, general, strict=True))
    values.update(_segments(data))
    cr0, _, cr2, cr3, cr4 = layout.CPU_NOTE_CONTROL.unpack_from(data, layout.CPU_NOTE_CONTROL_AT)
    values.update(cr0=cr0, cr2=cr2, cr3=cr3, cr4=cr4)
    if len(data) >= layout.CPU_NOTE_KERNEL_GS_AT + 8:
        at = layout.CPU_NOTE_KERNEL_GS_AT
        values["kernel_gs_base"] = int.from_bytes(data[at : at + 8], "little")
    return values


def _segments(data: bytes) -> Iterator[tuple[str, RegisterValue]]:
    for number, name in enumerate(layout.CPU_NOTE_SEGMENT_NAMES):
        at = layout.CPU_NOTE_SEGMENTS_AT + number * layout.CPU_NOTE_SEGMENT.size
        selector, limit, flags, _, base = layout.CPU_NOTE_SEGMENT.unpack_from(data, at)
        if name in ("gdtr", "idtr"):
            yield name, TableRegister(base, limit)
        else:
            yield name, SegmentRegister(base, limit, selector & 0xFFFF, flags >> 8 & 0xF0FF)


def _long_mode(machine: int, registers: dict[str, RegisterValue]) -> bool | None:
    """EFER is in no note, but the file is of machine x86-64 exactly when the first processor is in long mode.

    A processor with PAE paging does what the first does: an operating system runs all of them alike.
    """
    cr0, cr4 = registers.get("cr0"), registers.get("cr4")
    if not isinstance(cr0, int) or not isinstance(cr4, int):
        return None
    return machine == layout.EM_X86_64 and bool(cr0 & CR0_PG and cr4 & CR4_PAE)


def privilege_level(registers: dict[str, RegisterValue]) -> int | None:
    """CPL, which is the DPL of SS (bits 5-6 of its attributes); None without SS."""
    ss: object = registers.get("ss")
    return ss.attributes >> 5 & 3 if isinstance(ss, SegmentRegister) else None
