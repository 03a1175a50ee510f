"""The saved-state writer: round trips, the rules of section 9, an independent reader."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.structure_check import StructureCheck
from vmsavedstate import CpuidLeaf, FpuState, SavedStateWriter, Screen, SegmentRegister, TableRegister
from vmsavedstate.errors import InvalidArgumentError, SourceError

GENERAL = "rax rcx rdx rbx rsp rbp rsi rdi rip rflags"
SEGMENTS = "es cs ss ds fs gs ldtr tr"
STACK = tuple((0x4000 << 64) + number for number in range(8))
X64: dict[str, Any] = {
    **{name: 0x1000 + number for number, name in enumerate(str.split(GENERAL))},
    **{f"r{number}": 1 << number for number in range(8, 16)},
    "cr0": 0x80000011,
    "cr2": 2,
    "cr3": 0x1000,
    "cr4": 0x20,
    "cr8": 1,
    "efer": 0x500,
    "dr0": 1,
    "dr1": 2,
    "dr2": 3,
    "dr3": 4,
    "dr6": 6,
    "dr7": 7,
    **{name: SegmentRegister(n << 40, 0xFFFFFFFF, n, 0xA09B) for n, name in enumerate(str.split(SEGMENTS))},
    "gdtr": TableRegister(0xFFFF0000, 0x7F),
    "idtr": TableRegister(1 << 47, 0xFFF),
    **{f"xmm{number}": (1 << 127) + number for number in range(16)},
    **{f"fpmmx{number}": value for number, value in enumerate(STACK)},
    "mxcsr": 0x1F80,
    "fpu": FpuState(0x37F, 0x3800, 0x80, 0x123, 1 << 60, 1 << 50, 0x1F80, 0xFFFF, STACK),
    "xcr0": 7,
    "apic_base": 0xFEE00900,
    "pat": 0x0007040600070406,
    "mtrr_cap": 0x508,
    "mtrr_def_type": 0xC00,
}
ARM64_NAMES = (
    "fp lr pc cpsr esr_el1 spsr_el1 far_el1 par_el1 elr_el1 sp_el0 sp_el1 afsr0_el1 afsr1_el1 sctlr_el1 tcr_el1 "
    "ttbr0_el1 ttbr1_el1 vbar_el1 fpsr fpcr cntv_ctl_el0"
)
ARM64: dict[str, Any] = {
    **{f"x{number}": 100 + number for number in range(29)},
    **{name: 200 + number for number, name in enumerate(str.split(ARM64_NAMES))},
    **{f"q{number}": (number + 1) << 120 for number in range(32)},
}


def guest_memory(size: int, seed: int = 0) -> bytes:
    """Memory with zero pages, uniform pages, text and noise."""
    chance = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        kind = chance.randrange(4)
        page = bytes(4096) if kind == 0 else bytes([chance.randrange(256)]) * 4096
        if kind == 2:
            page = (f"page {len(out):x} of guest memory, ".encode() * 200)[:4096]
        elif kind == 3:
            page = chance.randbytes(4096)
        out += page
    return bytes(out[:size])


def slice_of(data: bytes, offset: int, size: int) -> bytes:
    return data[offset : offset + size]


def write(path: Path, *, compress: bool, memory: dict[int, bytes], processors: Any = None, **options: Any) -> Path:
    with SavedStateWriter(path, compress=compress, overwrite=True, **options) as writer:
        for index, vtls in (processors or {0: {0: X64}}).items():
            writer.add_processor(index, vtls=vtls)
        for start, data in memory.items():
            writer.add_memory(start, len(data), partial(slice_of, data))
    return path


MEMORY = {0: guest_memory(0xA0000, 1), 0x100000: guest_memory(3 << 20, 2), 1 << 32: guest_memory(0x1000, 3)}


@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(tmp_path: Path, compress: bool) -> None:
    path = write(tmp_path / "x.vmrs", compress=compress, memory=MEMORY, guest_os_ids={0: 0x8100000000000000})
    with vmsavedstate.open(path, strict=True) as state:
        assert state.findings == ()
        assert dict(state.processors[0].registers) == X64
        for start, data in MEMORY.items():
            assert state.memory.read(start, len(data)) == data
        assert [(item.start, item.size) for item in state.memory.chunks] == [
            (at, len(data)) for at, data in MEMORY.items()
        ]
        stored = state.storage()
        assert stored["blocks"] == 5
        assert stored["compressed"] == (5 if compress else 0)
        assert state.guest_os().os == "linux"
        assert (state.vm_version, state.saved_state_type, state.format) == (0x0A00, "Normal", "vmrs")


@pytest.mark.parametrize("compress", [False, True])
def test_every_rule_for_microsofts_reader(tmp_path: Path, compress: bool) -> None:
    """Section 9, checked by code that shares nothing with the writer."""
    path = write(tmp_path / "x.vmrs", compress=compress, memory=MEMORY)
    assert StructureCheck(path.read_bytes()).check_saved_state() == []


def test_arm64(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vmrs", compress=True, memory=MEMORY, processors={0: {0: ARM64}}, architecture="arm64")
    assert StructureCheck(path.read_bytes()).check_saved_state() == []
    with vmsavedstate.open(path, strict=True) as state:
        found = dict(state.processors[0].registers)
        assert {name: found[name] for name in ARM64} == ARM64
        assert not any(found[name] for name in found.keys() - ARM64.keys()), "what was not given is zero"
        assert state.processors[0].architecture.name == "ARMV8"
        assert state.processor_vendor.name == "ARM"


def test_several_vtls_and_sparse_processors(tmp_path: Path) -> None:
    low, high = {"rax": 1, "rip": 2, "cr3": 3}, {"rip": 22, "cr3": 33}
    processors = {3: {0: low, 1: high}, 70: {0: low}, 200: {0: low, 2: high}}
    path = tmp_path / "x.vmrs"
    with SavedStateWriter(path, guest_os_ids={0: 5, 1: 6}) as writer:
        writer.add_processor(70, vtls=processors[70])
        writer.add_processor(3, vtls=processors[3], active_vtl=1)
        writer.add_processor(200, vtls=processors[200], active_vtl=0)
        writer.add_memory(0, 4096, lambda offset, size: bytes(size))
    assert StructureCheck(path.read_bytes()).check_saved_state() == []
    with vmsavedstate.open(path, strict=True) as state:
        assert [(vp.index, vp.enabled_vtls, vp.active_vtl) for vp in state.processors] == [
            (3, (0, 1), 1), (70, (0,), 0), (200, (0, 2), 0),
        ]  # fmt: skip
        assert state.enabled_vtls == (0, 1, 2)
        assert (state.processors[0].registers.rip, state.processors[0].vtl(0).registers.rip) == (22, 2)
        assert state.processors[2].vtl(2).registers.cr3 == 33
        assert (state.guest_os(0).raw, state.guest_os(1).raw) == (5, 6)


@pytest.mark.parametrize(("width", "height"), [(640, 400), (1, 1), (7, 3)])
def test_screen(tmp_path: Path, width: int, height: int) -> None:
    chance = random.Random(5)
    pixels = chance.randbytes(2 * width * height)
    screen = Screen.from_rgb565(width, height, pixels)
    assert screen.to_rgb565() == pixels
    path = tmp_path / "x.vmrs"
    with SavedStateWriter(path) as writer:
        writer.add_processor(0, X64)
        writer.add_memory(0, 4096, lambda offset, size: bytes(size))
        writer.set_screen(screen)
    with vmsavedstate.open(path, strict=True) as state:
        assert state.screen == screen


def test_cpuid_leaves(tmp_path: Path) -> None:
    leaves = [CpuidLeaf(0, 0, 1, 0x756E6547, 0x6C65746E, 0x49656E69), CpuidLeaf(4, 2, 5, 6, 7, 8)]
    path = write(tmp_path / "x.vmrs", compress=False, memory={0: bytes(4096)}, cpuid=leaves)
    with vmsavedstate.open(path, strict=True) as state:
        assert (state.cpuid.vendor, state.cpuid[4, 2]) == ("GenuineIntel", leaves[1])


def test_memory_is_never_held_whole_and_zeros_stay_holes(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def read(offset: int, size: int) -> bytes:
        asked.append((offset, size))
        return b"\x55" * size

    path, size = tmp_path / "x.vmrs", 256 << 20
    with SavedStateWriter(path) as writer:
        writer.add_processor(0, X64)
        writer.add_memory(0, size, read, zero_runs=[(4096, 100 << 20), (200 << 20, (56 << 20) - 4096)])
    assert max(length for _, length in asked) <= 1 << 20
    assert asked == sorted(asked)
    with vmsavedstate.open(path, strict=True) as state:
        assert state.memory.read(0, 8192) == b"\x55" * 4096 + bytes(4096)
        assert state.memory.read((100 << 20) + 4096, 1) == b"\x55"
        assert state.memory.read((200 << 20) - 1, 2) == b"\x55\0"
        assert state.memory.read(size - 4097, 2) == b"\0\x55"
    assert path.stat().st_blocks * 512 < 120 << 20


@pytest.mark.peer
def test_an_independent_reader_finds_every_key(tmp_path: Path) -> None:
    hyperv = pytest.importorskip("dissect.hypervisor.descriptor.hyperv")
    path = write(tmp_path / "x.vmrs", compress=True, memory=MEMORY)
    with vmsavedstate.open(path) as state, path.open("rb") as stream:
        peer = hyperv.HyperVFile(stream)
        assert state.store is not None
        compared = 0
        for entry in state.store.walk():
            if entry.type == "node":
                continue
            other = peer.root
            for part in entry.path.strip("/").split("/"):
                other = (other if isinstance(other, dict) else other.children)[part]
            value = other.value
            if hasattr(value, "read"):
                value = value.read()
            assert bytes(value) == entry.value if entry.type == "array" else value == entry.value, entry.path
            compared += 1
        assert compared == 12


@pytest.mark.parametrize(
    ("registers", "message"),
    [
        ({"rax": 1 << 64}, "does not fit"),
        ({"rax": -1}, "does not fit"),
        ({"x0": 1}, "no registers 'x0' on x86"),
        ({"cs": 5}, "is a segment"),
        ({"rip": TableRegister(0, 0)}, "is a u64"),
        ({"gdtr": TableRegister(0, 1 << 16)}, "does not fit"),
    ],
)
def test_registers_that_cannot_be(tmp_path: Path, registers: Any, message: str) -> None:
    path = tmp_path / "x.vmrs"
    with pytest.raises(InvalidArgumentError, match=message):
        write(path, compress=False, memory={0: bytes(4096)}, processors={0: {0: registers}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("start", "size"), [(1, 4096), (0, 4095), (0, 0), (0, -4096), (-4096, 4096), (1 << 64, 4096), (0x100000, 0x200000)]
)
def test_memory_that_cannot_be(tmp_path: Path, start: int, size: int) -> None:
    with pytest.raises(InvalidArgumentError), SavedStateWriter(tmp_path / "x.vmrs") as writer:
        writer.add_processor(0, X64)
        writer.add_memory(0x200000, 0x100000, lambda offset, size: bytes(size))
        writer.add_memory(start, size, lambda offset, size: bytes(size))
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_gives_too_little(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidArgumentError, match="gave 0x0 of 0x1000"),
        SavedStateWriter(tmp_path / "x.vmrs") as writer,
    ):
        writer.add_memory(0, 4096, lambda offset, size: b"")


def test_a_state_needs_a_processor_and_memory(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="at least one"), SavedStateWriter(tmp_path / "x.vmrs") as writer:
        writer.add_processor(0, X64)
    with pytest.raises(InvalidArgumentError, match="at least one"), SavedStateWriter(tmp_path / "x.vmrs") as writer:
        writer.add_memory(0, 4096, lambda offset, size: bytes(size))
    with (
        pytest.raises(InvalidArgumentError, match="not a valid number"),
        SavedStateWriter(tmp_path / "x.vmrs") as writer,
    ):
        writer.add_processor(0)
        writer.add_processor(0)
    wrong: list[dict[str, Any]] = [{"architecture": "sparc"}, {"architecture": "arm64", "vendor": 1}, {"vendor": 0x10}]
    for options in wrong:
        with pytest.raises(InvalidArgumentError):
            SavedStateWriter(tmp_path / "x.vmrs", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with pytest.raises(SourceError, match="cannot write"), SavedStateWriter("/proc/none/x.vmrs"):
        pass
