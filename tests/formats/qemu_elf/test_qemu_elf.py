"""ELF dumps of QEMU: memory, notes, what they lack and how it is given, and every way they can be broken."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.elf import (
    AARCH64,
    I386,
    X86_64,
    Segment,
    cpu_state,
    elf,
    note,
    prstatus_aarch64,
    prstatus_i386,
    prstatus_x86_64,
    vectors,
)
from support.tables import table
from vmsavedstate import (
    CorruptFileError,
    FormatError,
    FpuState,
    GuestMemoryError,
    GuestMemoryNotFoundError,
    InvalidArgumentError,
    NoVirtualProcessorError,
    RegisterNotAvailableError,
    SavedState,
    SegmentRegister,
    Severity,
    TableRegister,
    VtlNotEnabledError,
)
from vmsavedstate.memory import merged_gaps
from vmsavedstate.registers import parse_qemu_monitor

MEMORY = bytes(0x1000) + table({0: 0x2003}) + table({0: 0x83 | 1 << 63}) + b"tail".ljust(4096, b".")
HIGH = Segment(0x100000000, b"high".ljust(8192, b"h"))
TWO_CPUS = prstatus_x86_64(0) + prstatus_x86_64(1, rax=8) + cpu_state() + cpu_state(rax=8)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def dump(path: Path, notes: bytes = TWO_CPUS, machine: int = X86_64, /, **options: Any) -> Path:
    return write(path, elf(machine, notes, [Segment(0, MEMORY), HIGH], **options))


@pytest.mark.parametrize("options", [{}, {"wide": True, "many": True}])
def test_a_dump(tmp_path: Path, options: dict[str, bool]) -> None:
    with vmsavedstate.open(dump(tmp_path / "x", **options), strict=True) as state:
        assert (state.format, state.vm_version, state.store, state.screen) == ("qemu-elf", None, None, None)
        assert [(item.start, item.size) for item in state.memory.chunks] == [(0, 0x4000), (0x100000000, 0x2000)]
        assert state.memory.read(0x3000, 4) == b"tail" and state.memory.read(0x100000FFF, 3) == b"hhh"
        assert state.memory.read_raw(0, state.memory.size) == MEMORY + HIGH.data
        first, second = state.processors
        assert (first.index, second.index, second.registers.rax, first.cpl) == (0, 1, 8, 0)
        registers = first.registers
        assert (registers.rip, registers.cr3, registers.cr2, registers.kernel_gs_base) == (
            0x1234, 0x1000, 0xDEAD000, 0xFFFF800000001000,
        )  # fmt: skip
        assert registers.cs == SegmentRegister(0, 0xFFFFFFFF, 8, 0xA09B)
        assert registers.gdtr == TableRegister(0xFFFF0000, 0x7F)
        assert "efer" not in registers and "xmm0" not in registers
        assert (first.architecture.name, first.paging_levels) == ("X64", 4)
        assert [chunk.name for chunk in state.chunks] == ["prstatus", "prstatus", "qemu_cpu_state", "qemu_cpu_state"]
        assert [chunk.vp for chunk in state.chunks] == [0, 1, 0, 1]
        state.check_memory()
        assert state.findings == ()
        with pytest.raises(RegisterNotAvailableError):
            state.guest_os()
        with pytest.raises(VtlNotEnabledError):
            state.guest_os(1)


def test_translation_without_efer(tmp_path: Path) -> None:
    """Long mode follows from the machine type; without EFER bit 63 is taken at its word."""
    memory = table({0: 0x1003}) + table({0: 0x2003}) + table({0: 0x83 | 1 << 63})
    with vmsavedstate.open(
        write(tmp_path / "x", elf(X86_64, prstatus_x86_64(0) + cpu_state(cr3=0), [Segment(0, memory)]))
    ) as state:
        vp = state.processors[0]
        assert vp.translate(0x1FFFFF) == 0x1FFFFF
        assert str(vp.walk(0).access) == "rw- ---"


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize(("cr4", "levels"), [(0x20, 3), (0x10, 2)])
def test_32_bit_guests(tmp_path: Path, wide: bool, cr4: int, levels: int) -> None:
    notes = prstatus_i386(0, eip=0xC0001234) + cpu_state(rip=0xC0001234, cr4=cr4, long_code=False)
    path = write(tmp_path / "x", elf(I386, notes, [Segment(0, MEMORY)], wide=wide))
    with vmsavedstate.open(path, strict=True) as state:
        (vp,) = state.processors
        assert (vp.registers.rip, vp.paging_levels, vp.architecture.name) == (0xC0001234, levels, "X86")


def test_notes_of_another_writer(tmp_path: Path) -> None:
    """Without QEMU's own notes there are general registers and nothing to translate with."""
    with vmsavedstate.open(
        dump(tmp_path / "x", prstatus_x86_64(0, rip=0x77) + note("OTHER", 9, b"abc")), strict=True
    ) as state:
        (vp,) = state.processors
        assert vp.registers.rip == 0x77
        with pytest.raises(RegisterNotAvailableError, match="needs cr0 of VP 0"):
            vp.translate(0)
        with pytest.raises(RegisterNotAvailableError):
            _ = vp.cpl
        assert state.chunks[1].name == "unknown (OTHER)" and state.chunks[1].data == b"abc"


@pytest.mark.parametrize(
    ("pstate", "name"),
    [(0x3C5, "sp_el1"), (0x3C4, "sp_el0"), (0, "sp_el0"), (0x3C9, "sp_el2"), (0x3CD, "sp_el3"), (0x3C8, "sp_el0")],
)
def test_arm64(tmp_path: Path, pstate: int, name: str) -> None:
    notes = prstatus_aarch64(0, pstate=pstate) + vectors()
    path = write(tmp_path / "x", elf(AARCH64, notes, [Segment(0x40000000, bytes(0x10000))]))
    with vmsavedstate.open(path, strict=True) as state:
        (vp,) = state.processors
        r = vp.registers
        assert (r.x0, r.x28, r.fp, r.lr, r.pc, r.cpsr) == (100, 128, 129, 130, 0x1234, pstate)
        assert (r.q0, r.q31, r.fpsr, r.fpcr) == (1, 32, 0x11, 0x22)
        assert {item for item in r if item.startswith("sp_")} == {name} and r[name] == 0x5000
        assert state.processor_vendor.name == "ARM"
        needed = {2: "sctlr_el2, tcr_el2, ttbr0_el2, hcr_el2", 3: "sctlr_el3, tcr_el3, ttbr0_el3"}.get(
            vp.cpl, "sctlr_el1"
        )
        with pytest.raises(RegisterNotAvailableError, match=f"needs {needed} of VP 0"):
            vp.translate(0x1000)


MONITOR = """CPU#0
RAX=0000000000000007 RBX=0000000000000003
R8 =0000000000000008 R9 =0000000000000009
RIP=0000000000001234 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
FS =0000 00007f0000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
LDT=0000 0000000000000000 0000ffff 00008200 DPL=0 LDT
GDT=     fffffe0000001000 0000007f
CR0=80010001 CR2=000000000dead000 CR3=0000000000001000 CR4=00000020
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000d01
FCW=037f FSW=3800 [ST=7] FTW=80 MXCSR=00001f80
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
FPR2=0000000000000000 0000 FPR3=0000000000000000 0000
FPR4=0000000000000000 0000 FPR5=0000000000000000 0000
FPR6=0000000000000000 0000 FPR7=c90fdaa22168c235 4000
{vectors}
CPU#1\r
EFER=0000000000000500\r
"""
XMM = "XMM00=7265747369676572 2073692073696874 XMM15=0000000000000000 0000000000000001"
YMM = (
    "YMM00=1111111111111111 2222222222222222 7265747369676572 2073692073696874\n"
    "YMM15=0000000000000000 0000000000000000 0000000000000000 0000000000000001"
)


@pytest.mark.parametrize("vectors_text", [XMM, YMM], ids=["XMM", "YMM"])
def test_the_monitors_text(vectors_text: str) -> None:
    found = parse_qemu_monitor(MONITOR.replace("{vectors}", vectors_text))
    assert sorted(found) == [0, 1] and found[1] == {"efer": 0x500}
    first: Any = found[0]
    assert (first["rax"], first["r8"], first["rip"], first["rflags"], first["efer"]) == (7, 8, 0x1234, 0x246, 0xD01)
    assert first["fs"] == SegmentRegister(0x7F0000000000, 0xFFFFFFFF, 0, 0xC093)
    assert first["gdtr"] == TableRegister(0xFFFFFE0000001000, 0x7F)
    assert (first["xmm0"], first["xmm15"]) == (0x72657473696765722073692073696874, 1)
    assert first["fpu"].st[0] == first["fpmmx0"] == 0x4000C90FDAA22168C235 and first["fpu"].tag == 0x80
    assert (first["dr7"], first["cr2"]) == (0x400, 0xDEAD000)


def test_registers_are_added(tmp_path: Path) -> None:
    path = dump(tmp_path / "x")
    text = write(tmp_path / "regs.txt", MONITOR.replace("{vectors}", XMM).replace("FS =", "ES =").encode())
    with vmsavedstate.open(path, registers=text) as state:
        vp = state.processors[0]
        assert (vp.registers.efer, vp.registers.dr7, vp.registers.xmm15) == (0xD01, 0x400, 1)
        assert state.processors[1].registers.efer == 0x500
        names = [re.findall(r"register (\w+) ", str(item)) for item in state.findings]
        assert {name for (name,) in names} == {"rbx", "es", "gdtr", "ldtr"}, "what differs is noted, the dump's counts"
        assert all(item.severity is Severity.NOTE for item in state.findings)
        assert vp.registers.es.base != 0x7F0000000000
    with vmsavedstate.open(path, registers={0: {"efer": 0xD01}}, strict=True) as state:
        assert state.processors[0].registers.efer == 0xD01 and state.findings == ()


def test_a_dump_and_its_registers_behind_objects(tmp_path: Path) -> None:
    path = dump(tmp_path / "x")
    text = MONITOR.replace("{vectors}", XMM).encode()
    with vmsavedstate.open(path, registers=write(tmp_path / "r", text)) as state:
        expected = [dict(vp.registers) for vp in state.processors]
    with vmsavedstate.open(io.BytesIO(path.read_bytes()), registers=io.BytesIO(text)) as state:
        assert [dict(vp.registers) for vp in state.processors] == expected
        assert {item.file for item in state.findings} == {"<BytesIO>"}
    with pytest.raises(vmsavedstate.SourceError, match="text file object"):
        vmsavedstate.open(path, registers=io.StringIO("text"))  # type: ignore[arg-type]


def test_registers_as_json_go_round(tmp_path: Path, sample_guest: Path) -> None:
    """What ``vmrs regs --json`` prints can be given back."""
    from support.command import vmrs

    printed = vmrs("regs", "--json", sample_guest).out
    path = dump(tmp_path / "x")
    with (
        vmsavedstate.open(path, registers=write(tmp_path / "r.json", printed)) as state,
        vmsavedstate.open(sample_guest) as other,
    ):
        ours, theirs = state.processors[0].registers, other.processors[0].registers
        assert ours.fpu == theirs.fpu and isinstance(ours.fpu, FpuState)
        assert ours.xmm7 == theirs.xmm7 and ours.efer == theirs.efer and ours.dr0 == theirs.dr0
        assert ours.rip == 0x1234
    loaded: Any = json.loads(printed)
    with vmsavedstate.open(path, registers=loaded) as state:
        assert state.processors[0].registers.efer == theirs.efer
    with vmsavedstate.open(path, registers={"1": {"EFER": "0xd01"}}) as state:  # type: ignore[dict-item]
        assert state.processors[1].registers.efer == 0xD01
    short = write(tmp_path / "short.json", json.dumps({"1": {"efer": "0xd01", "cr8": 2}}).encode())
    with vmsavedstate.open(path, registers=short, strict=True) as state:
        assert (state.processors[1].registers.cr8, "cr8" in state.processors[0].registers) == (2, False)


PARTS = ("control", "status", "tag", "opcode", "ip", "dp", "mxcsr", "mxcsr_mask", "st")
FPU_OF_ONE = json.dumps({"0": {"fpu": dict.fromkeys(PARTS, 5)}}).encode()
NO_REGISTERS: list[Any] = [5, {"dr0": -1}, {"dr0": 1 << 70}, {"efer": "0xd01"}, {"eferr": 1}, {"cs": 1}]
NO_REGISTERS += [{"efer": True}, {"x0": 1}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no registers"),
        (b"nothing of the kind", "no registers"),
        (b"{", "no registers"),
        (b'{"0": {"eferr": 1}}', "no register 'eferr'"),
        (b'{"0": {"efer": "x"}}', "efer: invalid literal"),
        (b'{"0": {"efer": true}}', "not a number"),
        (b'{"0": {"cs": {"base": 0}}}', "cs lacks its part 'limit'"),
        (b'{"0": {"x0": 1}}', "no register 'x0' on x86"),
        (b'{"7": {"efer": 1}}', "processor 7"),
        (b"X00=0000000000000001 X01=0000000000000002", "another kind of machine: x86 has no register x0"),
        (b'{"0": {"efer": "0x10000000000000000"}}', "not the value of a register"),
        (b'{"a":' * 100_000, "no registers"),
        (b"[1]", "no registers"),
        (FPU_OF_ONE, "st eight of them"),
        (b"CPU#" + b"1" * 5000 + b"\nRAX=1\nCPU#2\nRAX=" + b"f" * 17, "no registers"),
    ],
)  # fmt: skip
def test_register_files_that_are_none(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        vmsavedstate.open(dump(tmp_path / "x"), registers=write(tmp_path / "r", content))


@pytest.mark.parametrize("given", NO_REGISTERS)
def test_given_registers_that_are_none(tmp_path: Path, given: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        vmsavedstate.open(dump(tmp_path / "x"), registers={0: given})


def test_search_over_claimed_memory_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "x", elf(X86_64, TWO_CPUS, [Segment(0, MEMORY, 1 << 50)]))
    gaps: list[Any] = []
    with vmsavedstate.open(path) as state:
        assert list(state.memory.find(b"tail", unread=gaps.append)) == [0x3000]
        assert [tuple(gap) for gap in merged_gaps(iter(gaps))] == [(0x4000, 1 << 50, "missing")] and len(gaps) == 1


def test_hostile_headers_are_bounded(tmp_path: Path) -> None:
    """Very many notes, and very many segments over each other."""
    crowd = TWO_CPUS + note("X", 1, b"") * 70_000
    with damaged(tmp_path / "a", elf(X86_64, crowd, [Segment(0, MEMORY)]), "too many notes") as state:
        assert len(state.processors) == 2
    over = [Segment(0x1000 * (number % 7), b"", 0x100000) for number in range(20_000)]
    with vmsavedstate.open(
        write(tmp_path / "b", elf(X86_64, TWO_CPUS, [Segment(0, MEMORY), *over], many=True))
    ) as state:
        assert state.memory.size == 0x106000
    large = bytearray(elf(X86_64, TWO_CPUS, [Segment(0, MEMORY)]))
    large[64 + 32 : 64 + 40] = (1 << 40).to_bytes(8, "little")
    with pytest.raises(CorruptFileError, match="the notes claim 0x10000000000 bytes"):
        vmsavedstate.open(write(tmp_path / "c", bytes(large)))


def test_arguments_of_other_kinds(tmp_path: Path, sample_guest: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="only dumps of QEMU take registers"):
        vmsavedstate.open(sample_guest, registers={0: {"efer": 1}})
    with pytest.raises(InvalidArgumentError, match="no companion"):
        vmsavedstate.open(dump(tmp_path / "x"), sample_guest)


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        (elf(X86_64, TWO_CPUS, []), GuestMemoryNotFoundError, "no memory"),
        (elf(X86_64, b"", [Segment(0, MEMORY)]), NoVirtualProcessorError, "no processor"),
        (elf(X86_64, TWO_CPUS, [Segment(0, MEMORY)], kind=2), FormatError, "type 2 for machine 62"),
        (elf(40, TWO_CPUS, [Segment(0, MEMORY)]), FormatError, "machine 40"),
        (elf(X86_64, note("CORE", 3, bytes(136)) + TWO_CPUS, [Segment(0, MEMORY)]), FormatError, "of a process"),
        (elf(X86_64, TWO_CPUS, [Segment(0, MEMORY)])[:40], CorruptFileError, "would end at 0x40"),
        (elf(X86_64, TWO_CPUS, [Segment(0, MEMORY)])[:150], CorruptFileError, "program headers would end"),
        (elf(X86_64, TWO_CPUS, [Segment(0, MEMORY)])[:300], CorruptFileError, "notes would end"),
        (b"\x7fELF\x02\x02\x01" + bytes(60), FormatError, "byte order 2"),
        (b"KDUMP   " + bytes(4096), FormatError, "dump again as plain ELF"),
        (b"makedumpfile" + bytes(4096), FormatError, "unflatten it"),
        (b"PAGEDU64" + bytes(4096), FormatError, "Windows crash dump"),
    ],
)
def test_files_that_cannot_be_opened(tmp_path: Path, content: bytes, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        vmsavedstate.open(write(tmp_path / "x", content))


def damaged(path: Path, content: bytes, told: str) -> SavedState:
    """Opened all the same, with damage; refused when strict."""
    write(path, content)
    with pytest.raises(CorruptFileError, match=told):
        vmsavedstate.open(path, strict=True)
    state = vmsavedstate.open(path)
    assert any(told in item.message and item.severity is Severity.DAMAGE for item in state.findings)
    return state


def test_broken_notes(tmp_path: Path) -> None:
    short = note("CORE", 1, bytes(100)) + note("QEMU", 0, bytes(100))
    with damaged(tmp_path / "a", elf(X86_64, short, [Segment(0, MEMORY)]), "too short") as state:
        assert len(state.processors[0].registers) == 0
    lost = prstatus_x86_64(0) + note("CORE", 1, bytes(336))[:-8]
    with damaged(tmp_path / "b", elf(X86_64, lost, [Segment(0, MEMORY)]), "leaves its segment") as state:
        assert len(state.processors) == 1
    single = prstatus_x86_64(0) + prstatus_x86_64(1) + cpu_state()
    with damaged(tmp_path / "c", elf(X86_64, single, [Segment(0, MEMORY)]), "do not pair up") as state:
        assert "cr3" not in state.processors[0].registers and state.processors[0].registers.rip == 0x1234
    newer = prstatus_x86_64(0) + cpu_state(version=2, kernel_gs=None)
    with vmsavedstate.open(write(tmp_path / "e", elf(X86_64, newer, [Segment(0, MEMORY)])), strict=True) as state:
        assert "another version" in state.findings[0].message and "kernel_gs_base" not in state.processors[0].registers
    vector = prstatus_aarch64(0) + note("CORE", 2, bytes(100))
    with damaged(tmp_path / "f", elf(AARCH64, vector, [Segment(0, MEMORY)]), "vector registers is too short") as state:
        assert "q0" not in state.processors[0].registers


def test_memory_that_the_file_does_not_hold(tmp_path: Path) -> None:
    """A limited dump has less in the file than in memory; a truncated one ends early. Both are missing, never zero."""
    path = write(tmp_path / "x", elf(X86_64, TWO_CPUS, [Segment(0, MEMORY, 0x8000), Segment(0x8000, b"z" * 4096)]))
    with vmsavedstate.open(path, strict=True) as state:
        nexts = [state.memory.backing.next_stored(at) for at in (0, 0x3FFF, 0x4000, 0x5000, 0x8000, 0x8FFF, 0x9000)]
        assert nexts == [0, 0x3FFF, 0x8000, 0x8000, 0x8000, 0x8FFF, None]
        assert [(item.start, item.size) for item in state.memory.chunks] == [(0, 0x9000)]
        assert state.memory.read(0x8000, 2) == b"zz"
        with pytest.raises(GuestMemoryError) as caught:
            state.memory.read(0x3FFE, 4)
        assert (caught.value.start, caught.value.end, caught.value.reason) == (0x4000, 0x4002, "missing")
        assert [tuple(gap) for gap in state.memory.gaps(0, 0x9000)] == [(0x4000, 0x8000, "missing")]
    whole = path.read_bytes()
    path.write_bytes(whole[: -4096 - 5000])
    with pytest.raises(CorruptFileError, match="ends within a memory segment"):
        vmsavedstate.open(path, strict=True)
    with vmsavedstate.open(path) as state:
        limited, *cut = state.findings
        assert (limited.severity, limited.found) == (Severity.NOTE, "0x4000 bytes in 1 segments")
        assert [item.message for item in cut] == ["the file ends within a memory segment"] * 2
        assert [tuple(gap) for gap in state.memory.gaps(0, 0x9000)] == [(0x2C78, 0x9000, "missing")]
        assert state.memory.read(0x2C77, 2, fill=0xAA)[1] == 0xAA
        assert state.memory.pages([0, 2])[1].tolist() == [True, False]


def test_segments_that_overlap(tmp_path: Path) -> None:
    """Dumps by virtual address name the same bytes twice, which is sound; other bytes for the same page are damage."""
    shared = elf(X86_64, TWO_CPUS, [Segment(0, MEMORY), Segment(0x2000, b"")])
    raw = bytearray(shared)
    entry = 64 + 2 * 56
    first_offset = int.from_bytes(raw[64 + 56 + 8 : 64 + 56 + 16], "little")
    raw[entry + 8 : entry + 16] = (first_offset + 0x2000).to_bytes(8, "little")
    raw[entry + 32 : entry + 48] = (0x2000).to_bytes(8, "little") * 2
    with vmsavedstate.open(write(tmp_path / "a", bytes(raw)), strict=True) as state:
        assert state.memory.size == 0x4000 and state.findings == ()
    content = elf(X86_64, TWO_CPUS, [Segment(0, MEMORY), Segment(0x2000, b"x" * 0x4000)])
    with damaged(tmp_path / "b", content, "segments overlap, the first one counts") as state:
        assert state.memory.read_raw(0, state.memory.size) == MEMORY + b"x" * 0x2000


def test_impossible_segments(tmp_path: Path) -> None:
    impossible = elf(X86_64, TWO_CPUS, [Segment((1 << 64) - 0x1000, bytes(0x1000), 0x5000), Segment(0, MEMORY)])
    with damaged(tmp_path / "y", impossible, "impossible memory segment") as state:
        assert state.memory.size == 0x4000
