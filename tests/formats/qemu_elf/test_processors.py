"""Processors of a dump: how writers number them, and in which mode each was: what is there decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vmsavedstate
from support.elf import I386, X86_64, Segment, cpu_state, elf, prstatus_i386, prstatus_x86_64
from support.samples import Samples
from vmsavedstate import Severity
from vmsavedstate.datatypes import PagingMode, VirtualProcessorArch
from vmsavedstate.export.conversion import write_vmrs
from vmsavedstate.registers import parse_qemu_monitor

MEMORY = [Segment(0, bytes(0x4000))]
HIGH = 0xFFFF800000001000


def dump(path: Path, machine: int, notes: bytes) -> Path:
    path.write_bytes(elf(machine, notes, MEMORY))
    return path


def codes(state: vmsavedstate.SavedState) -> list[str]:
    return [item.code for item in state.findings]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0, 1, 2), [0, 1, 2]),  # pr_pid 1 to n: QEMU
        ((2, 0, 1), [0, 1, 2]),  # in another order
        ((-1, 0, 1), [0, 1, 2]),  # 0 to n-1: Cloud Hypervisor
        ((0, -1), [0, 1]),
        ((-1,), [0]),
        ((0,), [0]),
        ((-1, -1, -1), [0, 1, 2]),  # idle tasks of a crashed kernel
        ((4711, 998, -1), [0, 1, 2]),  # tasks
        ((3, 1, 3, 1), [0, 1, 2, 3]),
        ((0, 2), [0, 1]),
        ((0x7FFFFFFF, 0xFFFFFFFE), [0, 1]),
    ],
)
def test_numbering(tmp_path: Path, numbers: tuple[int, ...], expected: list[int]) -> None:
    """``rax`` says which note a processor came from."""
    notes = b"".join(prstatus_x86_64(number, rax=number & 0xFF) for number in numbers)
    with vmsavedstate.open(dump(tmp_path / "x", X86_64, notes), strict=True) as state:
        assert state.findings == ()
        assert [vp.index for vp in state.processors] == expected
        complete = sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers))) and min(numbers) < 1
        in_order = sorted(numbers) if complete else list(numbers)
        assert [vp.registers.rax for vp in state.processors] == [number & 0xFF for number in in_order]


def test_a_core_that_counts_from_0(reports: Samples) -> None:
    with vmsavedstate.open(reports("elf-pids-from-0.elf"), strict=True) as state:
        assert state.findings == () and [vp.index for vp in state.processors] == [0, 1, 2, 3]
        assert [vp.registers.rip & 0xF for vp in state.processors] == [0, 1, 2, 3]


def test_many_notes_of_one_number_cost_no_more_than_others(tmp_path: Path) -> None:
    notes = b"".join(prstatus_x86_64(5) for _ in range(20_000))
    with vmsavedstate.open(dump(tmp_path / "x", X86_64, notes)) as state:
        assert len(state.processors) == 20_000 and state.findings == ()


# CPU 0 in protected mode makes QEMU write machine i386; CPU 1 is in long mode.
BESIDE = {
    "64-bit code": (cpu_state(rip=0x1000, kernel_gs=None), True, []),
    "a high register": (cpu_state(rip=HIGH, long_code=False, kernel_gs=None), True, []),
    "a high root": (cpu_state(rip=0, long_code=False, cr3=1 << 32, kernel_gs=None), True, []),
    "nothing": (cpu_state(rip=0, long_code=False, kernel_gs=None), False, ["elf.processor.long-mode"]),
    "without paging": (cpu_state(rip=0, long_code=False, cr0=1, kernel_gs=None), None, []),
    "an MSR of earlier": (cpu_state(rip=0, long_code=False), False, ["elf.processor.long-mode"]),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_processor_beside_one_in_protected_mode(tmp_path: Path, case: str) -> None:
    second, long_mode, expected = BESIDE[case]
    notes = (
        prstatus_i386(0) + prstatus_i386(1) + cpu_state(rip=0x7C00, cr0=0x11, cr4=0, long_code=False, kernel_gs=None)
    )
    with vmsavedstate.open(dump(tmp_path / "x", I386, notes + second), strict=True) as state:
        first, vp = state.processors
        assert first.paging_mode is PagingMode.NON_PAGED and first.architecture is VirtualProcessorArch.X86
        mode = {True: PagingMode.LONG, False: PagingMode.PAE, None: PagingMode.NON_PAGED}[long_mode]
        assert vp.paging_mode is mode
        assert codes(state) == expected and all(item.severity is Severity.NOTE for item in state.findings)


@pytest.mark.parametrize("machine", [I386, X86_64])
def test_processors_of_one_operating_system(tmp_path: Path, machine: int) -> None:
    """All with PAE paging, in code of 32 bits: as the first one, whose mode the machine type says."""
    status = prstatus_i386 if machine == I386 else prstatus_x86_64
    own = cpu_state(rip=0x1000, long_code=False, kernel_gs=None)
    with vmsavedstate.open(dump(tmp_path / "x", machine, status(0) + status(1) + own * 2), strict=True) as state:
        assert codes(state) == []
        mode = PagingMode.PAE if machine == I386 else PagingMode.LONG
        assert [vp.paging_mode for vp in state.processors] == [mode] * 2


def test_an_efer_that_is_given_decides(tmp_path: Path) -> None:
    """Also where the rest says something else, which is a finding; and nothing is inferred any more."""
    notes = prstatus_i386(0) + prstatus_i386(1) + cpu_state(cr0=0x11, cr4=0, long_code=False, kernel_gs=None)
    open_code = cpu_state(rip=0, long_code=False, kernel_gs=None)
    path = dump(tmp_path / "x", I386, notes + open_code)
    with vmsavedstate.open(path, registers={1: {"efer": 0x500}}, strict=True) as state:
        vp = state.processors[1]
        assert (vp.registers.efer, vp.paging_mode, codes(state)) == (0x500, PagingMode.LONG, [])
    with vmsavedstate.open(path, registers={1: {"efer": 0}}, strict=True) as state:
        assert (state.processors[1].paging_mode, codes(state)) == (PagingMode.PAE, [])
    whole = dump(tmp_path / "y", X86_64, prstatus_x86_64(0) + cpu_state())
    with vmsavedstate.open(whole, registers={0: {"efer": 0}}, strict=True) as state:
        assert state.processors[0].registers.efer == 0 and state.processors[0].paging_mode is PagingMode.PAE
        assert codes(state) == ["elf.registers.efer"]


def test_convert_keeps_the_efer_and_the_upper_vectors(tmp_path: Path) -> None:
    notes = prstatus_i386(0) + prstatus_i386(1) + cpu_state(cr0=0x11, cr4=0, long_code=False, kernel_gs=None)
    path = dump(tmp_path / "x", I386, notes + cpu_state(rip=0, long_code=False, kernel_gs=None))
    vectors = {f"xmm{number}": number + 1 for number in range(16)}
    with vmsavedstate.open(path, registers={1: {"efer": 0xD01, **vectors}}) as state:
        write_vmrs(state, tmp_path / "out.vmrs")
    with vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as state:
        registers = state.processors[1].registers
        assert registers.efer == 0xD01 and [registers[f"xmm{number}"] for number in range(16)] == list(range(1, 17))


def test_a_core_of_virtualbox(reports: Samples) -> None:
    """Named as what it is; memory can be read although no processor can, and registers can be given."""
    path = reports("elf-virtualbox.elf")
    with vmsavedstate.open(path, strict=True) as state:
        assert state.processors == () and state.no_processors is not None
        assert "VirtualBox" in state.no_processors and "2 processors" in state.no_processors
        assert [(item.start, item.size) for item in state.memory.chunks] == [
            (0, 0xA0000), (0x100000, 0x100000), (0xE0000000, 0x10000),
        ]  # fmt: skip
        raw = path.read_bytes()
        assert state.memory.read(0x100000, 0x100000) == raw[0xB1114 : 0xB1114 + 0x100000]
    with vmsavedstate.open(path, registers={0: {"cr0": 0x11, "cr4": 0, "rip": 5}}) as state:
        assert [(vp.registers.rip, vp.paging_mode) for vp in state.processors] == [(5, PagingMode.NON_PAGED)]


def test_registers_out_of_qmp(reports: Samples, tmp_path: Path) -> None:
    """The answer of human-monitor-command as it is, a whole session, and what ``virsh`` prints in more lines."""
    answer = reports("registers-qmp.json").read_text()
    text = json.loads(answer)["return"]
    expected = parse_qemu_monitor(text)
    assert expected and "efer" in expected[0]
    session = '{"QMP": {"version": {}, "capabilities": []}}\r\n{"return": {}}\r\n' + answer
    path = dump(tmp_path / "x", I386, b"".join(prstatus_i386(number) for number in expected))
    for number, form in enumerate([answer, session, json.dumps(json.loads(answer), indent=2), text]):
        given = tmp_path / f"{number}.json"
        given.write_text(form)
        with vmsavedstate.open(path, registers=given) as state:
            for vp in state.processors:
                assert vp.registers.efer == expected[vp.index]["efer"], number
                assert vp.registers.cr0 == expected[vp.index]["cr0"]
    (tmp_path / "error.json").write_text('{"error": {"class": "GenericError", "desc": "no"}}')
    with pytest.raises(vmsavedstate.FormatError, match="no registers can be read"):
        vmsavedstate.open(path, registers=tmp_path / "error.json")
