"""Architecture, paging mode, levels and guest OS from registers (API specification, sections 3.5 and 11)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import vmsavedstate
from support import partition as p
from support.states import write_state
from vmsavedstate.datatypes import PagingMode, VirtualProcessorArch
from vmsavedstate.processor import GuestOs, VirtualProcessor

PG, PAE, LA57, LME, LMA, LONG = 1 << 31 | 1, 1 << 5, 1 << 12, 1 << 8, 1 << 10, 0x2000


def processor(tmp_path: Path, row: bytes, vendor: int = p.INTEL) -> VirtualProcessor:
    blob = p.envelope(p.prolog(vendor) + p.vp_indices([0]) + p.vp(0) + row + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        return state.processors[0]


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "cs", "architecture", "mode", "levels"),
    [
        (0x10, 0, 0, 0, "X86", "NON_PAGED", 0),
        (0x60000010, PAE, LMA, LONG, "X64", "NON_PAGED", 0),
        (PG, 0, 0, 0, "X86", "X86_32BIT", 2),
        (PG, 0, LME, 0, "X86", "X86_32BIT", 2),
        (PG, PAE, 0, 0, "X86", "PAE", 3),
        (PG, PAE, 0, LONG, "X86", "PAE", 3),
        (PG, PAE, LME | LMA, LONG, "X64", "LONG", 4),
        (PG, PAE, LMA, 0, "X86", "LONG", 4),  # compatibility mode
        (PG, PAE | LA57, LMA, LONG, "X64", "LONG", 5),
        (PG, LA57, 0, 0, "X86", "X86_32BIT", 2),
    ],
)
def test_x86(tmp_path: Path, cr0: int, cr4: int, efer: int, cs: int, architecture: str, mode: str, levels: int) -> None:
    vp = processor(tmp_path, p.control(cr0=cr0, cr4=cr4, efer=efer) + p.segments(cs))
    assert vp.architecture is VirtualProcessorArch[architecture]
    assert vp.paging_mode is PagingMode[mode]
    assert vp.paging_levels == levels


@pytest.mark.parametrize(
    ("sctlr", "tcr", "mode", "levels"),
    [
        (0, 0, "NON_PAGED", 0),
        (1, 16 | 16 << 16 | 2 << 30, "ARMV8", 4),  # 48 bits, 4 KiB
        (1, 25 | 25 << 16 | 2 << 30, "ARMV8", 3),  # 39 bits, 4 KiB
        (1, 25 | 16 << 16 | 2 << 30, "ARMV8", 4),  # the larger range counts
        (1, 25 | 16 << 16 | 2 << 30 | 1 << 23, "ARMV8", 3),  # unless it is switched off (EPD1)
        (1, 16 | 1 << 14 | 1 << 23, "ARMV8", 3),  # 48 bits, 64 KiB
        (1, 16 | 2 << 14 | 1 << 23, "ARMV8", 4),  # 48 bits, 16 KiB
        (1, 22 | 1 << 14 | 1 << 23, "ARMV8", 2),  # 42 bits, 64 KiB
    ],
)
def test_arm64(tmp_path: Path, sctlr: int, tcr: int, mode: str, levels: int) -> None:
    control = struct.pack("<16Q", 0, 0, sctlr, 0, tcr, *[0] * 11)
    general = struct.pack("<42Q", *[0] * 32, 0b0101, *[0] * 9)  # CPSR: EL1
    vp = processor(tmp_path, p.chunk(0x30005000, general) + p.chunk(0x30007000, control), vendor=p.ARM)
    assert vp.architecture is VirtualProcessorArch.ARMV8
    assert vp.paging_mode is PagingMode[mode]
    assert vp.paging_levels == levels
    assert vp.cpl == 1


@pytest.mark.parametrize(
    ("raw", "os", "version", "text"),
    [
        (0, None, None, "not enlightened (guest OS id 0)"),
        (
            0x0001_04_0A_00_00_4A65,
            "windows_nt",
            "10.0 build 19045 service 0",
            "microsoft windows_nt 10.0 build 19045 service 0",
        ),
        (0x8100_0006_0100_0000, "linux", "0x60100", "open source linux 0x60100"),
        (0x8200_0000_0000_0000, "freebsd", "0x0", "open source freebsd 0x0"),
        (0x0009_07_00_00_00_0000, "id 0x7", "0.0 build 0 service 0", "id 0x9 id 0x7 0.0 build 0 service 0"),
        (0xFF00_0000_0000_0000, "id 0x7f", "0x0", "open source id 0x7f 0x0"),
    ],
)
def test_guest_os(raw: int, os: str | None, version: str | None, text: str) -> None:
    guest = GuestOs(raw)
    assert (guest.os, guest.version, str(guest)) == (os, version, text)


def test_unconfirmed_values_stand_apart(tmp_path: Path) -> None:
    msrs = p.chunk(0x3000B000, struct.pack("<12Q", *range(50, 62)))
    vp = processor(tmp_path, p.general(1) + msrs)
    assert (vp.unconfirmed["kernel_gs_base"], vp.unconfirmed["lstar"]) == (51, 58)
    assert vp.registers.apic_base == 52, "verified on the real state"
    assert "lstar" not in vp.registers


def test_typed_names_are_those_the_format_has() -> None:
    """The names for type checkers neither lack a register of the layouts nor invent one."""
    from vmsavedstate.formats.hyperv.layout import registers as layouts
    from vmsavedstate.registers.names import Arm64RegisterNames, X86RegisterNames

    chunks = (*layouts.X86_CHUNKS, *layouts.X86_OPTIONAL_CHUNKS, *layouts.ARM64_CHUNKS)
    kinds = {name: kind for chunk in chunks for name, (_, kind) in chunk.registers.items()}
    typed = X86RegisterNames.__annotations__ | Arm64RegisterNames.__annotations__
    assert typed.pop("kernel_gs_base") == "int"  # of dumps of QEMU alone
    assert typed.pop("fpu") == "FpuState"
    assert set(typed) == set(kinds)
    named = {"segment": "SegmentRegister", "table": "TableRegister"}
    assert typed == {name: named.get(kind, "int") for name, kind in kinds.items()}
