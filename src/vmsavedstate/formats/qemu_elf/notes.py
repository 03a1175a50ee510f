"""The processors of a dump: all registers that its notes hold, under the names of this package, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...findings import FindingLog
from ...registers.values import RegisterValue, SegmentRegister, TableRegister
from ...snapshot import StateChunk
from . import layout
from .headers import ElfCore, Note

_NAMES = {
    ("CORE", layout.NT_PRSTATUS): "prstatus",
    ("CORE", layout.NT_PRFPREG): "prfpreg",
    ("QEMU", 0): "qemu_cpu_state",
    ("VMCOREINFO", 0): "vmcoreinfo",
}


class Processor(NamedTuple):
    """A processor of the dump: its number, its registers, and what is known of EFER.LMA (x86; see :mod:`.long_mode`)."""

    vp_index: int
    registers: dict[str, RegisterValue]
    long_mode: bool | None


class Processors(NamedTuple):
    """All processors, and every note as a piece of state."""

    processors: tuple[Processor, ...]
    chunks: tuple[StateChunk, ...]


def read_processors(core: ElfCore, file: str, log: FindingLog) -> Processors:
    """Writers put a prstatus note per processor, and in the same order QEMU's own (x86) or vector registers (ARM64)."""
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
    indices = _indices(core.machine, status)
    found: list[Processor] = []
    owners: dict[int, int] = {}
    for number, note in enumerate(status):
        detail = details[number] if details else None
        found.append(_processor(core.machine, indices[number], note, detail, file, log))
        owners.update({item.offset: indices[number] for item in (note, detail) if item is not None})
    chunks = tuple(_chunk(note, owners.get(note.offset)) for note in core.notes)
    return Processors(tuple(sorted(found, key=lambda item: item.vp_index)), chunks)


def _indices(machine: int, status: list[Note]) -> list[int]:
    """The number of the processor of each status: writers count pr_pid from 1 (QEMU) or 0, or give the pid of a task.

    So only the whole set says which; where it is neither 1 to n nor 0 to n-1, the order of the notes counts.
    """
    at = layout.PRSTATUS[machine].pid_at
    numbers = [int.from_bytes(note.data[at : at + 4], "little") for note in status]
    for first in (1, 0):
        if set(numbers) == set(range(first, first + len(numbers))):
            return [number - first for number in numbers]
    return list(range(len(numbers)))


def _chunk(note: Note, vp: int | None) -> StateChunk:
    return StateChunk(
        note.type, _NAMES.get((note.owner, note.type), f"unknown ({note.owner})"), note.offset, note.data, vp, 0
    )


def _processor(machine: int, index: int, status: Note, detail: Note | None, file: str, log: FindingLog) -> Processor:
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
        return Processor(index, {}, None)
    registers = dict(_words(form, status.data))
    if machine == layout.EM_AARCH64:
        return Processor(index, {**_stack_pointer(registers), **_vectors(detail, file, log)}, None)
    own = {} if detail is None else _cpu_note(detail, file, log)
    return Processor(index, {**registers, **own}, None)


def _words(form: layout.Prstatus, data: bytes) -> Iterator[tuple[str, RegisterValue]]:
    for number, name in enumerate(form.names):
        at = form.registers_at + number * form.width
        if name != "-":
            yield name, int.from_bytes(data[at : at + form.width], "little")


def _stack_pointer(registers: dict[str, RegisterValue]) -> dict[str, RegisterValue]:
    """The note holds the stack pointer in use: that of EL0 or of the level, as PSTATE (EL in bits 3-2, SP in bit 0) says."""
    named = {name: value for name, value in registers.items() if name != "sp"}
    state = registers["cpsr"]
    assert isinstance(state, int)
    level = state >> 2 & 3 if state & 1 else 0
    named[f"sp_el{level}"] = registers["sp"]
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


def privilege_level(registers: dict[str, RegisterValue]) -> int | None:
    """CPL, which is the DPL of SS (bits 5-6 of its attributes); None without SS."""
    ss: object = registers.get("ss")
    return ss.attributes >> 5 & 3 if isinstance(ss, SegmentRegister) else None
