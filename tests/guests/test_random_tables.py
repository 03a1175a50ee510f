"""Random page tables in a stopped machine, asked of QEMU and of this package: what guests do not use."""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vmsavedstate
from vmsavedstate import SavedStateWriter, Walk

from . import tables
from .capture import Frozen
from .compare import ARM_SYSTEM, check_answers
from .kinds import ARM, X86
from .machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.guest]
MEMORY = 32 << 20
ARM_BASE = 0x40000000
PROGRAM, MAILBOX = ARM_BASE + 0x200000, ARM_BASE + 0x210000  # behind the device tree
SCTLR = 0x30D00801  # M, SPAN, and the bits that are one
ROUNDS = 4
QUESTIONS = 500
Report = Callable[[str, object], None]

# Takes TCR, TTBR0, TTBR1, MAIR and SCTLR from the mailbox, turns the MMU on, and stays there or in its exceptions.
_PROGRAM = struct.pack(
    "<16I",
    0xD2A80420,  # movz x0, #0x4021, lsl #16: the mailbox
    *(word for at, register in enumerate((0xD5182041, 0xD5182001, 0xD5182021, 0xD518A201))
      for word in (0xF9400001 | at << 10, register)),
    0xD5033FDF, 0xF9401001, 0xD5181001, 0xD5033FDF, 0x14000000, 0, 0,
)  # fmt: skip


@pytest.fixture(scope="module")
def x86(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Path]]:
    with Machine(X86, ["-cpu", "max", "-S"], machine="pc,smm=off", memory=MEMORY) as machine:
        yield machine, tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Path]]:
    work = tmp_path_factory.mktemp("tables")
    program = work / "program"
    program.write_bytes(_PROGRAM)
    loader = f"loader,file={program},addr={PROGRAM:#x},cpu-num=0,force-raw=on"
    arguments = ["-cpu", "max", "-S", "-action", "reboot=reset", "-device", loader]
    with Machine(ARM, arguments, machine="virt", memory=MEMORY) as machine:
        yield machine, work


def _put(machine: Machine, offset: int, data: bytes) -> None:
    with open(machine.ram, "r+b") as stream:
        os.pwrite(stream.fileno(), data, offset)


def is_block_too_high(walk: Walk) -> bool:
    """Whether a walk ends at a block descriptor in a level whose entries cannot be blocks.

    The architecture calls it invalid (Arm ARM D8.3), QEMU 7.2 takes it for a block; it is not asked.
    """
    last = walk.steps[-1] if walk.steps else None
    return last is not None and last.kind == "absent" and last.level < "level 3" and (last.entry or 0) & 3 == 1


def _judge(
    frozen: Frozen,
    registers: dict[str, int],
    path: Path,
    addresses: list[int],
    record_property: Report,
    architecture: str,
    tagged: bool = False,
) -> None:
    """Write a state with these registers, and compare the answers."""
    with SavedStateWriter(path, architecture=architecture, overwrite=True) as writer:
        writer.add_processor(0, registers)
        for part in frozen.memory:
            writer.add_memory(part.gpa, part.size, part.read, zero_runs=part.zero_runs())
    with vmsavedstate.open(path, strict=True) as state:
        space = state.processors[0].address_space()
        answers = list(frozen.answers(0, [gva for gva in addresses if not is_block_too_high(space.walk(gva))]))
        verdict = check_answers(state.processors[0], answers)
        assert verdict.wrong == ()
        for gva, gpa in answers[:50]:
            if gpa is not None and space.walk(gva).gpa is not None and not tagged:
                around = (gva & ~0xFFFFF, min((gva & ~0xFFFFF) + 0x100000, 1 << 64))
                assert gva in space.reverse(gpa, *around)
    assert 5 < verdict.mapped < len(answers) - 5, "enough of the addresses are mapped, and not mapped"
    record_property("qemu_answers", verdict.answers)
    record_property("qemu_denied", verdict.denied)
    record_property("qemu_tables", 1)


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("case", tables.X86_CASES, ids=lambda case: case.name)
def test_x86(x86: tuple[Machine, Path], case: tables.X86Case, round_: int, record_property: Report) -> None:
    machine, work = x86
    chance = random.Random(f"{case.name} {round_}")
    pages = [0x100000 + 4096 * number for number in range(24)]
    form = case.form

    def entry() -> int:
        return tables.x86_entry(chance, pages, 0, form.entry_size)

    content = tables.fill(chance, pages, form, entry)
    root = chance.choice(pages) + chance.randrange(0, 4096, case.root_step)
    if case.root_step < 4096:  # four pointers anywhere in a page
        first = root % 4096 // form.entry_size
        words = content[root & ~4095]
        content[root & ~4095] = (*words[:first], *(entry() | 1 for _ in range(4)), *words[first + 4 :])
    for page, words in content.items():
        _put(machine, page, tables.packed(words, form.entry_size))
    registers = {
        "cr0": tables.PE | tables.PG | tables.WP,
        "cr3": root | case.cr3_low,
        "cr4": case.cr4,
        "efer": case.efer,
    }
    for name in ("efer", "cr4", "cr3", "cr0"):
        machine.gdb.write(name, registers[name])
    seen = machine.gdb.read(0)
    assert (seen["cr3"], seen["cr4"], seen["efer"]) == (registers["cr3"], case.cr4, case.efer)
    addresses = list(tables.ask(chance, content, root, form, QUESTIONS))
    if case.form.top(0) == 0 and max(addresses) >= 1 << 32:
        limit = (1 << 32) - 1 if not case.efer & tables.LONG_MODE else (1 << 64) - 1  # QEMU cuts larger ones off
        addresses = [address & limit for address in addresses]
    frozen = Frozen(machine, 1, work)
    _judge(frozen, registers | {"cr0": seen["cr0"]}, work / "state.vmrs", addresses, record_property, "x64")
    machine.gdb.write("cr0", 0x10)  # paging off before the next case
    machine.gdb.write("efer", 0)


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("case", tables.ARM64_CASES, ids=lambda case: case.name)
def test_arm64(arm64: tuple[Machine, Path], case: tables.Arm64Case, round_: int, record_property: Report) -> None:
    machine, work = arm64
    chance = random.Random(f"{case} {round_}")
    pages = [ARM_BASE + 0x400000 + (number << case.granule) for number in range(16)]

    def entry() -> int:
        return tables.arm64_entry(chance, pages, ARM_BASE, case.granule, case.wide)

    content = tables.fill(chance, pages, case.form(False), entry)
    roots = (chance.choice(pages), chance.choice(pages))
    # The program's own fetches fault: QEMU 7.2 ends itself over a fault at level -1, so they must get beyond that.
    content[roots[0]] = (pages[0] | 3, *content[roots[0]][1:])
    for page, words in content.items():
        _put(machine, page - ARM_BASE, tables.packed(words, 8))
    asid = chance.getrandbits(16) << 48
    mailbox = struct.pack("<5Q", case.tcr, roots[0] | asid, roots[1] | asid, 0xFF, SCTLR | chance.choice((0, 1 << 19)))
    _put(machine, MAILBOX - ARM_BASE, mailbox)
    registers = _run_program(machine, case.tcr, roots[0] | asid)
    addresses = [
        address
        for upper in (False, True)
        for address in tables.ask(chance, content, roots[upper], case.form(upper), QUESTIONS // 2)
    ]
    if case.top_byte_ignored:
        addresses = [address & ~(0xFF << 56) | chance.getrandbits(8) << 56 for address in addresses]
    _judge(
        Frozen(machine, 1, work),
        registers,
        work / "state.vmrs",
        addresses,
        record_property,
        "arm64",
        case.top_byte_ignored,
    )


def _run_program(machine: Machine, tcr: int, ttbr0: int) -> dict[str, int]:
    """Reset the machine, let its program take over the registers, and stop it; the registers that matter."""
    machine.ask("stop")
    machine.ask("system_reset")
    for _ in range(20):
        machine.ask("cont")
        time.sleep(0.02)
        machine.ask("stop")
        registers = machine.gdb.read(0, {*ARM_SYSTEM.values(), "cpsr"})
        if (registers["TCR_EL1"], registers["TTBR0_EL1"]) == (tcr, ttbr0) and registers["SCTLR"] & 1:
            system = {ours: registers[theirs] for ours, theirs in ARM_SYSTEM.items() if theirs in registers}
            return system | {"cpsr": registers["cpsr"]}
    raise RuntimeError(f"the program does not take the registers over: TCR {registers['TCR_EL1']:#x} for {tcr:#x}")
