"""The partition state: envelope, chunks, processors, VTLs (format specification, section 6)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmsavedstate
from support import partition as p
from support.states import write_state
from vmsavedstate import SavedState
from vmsavedstate.errors import (
    CorruptFileError,
    EncryptedStateError,
    NoVirtualProcessorError,
    RegisterNotAvailableError,
    VmSavedStateError,
    VtlNotEnabledError,
)
from vmsavedstate.findings import Severity

X86_GENERAL = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"
ARM64_GENERAL = "fp lr pc cpsr esr_el1 spsr_el1 far_el1 par_el1 elr_el1 sp_el0 sp_el1 afsr0_el1 afsr1_el1"
ARM64_CONTROL = (
    "vmpidr_el2 vpidr_el2 sctlr_el1 actlr_el1 tcr_el1 mair_el1 tpidr_el1 amair_el1 tpidrro_el0 tpidr_el0 "
    "contextidr_el1 cpacr_el1 csselr_el1 cntkctl_el1 cntv_cval_el0 cntv_ctl_el0"
)


def opened(tmp_path: Path, blob: bytes, *, strict: bool = False) -> SavedState:
    return vmsavedstate.open(write_state(tmp_path / "state.vmrs", blob=blob), strict=strict)


def messages(state: SavedState) -> list[str]:
    return [item.message for item in state.findings]


def test_registers_of_a_state_without_any_vtl_chunk(tmp_path: Path) -> None:
    """Both real blobs have none: everything belongs to VTL0 (6.7)."""
    row = (
        p.vp_indices([0])
        + p.vp(0)
        + p.general(*range(1, 19))
        + p.control(0x11, 2, 3, 4, 8, 0xE)
        + p.debug(1, 2, 3, 4, 6, 7)
    )
    blob = p.envelope(p.prolog() + row + p.segments(0x209B, cpl=3) + p.tables() + p.epilog())
    with opened(tmp_path, blob, strict=True) as state:
        (vp,) = state.processors
        assert (state.enabled_vtls, vp.enabled_vtls, vp.active_vtl) == ((0,), (0,), 0)
        r = vp.registers
        names = str.split(X86_GENERAL)
        assert [r[name] for name in names] == list(range(1, 19))
        assert (r.cr0, r.cr2, r.cr3, r.cr4, r.cr8, r.efer) == (0x11, 2, 3, 4, 8, 0xE)
        assert (r.dr0, r.dr1, r.dr2, r.dr3, r.dr6, r.dr7) == (1, 2, 3, 4, 6, 7)
        assert [getattr(r, name).selector for name in ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"]] == list(
            range(8)
        )
        assert (r.fs.base, r.fs.limit, r.cs.attributes) == (4 << 32, 0xFFFF, 0x209B)
        assert ((r.idtr.limit, r.idtr.base), (r.gdtr.limit, r.gdtr.base)) == ((0x111, 0x1000), (0x222, 0x2000))
        assert vp.cpl == 3
        assert state.findings == ()


def test_fpu_and_xmm(tmp_path: Path) -> None:
    data = bytearray(416)
    for number in range(16):
        data[16 * number : 16 * number + 16] = bytes([number]) * 16
    for number in range(8):
        data[256 + 16 * number] = 0x80 + number
    struct.pack_into("<HHBxHQ", data, 384, 0x37F, 0x1234, 0x55, 0x7FF, 0xAABBCCDD)
    struct.pack_into("<QII", data, 400, 0x11223344, 0x1F80, 0xFFFF)
    blob = p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.chunk(0x30006000, bytes(data)) + p.epilog())
    with opened(tmp_path, blob, strict=True) as state:
        r = state.processors[0].registers
        assert r.xmm5 == int.from_bytes(bytes([5]) * 16, "little")
        assert r.fpu.st == tuple(0x80 + number for number in range(8))
        assert (r.fpu.control, r.fpu.status, r.fpu.tag, r.fpu.opcode, r.fpu.ip) == (
            0x37F,
            0x1234,
            0x55,
            0x7FF,
            0xAABBCCDD,
        )
        assert (r.fpu.dp, r.fpu.mxcsr, r.fpu.mxcsr_mask) == (0x11223344, 0x1F80, 0xFFFF)


def test_arm64(tmp_path: Path) -> None:
    general = struct.pack("<42Q", *range(100, 142))
    control = struct.pack("<16Q", *range(200, 216))
    fp = b"".join(bytes([n]) * 16 for n in range(32)) + struct.pack("<QQ", 0xF5, 0xFC)
    table = struct.pack("<4Q", 0x300, 0x301, 0x302, 0)
    chunks = (
        p.chunk(0x30005000, general)
        + p.chunk(0x30007000, control)
        + p.chunk(0x30006000, fp)
        + p.chunk(0x3000A000, table)
    )
    blob = p.envelope(p.prolog(p.ARM) + p.vp_indices([0]) + p.vp(0) + chunks + p.epilog())
    with opened(tmp_path, blob, strict=True) as state:
        vp = state.processors[0]
        r = vp.registers
        assert vp.architecture.c_name == "Arch_Armv8"
        assert [r[f"x{n}"] for n in range(29)] == list(range(100, 129))
        names = str.split(ARM64_GENERAL)
        assert [r[name] for name in names] == list(range(129, 142))
        names = str.split(ARM64_CONTROL)
        assert [r[name] for name in names] == list(range(200, 216))
        assert (r.ttbr0_el1, r.ttbr1_el1, r.vbar_el1) == (0x300, 0x301, 0x302)
        assert r.q31 == int.from_bytes(b"\x1f" * 16, "little")
        assert (r.fpsr, r.fpcr) == (0xF5, 0xFC)
        assert "rip" not in r


def test_a_register_that_is_not_there(tmp_path: Path) -> None:
    blob = p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(5) + p.epilog())
    with opened(tmp_path, blob, strict=True) as state:
        vp = state.processors[0]
        assert vp.registers.rax == 5
        assert "cr3" not in vp.registers
        for error in (RegisterNotAvailableError, KeyError, AttributeError):
            with pytest.raises(error, match="cr3"):
                vp.registers["cr3"]
        assert not hasattr(vp.registers, "cr3")
        for name in ("architecture", "paging_mode", "cpl", "paging_levels"):
            with pytest.raises(RegisterNotAvailableError):
                getattr(vp, name)


def two_vtls(*, first_runnable: int = 0, second_runnable: int = 0) -> bytes:
    """VP 0 with VTL0 and VTL1; general registers stand in VTL0 alone, control registers in both."""
    row = (
        p.vp(0)
        + p.control_page(first_runnable)
        + p.vp_vtl(0) + p.general(*range(1, 19)) + p.control(1, 22, 3) + p.debug(1, 2, 3, 4, 6, 7)
        + p.vp_vtl(1) + p.control_page(second_runnable) + p.control(11, 0, 33) + p.segments(0x209B, cpl=0)
    )  # fmt: skip
    head = p.prolog() + p.os_id(0x111) + p.partition_vtl(0) + p.partition_vtl(1) + p.os_id(0x222)
    return p.envelope(head + p.vp_indices([0]) + row + p.epilog())


@pytest.mark.parametrize(("first", "second", "active"), [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1), (0, 0x80, 1)])
def test_active_vtl(tmp_path: Path, first: int, second: int, active: int) -> None:
    """A control page with VtlIsRunnable makes the current VTL active; of several the last (6.7)."""
    with opened(tmp_path, two_vtls(first_runnable=first, second_runnable=second), strict=True) as state:
        vp = state.processors[0]
        assert (vp.enabled_vtls, vp.active_vtl) == ((0, 1), active)
        assert vp.registers.cr0 == (11 if active else 1)


def test_views_of_other_vtls_and_what_they_share(tmp_path: Path) -> None:
    with opened(tmp_path, two_vtls(), strict=True) as state:
        vp = state.processors[0]
        high = vp.vtl(1).registers
        assert (high.cr0, high.cr3) == (11, 33)
        assert high.rax == 1, "general registers are shared"
        assert high.dr0 == 1
        assert "rip" not in high, "private: VTL1 did not save its own"
        assert "rsp" not in high
        assert "rflags" not in high
        assert "dr7" not in high
        assert vp.vtl(0).registers.cr2 == 22
        assert high.cr2 == 0, "its own chunk holds it"
        assert "cs" not in vp.vtl(0).registers
        with pytest.raises(VtlNotEnabledError) as caught:
            vp.vtl(2)
        assert caught.value.hresult == 0xC0370509
        assert state.enabled_vtls == (0, 1)
        assert (state.guest_os(0).raw, state.guest_os(1).raw) == (0x111, 0x222)
        with pytest.raises(VtlNotEnabledError):
            state.guest_os(2)


def test_a_processor_with_vtl2_alone(tmp_path: Path) -> None:
    row = p.vp(0) + p.vp_vtl(2) + p.general(7)
    with opened(tmp_path, p.envelope(p.prolog() + p.partition_vtl(2) + p.vp_indices([0]) + row + p.epilog())) as state:
        vp = state.processors[0]
        assert (vp.enabled_vtls, vp.active_vtl, vp.registers.rax) == ((2,), 2, 7)
        assert state.findings == ()


def test_sparse_processors(tmp_path: Path) -> None:
    """Trap 9: the id counts from 0, the index is the hypervisor's number."""
    row = b"".join(p.vp(index) + p.general(index) for index in (200, 3, 70))
    with opened(tmp_path, p.envelope(p.prolog() + p.vp_indices([3, 70, 200]) + row + p.epilog()), strict=True) as state:
        assert [(vp.id, vp.index, vp.registers.rax) for vp in state.processors] == [
            (0, 3, 3),
            (1, 70, 70),
            (2, 200, 200),
        ]


def test_items_of_real_blobs_are_stepped_over(tmp_path: Path) -> None:
    items = p.item(b"sreV", struct.pack("<I", 0x100)) + p.item(b"mSvH", p.prolog(summary=1))
    stream = p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(9) + p.epilog()
    last = struct.pack("<4s4sII", b"METI", b"tSvH", 16, len(stream))
    blob = p.envelope(stream, items=items, last_item=last) + bytes(32)
    with opened(tmp_path, blob, strict=True) as state:
        assert state.processors[0].registers.rax == 9


def test_unknown_chunks_are_kept_and_listed(tmp_path: Path) -> None:
    row = p.vp_indices([0]) + p.vp(0) + p.chunk(0x3DEADBEE, b"abc") + p.general(1)
    blob = p.envelope(p.prolog() + p.chunk(0x2BADBAD0, b"xy") + row + p.epilog())
    with opened(tmp_path, blob, strict=True) as state:
        unknown = [(item.id, item.data, item.vp) for item in state.chunks if item.name == "unknown"]
        assert unknown == [(0x2BADBAD0, b"xy", None), (0x3DEADBEE, b"abc", 0)]
        assert [item.severity for item in state.findings] == [Severity.NOTE, Severity.NOTE]
        assert "0x2badbad0" in messages(state)[0]
        assert blob[state.chunks[1].offset : state.chunks[1].offset + 4] == struct.pack("<I", 0x2BADBAD0)
        assert state.processors[0].registers.rax == 1, "the chunk of odd length did not disturb what follows"


def test_the_stream_ends_at_epilog(tmp_path: Path) -> None:
    blob = p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(1) + p.epilog() + b"garbage behind it")
    with opened(tmp_path, blob, strict=True) as state:
        assert state.findings == ()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (p.vp_indices([0]) + p.vp(0) + p.general(1), "without Epilog"),
        (p.vp_indices([0]) + p.vp(0) + p.general(1) + struct.pack("<II8x", 0x30008000, 1 << 31), "leaves the blob"),
        (p.vp_indices([0, 1]) + p.vp(0) + p.general(1) + p.epilog(), "disagree"),
        (p.vp_indices([5]) + p.vp(0) + p.general(1) + p.epilog(), "disagree"),
        (p.vp_indices([0]) + p.vp(0) + p.general(1) + p.vp(0) + p.epilog(), "second row"),
        (p.vp_indices([0]) + p.vp(0) + p.general(1) + p.general(2) + p.epilog(), "second chunk"),
        (p.vp_indices([0]) + p.vp(0) + p.general(1) + p.chunk(0) + p.epilog(), "a second Prolog"),
        (p.vp_indices([0]) + p.general(9) + p.vp(0) + p.general(1) + p.epilog(), "before any processor"),
        (p.vp_indices([0]) + p.vp(0) + p.general(1) + p.chunk(0x30007000, bytes(47)) + p.epilog(), "too short"),
        (p.vp_indices([0]) + p.vp(0) + p.general(1) + p.chunk(0x30018000, b"") + p.epilog(), "too short"),
        (p.chunk(0x20000000, struct.pack("<4I", 1, 99, 0, 0)) + p.vp_indices([0]) + p.vp(0) + p.general(1) + p.epilog(),
         "more CPUID leaves"),
    ],
)  # fmt: skip
def test_damage_is_a_finding_and_the_rest_is_read(tmp_path: Path, stream: bytes, expected: str) -> None:
    blob = p.envelope(p.prolog() + stream)
    with opened(tmp_path, blob) as state:
        assert any(expected in text for text in messages(state)), messages(state)
        assert any(item.severity is Severity.DAMAGE for item in state.findings)
        assert state.processors[0].registers.rax == 1
        assert "cr0" not in state.processors[0].registers
    with pytest.raises(CorruptFileError):
        opened(tmp_path, blob, strict=True)


def test_a_longer_chunk_is_read_as_far_as_known(tmp_path: Path) -> None:
    longer = p.chunk(0x30007000, struct.pack("<6Q", 1, 2, 3, 4, 8, 5) + b"new fields")
    with opened(
        tmp_path, p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(1) + longer + p.epilog()), strict=True
    ) as state:
        assert state.processors[0].registers.cr3 == 3
        assert [item.severity for item in state.findings] == [Severity.NOTE]


@pytest.mark.parametrize(
    "blob",
    [
        bytes(range(256)) * 64,
        b"\0" * 5000,
        b"short",
        struct.pack("<QQQ", 24, 1 << 40, 1 << 40) + bytes(5000),
        p.envelope(b"\xaa" * 5000),
        p.envelope(p.chunk(0, bytes(100)) + p.epilog()),
    ],
)
def test_encrypted_or_damaged_as_a_whole(tmp_path: Path, blob: bytes) -> None:
    with pytest.raises(EncryptedStateError, match="encrypted or damaged") as caught:
        opened(tmp_path, blob)
    assert caught.value.hresult == 0x80070570
    assert caught.value.offset is not None


def test_no_processor(tmp_path: Path) -> None:
    with pytest.raises(NoVirtualProcessorError) as caught:
        opened(tmp_path, p.envelope(p.prolog() + p.epilog()))
    assert caught.value.hresult == 0xC0370502


def test_nested_virtualization_is_told(tmp_path: Path) -> None:
    row = p.vp_indices([0]) + p.vp(0) + p.general(1)
    for number, nested in ((0x30021000, True), (0x30023000, True), (0x30003000, False)):
        with opened(tmp_path, p.envelope(p.prolog() + row + p.chunk(number, bytes(32)) + p.epilog())) as state:
            assert state.nested is nested


def test_cpuid(tmp_path: Path) -> None:
    brand = b"A fine processor".ljust(48, b"\0")
    leaves = [(0, 0, 1, *struct.unpack("<3I", b"GenuntelineI")), (1, 0, 0x106A5, 0, 0, 0)]
    leaves += [(0x80000002 + n, 0, *struct.unpack_from("<4I", brand, 16 * n)) for n in range(3)]
    data = struct.pack("<4I", 1, len(leaves), 1, 0x80000004) + b"".join(struct.pack("<6I", *leaf) for leaf in leaves)
    chunk = p.chunk(0x20000000, data.ljust(1552, b"\0"))
    blob = p.envelope(p.prolog() + chunk + p.vp_indices([0]) + p.vp(0) + p.general(1) + p.epilog())
    with opened(tmp_path, blob, strict=True) as state:
        assert (state.cpuid.vendor, state.cpuid.brand, state.cpuid.signature) == (
            "GenuineIntel",
            "A fine processor",
            0x106A5,
        )
        assert state.cpuid[1, 0].eax == 0x106A5
        assert len(state.cpuid) == 5


@given(st.data())
@settings(max_examples=150)
def test_any_damage_to_the_blob(tmp_path: Path, data: st.DataObject) -> None:
    blob = bytearray(two_vtls())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(blob) - 1) | st.integers(0, 60) | st.integers(4100, 4400))
        blob[at % len(blob)] = data.draw(st.integers(0, 255))
    blob = blob[: data.draw(st.integers(0, len(blob)))] if data.draw(st.booleans()) else blob
    try:
        with opened(tmp_path, bytes(blob)) as state:
            for vp in state.processors:
                dict(vp.registers)
                for vtl in vp.enabled_vtls:
                    dict(vp.vtl(vtl).registers)
    except VmSavedStateError:
        pass
