"""From registers to a form: what the processor does, what may be forced, and what is said of registers that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

import vmsavedstate
from paging.test_forms import arm, tcr
from support.partition import chunk, control, envelope, epilog, general, prolog, segments, vp, vp_indices, vp_vtl
from support.states import numbered_pages, write_state
from support.tables import CODE64, LEGACY, LONG, PAE
from vmsavedstate import InvalidArgumentError, RegisterNotAvailableError
from vmsavedstate.datatypes import PagingMode, VirtualProcessorArch
from vmsavedstate.paging.selection import is_long_mode, paging_mode, select

MODES = {
    "none": ({"cr0": 0x11}, PagingMode.NON_PAGED, 0),
    "none, tables ready": (LONG | {"cr0": 0x11, "cr3": 0}, PagingMode.NON_PAGED, 0),
    "32 bit": (LEGACY | {"cr3": 0}, PagingMode.X86_32BIT, 2),
    "PAE": (PAE | {"cr3": 0}, PagingMode.PAE, 3),
    "long": (LONG | {"cr3": 0}, PagingMode.LONG, 4),
    "five levels": (LONG | {"cr4": 0x1020, "cr3": 0}, PagingMode.LONG, 5),
    "five levels count in long mode alone": (PAE | {"cr4": 0x1020, "cr3": 0}, PagingMode.PAE, 3),
}


@pytest.mark.parametrize("name", MODES)
def test_x86(name: str) -> None:
    registers, mode, levels = MODES[name]
    assert paging_mode("x86", registers, "VP 0") == mode
    regime = select("x86", registers, "VP 0")
    assert (regime.mode, regime.levels) == (mode, levels)


@pytest.mark.parametrize(
    ("size", "granule", "more", "levels"),
    [(16, 12, 0, 4), (25, 12, 0, 3), (34, 12, 0, 2), (43, 12, 0, 1), (12, 12, 1 << 59, 5), (16, 14, 0, 4), (17, 14, 0, 3),
     (28, 14, 0, 2), (39, 14, 0, 1), (12, 16, 0, 3), (22, 16, 0, 2), (35, 16, 0, 1), (48, 12, 0, 1), (47, 16, 0, 1)],
)  # fmt: skip
def test_arm64_levels(size: int, granule: int, more: int, levels: int) -> None:
    regime = select("arm64", arm(tcr(size, size, granule, more=more)), "VP 0")
    assert [len(tree.form.levels) for tree in regime.trees] == [levels, levels]
    assert [(tree.start, tree.end) for tree in regime.trees] == [
        (0, 1 << 64 - size),
        ((1 << 64) - (1 << 64 - size), 1 << 64),
    ]


@pytest.mark.parametrize(("size", "granule"), [(15, 12), (49, 12), (11, 16), (48, 16), (15, 14), (0, 12), (63, 14)])
def test_arm64_sizes_out_of_range_have_no_tables(size: int, granule: int) -> None:
    assert select("arm64", arm(tcr(size, 16, granule)), "VP 0").trees[0].start > 0


@pytest.mark.parametrize(
    ("granule", "size", "ips", "more", "ttbr", "root"),
    [
        (16, 12, 6, 0, 0x4000_0000_0028, 0xA_4000_0000_0000),  # bits 5 to 2 are bits 51 to 48
        (16, 12, 5, 0, 0x4000_0000_0028, 0x4000_0000_0000),  # not without 52-bit addresses
        (16, 12, 7, 0, 0x4000_0000_0028, 0xA_4000_0000_0000),  # the reserved size is taken as the largest
        (12, 12, 6, 1 << 59, 0xFFFF_0000_1000_0004, 0x1_0000_1000_0000),
        (12, 39, 6, 1 << 59, 0x1240, 0x1240 & ~0x7F),
        (12, 33, 6, 1 << 59, 0x1250, 0x4_0000_0000_1240),  # a small table stands on 64 bytes at least
        (12, 16, 6, 0, 0x1024, 0x1000),  # 4 KiB tables have 48-bit addresses without TCR_EL1.DS
    ],
)
def test_arm64_roots(granule: int, size: int, ips: int, more: int, ttbr: int, root: int) -> None:
    regime = select("arm64", arm(tcr(size, 16, granule, ips=ips, more=more), ttbr), "VP 0")
    assert regime.trees[0].root == root


def test_reserved_granules_are_taken_as_4_kib() -> None:
    value = tcr(16, 16, 12) | 3 << 14
    assert select("arm64", arm(value & ~(3 << 30)), "VP 0").trees[0].form.name == "ARM64 stage 1, 4 KiB, 4 levels"


def test_forced() -> None:
    registers = LONG | {"cr3": 0x1000}
    assert select("x86", registers, "", mode=PagingMode.PAE, root=0x2FE0).trees[0].root == 0x2FE0
    assert select("x86", registers, "", mode=PagingMode.X86_32BIT).trees[0].root == 0x1000
    assert select("x86", registers, "", root=0x5ABC).trees[0].root == 0x5000
    assert select("x86", registers, "", mode=PagingMode.NON_PAGED).identity == 1 << 52
    assert select("x86", {}, "", mode=PagingMode.LONG, root=0x3000).levels == 4, "nothing else is needed"
    assert select("arm64", arm(tcr(16, 16, 12), 0x1000), "", root=0x7000).trees[0].root == 0x7000
    assert select("arm64", arm(tcr(16, 16, 12)) | {"sctlr_el1": 0}, "").trees == ()
    assert select("arm64", arm(tcr(16, 16, 12)) | {"sctlr_el1": 0}, "", mode=PagingMode.ARMV8).levels == 4
    for family, mode in (("x86", PagingMode.ARMV8), ("arm64", PagingMode.LONG), ("x86", PagingMode.INVALID)):
        with pytest.raises(InvalidArgumentError):
            select(family, registers | arm(0), "", mode=mode)
    with pytest.raises(InvalidArgumentError, match="paging is off"):
        select("x86", {"cr0": 0x11}, "", root=0x1000)
    for root in (-1, 1 << 64):
        with pytest.raises(InvalidArgumentError):
            select("x86", registers, "", root=root)


def test_without_paging_bit_like_the_provider() -> None:
    regime = select("x86", {"cr0": 0x10, "cr3": 0, "cr4": 0, "efer": 0}, "", ignore_pg=True)
    assert (regime.mode, regime.levels) == (PagingMode.X86_32BIT, 2)
    assert select("x86", LONG | {"cr0": 0x11, "cr3": 0}, "", ignore_pg=True).levels == 4


@pytest.mark.parametrize(
    ("family", "registers", "missing"),
    [
        ("x86", {}, "cr0"),
        ("x86", {"cr0": 1 << 31}, "cr4"),
        ("x86", {"cr0": 1 << 31, "cr4": 0x20}, "efer"),
        ("x86", {"cr0": 1 << 31, "cr4": 0}, "cr3"),
        ("arm64", {"sctlr_el1": 1}, "tcr_el1, ttbr0_el1, ttbr1_el1"),
        ("arm64", {}, "sctlr_el1"),
    ],
)
def test_missing_registers_are_named(family: str, registers: dict[str, int], missing: str) -> None:
    with pytest.raises(RegisterNotAvailableError, match=f"needs {missing} of VP 7,") as caught:
        select(family, registers, "VP 7")
    assert caught.value.hresult == 0xC0370506
    assert caught.value.remedy is not None and "registers=" in caught.value.remedy
    assert "--registers" in caught.value.for_command() and "registers=" not in caught.value.for_command()


def test_long_mode_without_efer() -> None:
    paged = {"cr0": 1 << 31, "cr4": 0x20, "cr3": 0x1000}
    assert is_long_mode({"cs": CODE64}, "", None), "the L bit exists in long mode alone"
    assert is_long_mode({}, "", True) and not is_long_mode({"cs": CODE64}, "", False)
    assert not is_long_mode({"efer": 0}, "", True), "EFER itself counts first"
    assert select("x86", paged, "", long_mode=True).levels == 4
    assert select("x86", paged, "", long_mode=False).levels == 3
    assert select("x86", {**paged, "cs": CODE64}, "").levels == 4


def test_two_trust_levels_have_address_spaces_of_their_own(tmp_path: Path) -> None:
    """Each VTL has its CR0 and CR3; forcing changes neither the view nor the state."""
    row = [vp_indices([0]), chunk(0x20008000, bytes(16)), chunk(0x20008000, b"\1" + bytes(15)), vp(0)]
    row += [vp_vtl(0), general(1), control(0x80010011, 0, 0x1000, 0x10), segments(), vp_vtl(1), general(1)]
    row += [control(0x80010011, 0, 0x2000, 0x10), segments()]
    block = bytearray(numbered_pages(0))
    block[0x1000:0x1004], block[0x2000:0x2004] = b"\xe3\0\0\0", b"\xe3\0\x40\0"
    path = write_state(
        tmp_path / "x.vmrs", blob=envelope(prolog() + b"".join(row) + epilog()), blocks={0: bytes(block)}
    )
    with vmsavedstate.open(path) as state:
        (processor,) = state.processors
        assert processor.vtl(0).translate(0x123) == 0x123
        assert processor.vtl(1).translate(0x123) == 0x400123
        assert processor.vtl(1).address_space(root=0x1000) is processor.vtl(0).address_space(), "one set of tables"
        forced = processor.address_space(paging_mode=PagingMode.NON_PAGED)
        assert forced.translate(0x4000000000) == 0x4000000000
        assert processor.paging_mode == PagingMode.X86_32BIT and processor.registers.cr3 == 0x1000
        assert processor.address_space(architecture=VirtualProcessorArch.X64).roots == (0x1000,)
        with pytest.raises(RegisterNotAvailableError, match="sctlr_el1"):
            processor.address_space(architecture=VirtualProcessorArch.ARMV8)
        with pytest.raises(InvalidArgumentError):
            processor.address_space(architecture=VirtualProcessorArch.UNKNOWN)


def test_a_processor_without_control_registers(tmp_path: Path) -> None:
    blob = envelope(prolog() + vp_indices([0]) + vp(0) + general(1) + epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        for call in (
            lambda vp: vp.translate(0),
            lambda vp: vp.read(0, 8),
            lambda vp: list(vp.mappings()),
            lambda vp: vp.walk(0),
        ):
            with pytest.raises(RegisterNotAvailableError, match=r"needs cr0 of VP 0"):
                call(state.processors[0])
