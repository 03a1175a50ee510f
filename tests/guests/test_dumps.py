"""Dumps that QEMU itself writes of real guests, opened directly and converted: the same machine in three forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from vmsavedstate import RegisterNotAvailableError, SavedState, SegmentRegister, TableRegister, VirtualProcessor
from vmsavedstate.export import write_vmrs

from .addresses import choose
from .capture import Frozen
from .compare import arm64_registers, check_answers, check_registers, pattern_errors
from .kinds import KINDS, Kind, start, user_regions

pytestmark = [pytest.mark.slow, pytest.mark.guest]
DUMPED = ("long", "pae", "32bit", "arm64", "real", "long-la57")
STEP = 1 << 20
Report = Callable[[str, object], None]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in DUMPED], ids=lambda kind: kind.name)
def test_a_dump(kind: Kind, tmp_path: Path, record_property: Report) -> None:
    with start(kind, tmp_path) as machine:
        frozen = Frozen(machine, kind.processors, tmp_path)
        dump = frozen.dump()
        with vmsavedstate.open(dump, strict=True) as state:
            assert state.format == "qemu-elf" and state.findings == ()
            compare_memory(state, frozen)
            for cpu, vp in enumerate(state.processors):
                compare_notes(vp, frozen, cpu)
            if kind.name == "arm64":
                refuse_translation(state)
            else:
                record_property("qemu_answers", compare_translations(kind, state, frozen))
            write_vmrs(state, tmp_path / "plain.vmrs")
        given = register_file(frozen, kind, tmp_path)
        with vmsavedstate.open(dump, registers=given, strict=True) as state:
            assert state.findings == ()
            record_property("qemu_answers", compare_translations(kind, state, frozen))
            write_vmrs(state, tmp_path / "whole.vmrs", compress=True)
        with vmsavedstate.open(tmp_path / "plain.vmrs", strict=True) as state:
            compare_memory(state, frozen)
            if kind.name != "arm64":
                compare_translations(kind, state, frozen)
        with vmsavedstate.open(tmp_path / "whole.vmrs", strict=True) as state:
            compare_memory(state, frozen)
            compare_translations(kind, state, frozen)
            for cpu, vp in enumerate(state.processors):
                check_registers(vp, without_hidden(frozen, vp), cpu)


def compare_memory(state: SavedState, frozen: Frozen) -> None:
    """All bytes of the dump or state against the machine. QEMU leaves flash memory out of dumps of ARM64."""
    held = [part for part in frozen.memory if next(iter(state.memory.runs(part.gpa, part.size))).position is not None]
    assert sum(part.size for part in held) == state.memory.size
    assert {part.gpa for part in frozen.memory if part.file == frozen.machine.ram} <= {part.gpa for part in held}
    for part in held:
        for offset in range(0, part.size, STEP):
            size = min(STEP, part.size - offset)
            assert state.memory.read(part.gpa + offset, size) == part.read(offset, size), hex(part.gpa + offset)


def compare_notes(vp: VirtualProcessor, frozen: Frozen, cpu: int) -> None:
    """Every register of the notes against the gdb stub, and none that is not in them."""
    gdb, registers = frozen.gdb[cpu], vp.registers
    if vp.family == "arm64":
        known = arm64_registers(gdb)
        for name, value in registers.items():
            expected = gdb["sp"] if name in ("sp_el0", "sp_el1") else known[name]
            assert value == expected, name
        assert set(registers) >= {"x0", "x28", "fp", "lr", "pc", "cpsr", "q0", "q31", "fpsr", "fpcr"}
        assert "ttbr0_el1" not in registers
        return
    names = {"rflags": "eflags", "kernel_gs_base": "k_gs_base"}
    for name, value in registers.items():
        if isinstance(value, SegmentRegister):
            assert gdb.get(name, value.selector) == value.selector and gdb.get(f"{name}_base", value.base) == value.base
        elif isinstance(value, int):
            assert value == gdb[names.get(name, name)], name
        else:
            assert isinstance(value, TableRegister)
    assert set(registers) >= {"rax", "r15", "rip", "rflags", "cr0", "cr3", "cr4", "cs", "tr", "gdtr", "kernel_gs_base"}
    assert not set(registers) & {"efer", "xmm0", "dr7", "cr8", "fpu"}


def refuse_translation(state: SavedState) -> None:
    """Without system registers the error names them."""
    with pytest.raises(RegisterNotAvailableError, match="sctlr_el1"):
        state.processors[0].translate(0x1000)


def compare_translations(kind: Kind, state: SavedState, frozen: Frozen) -> int:
    """QEMU's answers to some addresses; the number of them."""
    count = 0
    for cpu, vp in enumerate(state.processors):
        narrow = kind.name in ("pae", "32bit", "real")
        tlb = frozen.tlb(cpu) if vp.family == "x86" else []
        where = user_regions(kind)
        addresses = choose(vp, tlb, [], where, limit=300, narrow=narrow, seed=f"dump {cpu}")
        verdict = check_answers(vp, list(frozen.answers(cpu, addresses)))
        assert verdict.wrong == ()
        if kind.linux is not None:
            assert list(pattern_errors(vp, where, kind.linux[0])) == []
        count += verdict.answers
    return count


def register_file(frozen: Frozen, kind: Kind, work: Path) -> Any:
    """What the notes lack: the monitor's own text on x86; system registers by name on ARM64, where it shows none."""
    if kind.name == "arm64":
        return {cpu: arm64_registers(frozen.gdb[cpu]) for cpu in range(kind.processors)}
    path = work / "registers.txt"
    path.write_text(frozen.machine.monitor("info registers -a"))
    return path


def without_hidden(frozen: Frozen, vp: VirtualProcessor) -> Frozen:
    """CR8 and KERNEL_GS_BASE are in no register file of QEMU and in no group of a saved state."""
    if vp.family == "x86":
        for values in frozen.gdb:
            values.pop("cr8", None)
    return frozen
