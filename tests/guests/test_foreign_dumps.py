"""Dumps of unusual machines and by unusual commands, each against QEMU's own answers: what other tools' users ran into."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import pytest

import vmsavedstate
from vmsavedstate import GuestMemoryError
from vmsavedstate.datatypes import PagingMode, VirtualProcessorArch
from vmsavedstate.export import write_vmrs

from . import tables
from .capture import Frozen
from .compare import check_answers
from .kinds import ARM, KINDS, X86, start
from .machine import Machine
from .test_random_tables import ARM_BASE, MAILBOX, MEMORY, PROGRAM, SCTLR, Report, is_block_too_high

pytestmark = [pytest.mark.slow, pytest.mark.guest]

# A boot sector: CPU 0 goes to protected mode, starts CPU 1 by INIT and SIPI, and halts once that one is in long mode, with
# 2 MiB mapped at 0. Assembled from 100 lines of GNU as; it says READY on the serial port.
LONG_BESIDE_PROTECTED = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cc70600100320c70600200330c70600308300bea27cbf0080b95000fcf3a40f0116f27c0f20c00c010f22c0ea3c7c08"
    "0066b810008ed88ed0bb0000e0fec783f0000000ff010000c7831003000000000001c7830003000000450000b900001000e2fec783100300000000"
    "0001c7830003000008460000813d000500000d60000075f4be187d000066baf803ac84c07403eeebf8f4ebfdfa31c08ed80f0116f27c66b8200000"
    "000f22e066b8001000000f22d866b9800000c00f320d00010f3066b8110000800f22c0ea37801800c70425000500000d60000049bf887766554433"
    "2211f390ebfc1f00f87c00000000000000000000ffff0000009acf00ffff00000092cf00ffff0000009aaf0052454144590a"
).ljust(510, b"\0") + b"\x55\xaa"  # fmt: skip


def test_a_64_bit_processor_beside_one_in_protected_mode(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(LONG_BESIDE_PROTECTED)
    arguments = ["-cpu", "max", "-smp", "2", "-drive", f"file={disk},format=raw,if=ide"]
    with Machine(X86, arguments, machine="pc,smm=off", memory=MEMORY) as machine:
        machine.wait_for("READY", 30)
        machine.ask("stop")
        frozen = Frozen(machine, 2, tmp_path)
        path = frozen.dump()
        truth = frozen.gdb[1]
        answers = list(frozen.answers(1, [0, 0x1234, 0x1FFFFF, 0x200000, 0x40000000]))
    assert path.read_bytes()[18] == 3, "QEMU calls it a file of machine i386"
    with vmsavedstate.open(path, strict=True) as state:
        first, second = state.processors
        assert state.findings == ()
        assert (first.paging_mode, second.paging_mode) == (PagingMode.NON_PAGED, PagingMode.LONG)
        assert second.architecture is VirtualProcessorArch.X64 and second.registers.r15 == 0x1122334455667788
        assert second.registers.rip == truth["rip"]
        for gva, gpa in answers:
            assert second.walk(gva).gpa == gpa
    efer = {1: {"efer": truth["efer"], "xmm9": 9}}
    with vmsavedstate.open(path, registers=efer, strict=True) as state:
        assert state.findings == ()
        write_vmrs(state, tmp_path / "out.vmrs")
    with vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as state:
        assert (state.processors[1].registers.efer, state.processors[1].registers.xmm9) == (truth["efer"], 9)


def test_ranges_that_begin_and_end_inside_of_pages(tmp_path: Path) -> None:
    begin, length = 0x1003, 0x12345
    kind = next(kind for kind in KINDS if kind.name == "real")
    with start(kind, tmp_path) as machine:
        path, truth = tmp_path / "part.elf", tmp_path / "truth"
        machine.ask("dump-guest-memory", paging=False, protocol=f"file:{path}", begin=begin, length=length)
        machine.ask("pmemsave", val=begin, size=length, filename=str(truth))
    with vmsavedstate.open(path, strict=True) as state:
        assert state.findings == () and state.verify().sound
        assert state.memory.read(begin, length) == truth.read_bytes()
        for outside in (begin - 1, begin + length):
            with pytest.raises(GuestMemoryError):
                state.memory.read(outside, 1)


def test_memory_that_a_dump_with_paging_has_no_header_for(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "long")
    with start(kind, tmp_path) as machine:
        path = tmp_path / "paging.elf"
        machine.ask("dump-guest-memory", paging=True, protocol=f"file:{path}")
        whole = sum(part.size for part in Frozen(machine, 1, tmp_path).memory)
    with vmsavedstate.open(path, strict=True) as state:
        held = state.memory.backing.describe()["stored_bytes"]
        (finding,) = state.findings
        assert finding.code == "elf.file.uncovered" and finding.found is not None
        uncovered = int(finding.found.split()[0], 16)
        assert held < whole and uncovered > 1 << 20
        assert abs(path.stat().st_size - held - uncovered) < 1 << 16, "the rest is headers and notes"


@pytest.mark.parametrize("option", [["-z"], ["-l"], ["-s"]], ids=lambda option: str(option[0]))
def test_compressed_dumps_are_refused_by_name(tmp_path: Path, option: list[str]) -> None:
    with Machine(X86, ["-cpu", "max", "-S"], machine="pc,smm=off", memory=MEMORY) as machine:
        answer = machine.monitor(f"dump-guest-memory {option[0]} {tmp_path / 'dump'}")
    if not (tmp_path / "dump").exists() or not (tmp_path / "dump").stat().st_size:
        pytest.skip(f"this QEMU cannot compress like that: {answer}")
    with pytest.raises(vmsavedstate.FormatError, match=r"kdump.*dump again as plain ELF .*without -z, -l, -s"):
        vmsavedstate.open(tmp_path / "dump")


EL2 = {
    "sctlr_el2": "SCTLR_EL2", "tcr_el2": "TCR_EL2", "ttbr0_el2": "TTBR0_EL2", "hcr_el2": "HCR_EL2",
    "sctlr_el1": "SCTLR", "tcr_el1": "TCR_EL1", "ttbr0_el1": "TTBR0_EL1", "ttbr1_el1": "TTBR1_EL1",
}  # fmt: skip


def test_arm64_firmware_at_el2(tmp_path: Path) -> None:
    firmware = Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd")
    if not firmware.exists():
        pytest.skip("QEMU_EFI.fd is not here (Debian: qemu-efi-aarch64)")
    arguments: list[str | Path] = ["-cpu", "max", "-bios", firmware, "-net", "none"]
    with Machine(ARM, arguments, machine="virt,virtualization=on", memory=128 << 20) as machine:
        for _ in range(60):
            machine.wait_for(None, 1)
            machine.ask("stop")
            registers = machine.gdb.read(0, {*EL2.values(), "sp", "pc", "cpsr"})
            if registers["SCTLR_EL2"] & 1 and registers["cpsr"] >> 2 & 3 == 2:
                break
            machine.ask("cont")
        frozen = Frozen(machine, 1, tmp_path)
        path = frozen.dump()
        step = 0x1111000
        asked = [
            *range(0, 1 << 31, step),
            registers["pc"],
            registers["sp"],
            *range(1 << 31, 1 << 40, step * 0x401),
            1 << 50,
        ]
        answers = list(frozen.answers(0, asked))
    system = {name: registers[theirs] for name, theirs in EL2.items()}
    with vmsavedstate.open(path) as state:
        with pytest.raises(vmsavedstate.RegisterNotAvailableError, match="sctlr_el2, tcr_el2, ttbr0_el2, hcr_el2"):
            state.processors[0].translate(registers["pc"])
        assert state.processors[0].registers.sp_el2 == registers["sp"]
    for left_out in ("sctlr_el2", "tcr_el2", "ttbr0_el2", "hcr_el2"):
        given = {name: value for name, value in system.items() if name != left_out}
        missing = pytest.raises(vmsavedstate.RegisterNotAvailableError, match=left_out)
        with vmsavedstate.open(path, registers={0: given}) as state, missing:
            state.processors[0].translate(registers["pc"])
    with vmsavedstate.open(path, registers={0: system}, strict=True) as state:
        vp = state.processors[0]
        assert (vp.paging_mode, vp.cpl, vp.registers.sp_el2) == (PagingMode.ARMV8, 2, registers["sp"])
        assert sum(gpa is not None for _, gpa in answers) > 50 and any(gpa is None for _, gpa in answers)
        wrong = [(hex(gva), gpa, vp.walk(gva).gpa) for gva, gpa in answers if vp.walk(gva).gpa != gpa]
        assert wrong == []
        assert "x" in vp.walk(registers["pc"]).access.kernel and vp.walk(registers["pc"]).access.user == "---"


# Takes HCR_EL2, TCR, TTBR0, TTBR1, MAIR and SCTLR of EL2 from the mailbox and turns the MMU on. With HCR_EL2.E2H the names
# of EL1 mean those of EL2.
def program(host: bool) -> bytes:
    move = (
        (0xD5182041, 0xD5182001, 0xD5182021, 0xD518A201) if host else (0xD51C2041, 0xD51C2001, 0xD503201F, 0xD51CA201)
    )
    loads = [word for at, register in enumerate(move, 1) for word in (0xF9400001 | at << 10, register)]
    enable = (0xD5033FDF, 0xF9400001 | 5 << 10, 0xD5181001 if host else 0xD51C1001, 0xD5033FDF, 0x14000000)
    return struct.pack("<19I", 0xD2A80420, 0xF9400001, 0xD51C1101, 0xD5033FDF, *loads, *enable, 0, 0)


def tcr_el2(case: tables.Arm64Case) -> int:
    """TCR_EL2 without VHE for the lower half of a case."""
    one, moved = case.tcr, ((32, 3, 16), (37, 1, 20), (39, 1, 21), (41, 1, 24), (59, 1, 32))
    value = one & 0xFF3F | 1 << 31 | 1 << 23  # bits that are one
    return value | sum((one >> at & (1 << width) - 1) << to for at, width, to in moved)


CASES = [case for case in tables.ARM64_CASES if case.disabled is None]
RW, E2H, TGE = 1 << 31, 1 << 34, 1 << 27


@pytest.mark.parametrize("host", [False, True], ids=["EL2", "EL2 with VHE"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_arm64_random_tables_at_el2(
    tmp_path: Path, case: tables.Arm64Case, host: bool, record_property: Report
) -> None:
    chance = random.Random(f"{case} {host}")
    code = tmp_path / "program"
    code.write_bytes(program(host))
    loader = f"loader,file={code},addr={PROGRAM:#x},cpu-num=0,force-raw=on"
    arguments = ["-cpu", "max", "-S", "-action", "reboot=reset", "-device", loader]
    pages = [ARM_BASE + 0x400000 + (number << case.granule) for number in range(16)]
    content = tables.fill(
        chance, pages, case.form(False), lambda: tables.arm64_entry(chance, pages, ARM_BASE, case.granule, case.wide)
    )
    roots = (chance.choice(pages), chance.choice(pages))
    content[roots[0]] = (pages[0] | 3, *content[roots[0]][1:])
    tcr = case.tcr if host else tcr_el2(case)
    hcr = RW | (E2H | chance.choice((0, TGE)) if host else 0)
    values = (hcr, tcr, roots[0], roots[1], 0xFF, SCTLR | chance.choice((0, 1 << 19)))
    names = {"HCR_EL2": hcr, "TCR_EL2": tcr, "TTBR0_EL2": roots[0]} | ({"TTBR1_EL2": roots[1]} if host else {})
    with Machine(ARM, arguments, machine="virt,virtualization=on", memory=MEMORY) as machine:
        with open(machine.ram, "r+b") as stream:
            for page, words in content.items():
                os.pwrite(stream.fileno(), tables.packed(words, 8), page - ARM_BASE)
            os.pwrite(stream.fileno(), struct.pack("<6Q", *values), MAILBOX - ARM_BASE)
        for _ in range(20):
            machine.ask("cont")
            time.sleep(0.05)
            machine.ask("stop")
            seen = machine.gdb.read(0, {*names, "SCTLR_EL2", "TTBR1_EL2", "cpsr"})
            if seen["SCTLR_EL2"] & 1 and all(seen[name] == value for name, value in names.items()):
                break
        else:
            raise RuntimeError(f"the program does not take the registers over: {seen} for {names}")
        asked = [
            address
            for upper in ((False, True) if host else (False,))
            for address in tables.ask(chance, content, roots[upper], case.form(upper), 250)
        ]
        if case.top_byte_ignored:
            asked = [address & ~(0xFF << 56) | chance.getrandbits(8) << 56 for address in asked]
        frozen = Frozen(machine, 1, tmp_path)
        path = frozen.dump()
        system = {name.lower(): value for name, value in seen.items() if name != "cpsr"}
        with vmsavedstate.open(path, registers={0: system}, strict=True) as state:
            vp = state.processors[0]
            assert vp.cpl == 2 and vp.paging_mode is PagingMode.ARMV8
            answers = list(frozen.answers(0, [gva for gva in asked if not is_block_too_high(vp.walk(gva))]))
            verdict = check_answers(vp, answers)
            assert verdict.wrong == () and 5 < verdict.mapped < len(answers) - 5
            record_property("qemu_answers", verdict.answers)
