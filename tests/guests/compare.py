"""Holds a saved state against the frozen machine it was written from: registers, memory, translations, enumeration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmsavedstate import (
    Access,
    AddressSpace,
    PageNotMapped,
    SavedState,
    SavedStateWriter,
    SegmentRegister,
    TableRegister,
    VirtualProcessor,
)
from vmsavedstate.datatypes import PagingMode
from vmsavedstate.registers import parse_qemu_text

from .capture import PAGE, Frozen, TlbLine
from .programs import MESSAGE, Region, key, word_size

STEP = 1 << 20
PSTATE_PAN = 1 << 22
ARM_SYSTEM = {
    "sctlr_el1": "SCTLR", "tcr_el1": "TCR_EL1", "ttbr0_el1": "TTBR0_EL1", "ttbr1_el1": "TTBR1_EL1",
    "mair_el1": "MAIR_EL1", "vbar_el1": "VBAR", "sp_el0": "SP_EL0", "sp_el1": "SP_EL1", "elr_el1": "ELR_EL1",
    "spsr_el1": "SPSR_EL1", "esr_el1": "ESR_EL1", "far_el1": "FAR_EL1", "par_el1": "PAR_EL1", "cpacr_el1": "CPACR",
    "tpidr_el0": "TPIDR_EL0", "tpidrro_el0": "TPIDRRO_EL0", "tpidr_el1": "TPIDR_EL1", "actlr_el1": "ACTLR_EL1",
    "contextidr_el1": "CONTEXTIDR_EL1", "afsr0_el1": "AFSR0_EL1", "afsr1_el1": "AFSR1_EL1", "amair_el1": "AMAIR0",
    "csselr_el1": "CSSELR", "cntkctl_el1": "CNTKCTL", "cntv_ctl_el0": "CNTV_CTL_EL0", "cntv_cval_el0": "CNTV_CVAL_EL0",
}  # fmt: skip


class Verdict(NamedTuple):
    """What was compared: QEMU's answers, lines of its list of pages, denied ones (ARM64), and what was wrong."""

    answers: int
    mapped: int
    listed: int
    denied: int
    wrong: tuple[str, ...]


def arm64_registers(gdb: Mapping[str, int]) -> dict[str, int]:
    """The stub's registers under the names of this package."""
    values = {f"x{number}": gdb[f"x{number}"] for number in range(29)}
    values |= {f"q{number}": gdb[f"v{number}"] for number in range(32)}
    values |= {"fp": gdb["x29"], "lr": gdb["x30"], "pc": gdb["pc"], "cpsr": gdb["cpsr"]}
    values |= {"fpsr": gdb["fpsr"], "fpcr": gdb["fpcr"]}
    return values | {ours: gdb[theirs] for ours, theirs in ARM_SYSTEM.items() if theirs in gdb}


def write_state(frozen: Frozen, path: Path, *, compress: bool) -> Path:
    """A ``.vmrs`` of the frozen machine, made with this package's writer."""
    arm = "TCR_EL1" in frozen.gdb[0]
    with SavedStateWriter(path, architecture="arm64" if arm else "x64", compress=compress) as writer:
        for cpu in range(frozen.processors):
            values: Any = arm64_registers(frozen.gdb[cpu]) if arm else parse_qemu_text(frozen.monitor[cpu])
            if not arm:
                values["cr8"] = frozen.gdb[cpu]["cr8"]
            writer.add_processor(cpu, values)
        for part in frozen.memory:
            writer.add_memory(part.gpa, part.size, part.read, zero_runs=part.zero_runs())
    return path


def check_registers(vp: VirtualProcessor, frozen: Frozen, cpu: int) -> int:
    """Compare every register the gdb stub tells, and the segments of the monitor; the number of comparisons."""
    gdb, registers, count = frozen.gdb[cpu], vp.registers, 0
    if vp.family == "arm64":
        for name, value in arm64_registers(gdb).items():
            assert registers[name] == value, (cpu, name)
            count += 1
        return count
    for name, value in gdb.items():
        ours = _x86_value(registers, name)
        if ours is not None:
            assert ours == value, (cpu, name, hex(ours), hex(value))
            count += 1
    rows = re.findall(r"^(ES|CS|SS|DS|FS|GS|LDT|TR) *=(\w+) (\w+) (\w+) (\w+)", frozen.monitor[cpu], re.MULTILINE)
    for name, *words in rows:
        selector, base, limit, flags = (int(word, 16) for word in words)
        segment = registers["ldtr" if name == "LDT" else name.lower()]
        assert isinstance(segment, SegmentRegister)
        assert (segment.selector, segment.base, segment.limit) == (selector, base, limit), (cpu, name)
        assert segment.attributes & 0xFF == flags >> 8 & 0xFF and segment.attributes >> 12 == flags >> 20 & 15
        count += 1
    for name, base_text, limit_text in re.findall(r"^(GDT|IDT)= *(\w+) (\w+)", frozen.monitor[cpu], re.MULTILINE):
        table = registers[f"{name.lower()}r"]
        assert table == TableRegister(int(base_text, 16), int(limit_text, 16))
        count += 1
    assert len(rows) == 8
    level = re.search(r"CPL=(\d)", frozen.monitor[cpu])
    assert level is not None and vp.cpl == int(level[1])
    return count + 1


def _x86_value(registers: Any, name: str) -> int | None:
    """Our value of a register of the stub; None for those a saved state does not hold in this shape."""
    if name in ("es", "cs", "ss", "ds", "fs", "gs"):
        return int(registers[name].selector)
    if name in ("fs_base", "gs_base"):
        return int(registers[name[:2]].base)
    if name in ("fctrl", "fstat"):
        return int(getattr(registers.fpu, {"fctrl": "control", "fstat": "status"}[name]))
    if re.fullmatch(r"st\d", name):
        return int(registers.fpu.st[int(name[2])])
    plain = {"eflags": "rflags"}.get(name, name)
    value = registers.get(plain)
    return value if isinstance(value, int) else None


def check_memory(state: SavedState, frozen: Frozen) -> int:
    """Compare all memory, byte for byte; the number of bytes."""
    done = 0
    for part in frozen.memory:
        holes = part.zero_runs()
        for offset in range(0, part.size, STEP):
            size = min(STEP, part.size - offset)
            data = state.memory.read(part.gpa + offset, size)
            if any(at <= offset and offset + size <= at + length for at, length in holes):
                assert not any(data), hex(part.gpa + offset)
            else:
                assert data == part.read(offset, size), hex(part.gpa + offset)
            done += size
    assert sum(chunk.size for chunk in state.memory.chunks) == done
    return done


def check_answers(vp: VirtualProcessor, answers: list[tuple[int, int | None]]) -> Verdict:
    """Compare translations, one by one and all at once; on ARM64 unmapped ones with our rights at the current level."""
    space = vp.address_space()
    found, there = space.translate_many(np.array([gva for gva, _ in answers], dtype=np.uint64))
    wrong: list[str] = []
    denied = 0
    for (gva, expected), at_once, known in zip(answers, found.tolist(), there.tolist(), strict=True):
        ours = translated(space, gva)
        if ours != (at_once if known else None):
            wrong.append(f"{gva:#x}: translate says {ours}, translate_many {at_once if known else None}")
        if ours == expected:
            continue
        if expected is None and vp.family == "arm64" and not _may_read(vp, space.walk(gva).access):
            denied += 1
        else:
            wrong.append(f"{gva:#x}: QEMU says {expected}, translate {ours}: {space.walk(gva)}")
    return Verdict(len(answers), sum(gpa is not None for _, gpa in answers), 0, denied, tuple(wrong))


def translated(space: AddressSpace, gva: int) -> int | None:
    """The answer of ``translate``; that of ``walk`` must be the same, and the error must carry what it promises."""
    walk = space.walk(gva)
    try:
        answer: int | None = space.translate(gva)
    except PageNotMapped as error:
        answer = None
        assert error.gva == gva and error.unmapped_size == walk.size > 0
        assert (error.level, error.entry) == (
            (walk.steps[-1].level, walk.steps[-1].entry) if walk.steps else (None, None)
        )
    assert walk.gpa == answer
    return answer


def _may_read(vp: VirtualProcessor, access: Access) -> bool:
    """Whether the processor could read such a page at its exception level."""
    state = vp.registers.cpsr
    if state >> 2 & 3 == 0:
        return bool(access & Access.USER_READ)
    pan = state & PSTATE_PAN and access & Access.USER_READ
    return bool(access & Access.KERNEL_READ) and not pan


def check_listed(vp: VirtualProcessor, lines: list[TlbLine], *, mask: int) -> Verdict:
    """Compare QEMU's list of all pages with our translation, and with our enumeration in both directions."""
    space = vp.address_space()
    if not lines:
        return Verdict(0, 0, 0, 0, ())
    addresses = np.array([line.gva for line in lines], dtype=np.uint64)
    found, there = space.translate_many(addresses)
    wrong = [
        f"info tlb {line}: translate_many {gpa if known else None}"
        for line, gpa, known in zip(lines, found.tolist(), there.tolist(), strict=True)
        if not known or gpa != line.gpa & mask
    ]
    sizes = {line.gva: space.walk(line.gva).size if "P" in line.flags else PAGE for line in lines}
    ours = sum(run.size for run in space.mappings())
    if ours != sum(sizes.values()):
        wrong.append(f"our runs have {ours:#x} bytes, those of info tlb {sum(sizes.values()):#x}")
    for run in space.mappings():
        low, high = space.translate(run.gva), space.translate(run.gva + run.size - 1)
        if (low, high) != (run.gpa, run.gpa + run.size - 1):
            wrong.append(f"{run}: translate says {low:#x} to {high:#x}")
    return Verdict(0, 0, len(lines), 0, tuple(wrong))


def pattern_errors(vp: VirtualProcessor, where: list[Region], architecture: str) -> Iterator[str]:
    """Virtual reads of a processor that runs a pattern process: every word must be its address plus the key of its tag."""
    if not where or vp.cpl not in (0, 3) or (vp.cpl == 0) != (vp.family == "arm64"):
        return
    instruction = vp.registers.pc if vp.family == "arm64" else vp.registers.rip
    found = list(vp.find(MESSAGE + b"tag=", instruction & ~0xFFFF, (instruction & ~0xFFFF) + 0x10000))
    if len(found) != 1:
        yield f"the message of the process is found {len(found)} times"
        return
    tag = int(vp.read(found[0] + len(MESSAGE) + 4, 2))
    width = word_size(architecture)
    for start, size, filled in where:
        if filled:
            words = np.frombuffer(vp.read(start, size), dtype=f"<u{width}")
            expected = np.arange(start, start + size, width, dtype=np.uint64) + np.uint64(key(architecture, tag))
            if not np.array_equal(words.astype(np.uint64), expected & np.uint64((1 << 8 * width) - 1)):
                yield f"the pattern of tag {tag} at {start:#x} is wrong"


def is_paged(vp: VirtualProcessor) -> bool:
    """Whether the processor has paging on."""
    return vp.paging_mode != PagingMode.NON_PAGED
