"""The real .vmrs and the real pair: every value Microsoft's own DLL is known to answer, and every register.

Sources: API specification section 12, format specification 6.9 and 8.4, the README of the samples.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmsavedstate
from support.pending import made_pending
from support.samples import Samples
from vmsavedstate import PageNotMapped, SavedState
from vmsavedstate.datatypes import PagingMode, VirtualProcessorArch
from vmsavedstate.errors import GuestMemoryError
from vmsavedstate.findings import Severity

pytestmark = pytest.mark.real
PAGES = 64_512


@pytest.fixture(params=["no-os-252mib.vmrs", "no-os-252mib.bin", "no-os-252mib.vsv"])
def state(request: pytest.FixtureRequest, samples: Samples) -> Iterator[SavedState]:
    if not request.param.endswith(".vmrs"):
        samples("no-os-252mib.bin"), samples("no-os-252mib.vsv")
    with vmsavedstate.open(samples(request.param), strict=True) as opened:
        yield opened


def test_no_finding(state: SavedState) -> None:
    assert state.findings == ()
    state.check_memory()
    assert state.findings == ()


def test_processors(state: SavedState) -> None:
    assert [(vp.id, vp.index) for vp in state.processors] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    for vp in state.processors:
        assert vp.architecture is VirtualProcessorArch.X86
        assert vp.paging_mode is PagingMode.NON_PAGED, "what the processor does; the provider says Paging_32Bit"
        assert vp.paging_levels == 0
        assert (vp.cpl, vp.active_vtl, vp.enabled_vtls) == (0, 0, (0,))
    assert state.enabled_vtls == (0,)


def test_registers_of_the_table(state: SavedState) -> None:
    r = state.processors[0].registers
    assert (r.rax, r.rcx, r.rdx, r.rbx, r.rsp) == (0x19, 4, 2, 0xFBF001E, 0x7BE0)
    assert (r.rsi, r.rdi, r.rip, r.rflags, r.cr0) == (0x4FFFF, 0x90099, 0x5BA9, 0x10046, 0x10)
    for vp in state.processors[1:]:
        r = vp.registers
        assert (r.rax, r.rcx, r.rdx, r.rbx, r.rsp) == (0xFAFA, 0, 0x106A5, 0xFEE00000, 0x1000)
        assert (r.rip, r.rflags, r.cr0) == (0x7283, 0x10047, 0x60000010)
    for vp in state.processors:
        r = vp.registers
        assert (r.cr2, r.cr3, r.cr4, r.cr8, r.efer, r.dr6, r.dr7) == (0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400)
        assert (r.cs.selector, r.cs.base, r.cs.limit) == (0xF000, 0xF0000, 0xFFFF)
        assert (r.fpu.control, r.fpu.mxcsr, r.mxcsr) == (0x37F, 0x1F80, 0x1F80)
        assert (r.gdtr.base, r.gdtr.limit, r.idtr.base, r.idtr.limit) == (0xF13F0, 0x20, 0, 0xFFFF)
        assert r.apic_base == (0xFEE00900 if vp.id == 0 else 0xFEE00800)
        assert (r.pat, r.mtrr_cap, r.mtrr_def_type) == (0x0007040600070406, 0x508, 0xC00)


def test_memory_map(state: SavedState) -> None:
    memory = state.memory
    assert memory.page_size == 4096
    assert [(item.start_page, item.page_count) for item in memory.chunks] == [(0, PAGES)]
    assert memory.size == 264_241_152
    assert memory.raw_offset(0xC0FFE) == 0xC0FFE
    with pytest.raises(GuestMemoryError):
        memory.raw_offset(264_241_152)


def test_known_bytes(state: SavedState) -> None:
    assert struct.unpack("<3I", state.memory.read(0xC0FFE, 12)) == (75_826_887, 1_235_222_542, 3_439_375_364)
    assert struct.unpack("<I", state.memory.read(0, 4)) == (0xF000EEF3,)


def test_raw_stream_in_steps(state: SavedState) -> None:
    """252 reads of 1 MiB, then nothing; their SHA-256 begins as the samples' README says."""
    digest, sizes, offset = hashlib.sha256(), [], 0
    while piece := state.memory.read_raw(offset, 1 << 20):
        digest.update(piece)
        sizes.append(len(piece))
        offset += len(piece)
    assert sizes == [1 << 20] * 252
    assert digest.hexdigest()[:16] == ("f666112f8813e4d3" if state.format == "vmrs" else "7d13f7dd4f797232")


def test_processor_and_guest(state: SavedState) -> None:
    assert state.cpuid.vendor == "GenuineIntel"
    assert state.cpuid.brand == "Intel(R) Xeon(R) CPU W3550 @ 3.07GHz"
    assert state.cpuid.signature == 0x106A5
    assert len(state.cpuid) == 23
    assert state.cpuid[0x80000008, 0].eax == 0x3024
    assert state.guest_os().raw == 0
    assert state.vm_version == (0x0900 if state.format == "vmrs" else 0x0500)
    assert state.processor_vendor.name == "INTEL"


def test_screen(state: SavedState) -> None:
    """BIOS text: 2,322 pixels of 0x52AA on black (3.1)."""
    screen = state.screen
    assert screen is not None
    assert (screen.width, screen.height) == (640, 400)
    colours = [screen.rgb[at : at + 3] for at in range(0, len(screen.rgb), 3)]
    assert colours.count(bytes((0x52, 0x55, 0x52))) == 2322
    assert colours.count(b"\0\0\0") == 640 * 400 - 2322


def test_every_chunk_is_known(state: SavedState) -> None:
    assert all(item.name != "unknown" for item in state.chunks)
    assert (state.chunks[0].name, state.chunks[-1].name) == ("prolog", "epilog")


def test_batch_of_all_pages_equals_the_raw_stream(state: SavedState) -> None:
    digest = hashlib.sha256()
    for first in range(0, PAGES, 2048):
        pages, mask = state.memory.pages(range(first, min(first + 2048, PAGES)))
        assert mask.all()
        digest.update(pages.tobytes())
    assert digest.hexdigest()[:16] == ("f666112f8813e4d3" if state.format == "vmrs" else "7d13f7dd4f797232")


def test_five_pages_differ_between_the_two(samples: Samples) -> None:
    samples("no-os-252mib.vsv")
    with (
        vmsavedstate.open(samples("no-os-252mib.vmrs")) as one,
        vmsavedstate.open(samples("no-os-252mib.bin")) as other,
    ):
        differing = 0
        for first in range(0, PAGES, 4096):
            numbers = range(first, min(first + 4096, PAGES))
            differing += int((one.memory.pages(numbers)[0] != other.memory.pages(numbers)[0]).any(axis=1).sum())
    assert differing == 5


def test_its_last_commit_made_pending_again(samples: Samples, tmp_path: Path) -> None:
    """Count set, destinations spoilt: the overlay alone makes the content whole again."""
    original, pending = samples("no-os-252mib.vmrs"), tmp_path / "pending.vmrs"
    made_pending(original, pending, spoil=True)
    before = hashlib.sha256(pending.read_bytes()).digest()
    with vmsavedstate.open(original) as one, vmsavedstate.open(pending) as other:
        assert [item.severity for item in other.findings] == [Severity.NOTE]
        assert "pending" in other.findings[0].message
        assert one.store is not None
        assert other.store is not None
        for first, second in zip(one.store.walk(), other.store.walk(), strict=True):
            assert (first.path, first.type, first.value) == (second.path, second.type, second.value)
        assert [dict(vp.registers) for vp in one.processors] == [dict(vp.registers) for vp in other.processors]
        digest = hashlib.sha256()
        for number in range(252):
            digest.update(other.memory.read_raw(number << 20, 1 << 20))
        assert digest.hexdigest()[:16] == "f666112f8813e4d3"
    assert hashlib.sha256(pending.read_bytes()).digest() == before, "the evidence is as it was"


def test_one_wrong_checksum_and_none_of_it_is_applied(samples: Samples, tmp_path: Path) -> None:
    pending = tmp_path / "pending.vmrs"
    made_pending(samples("no-os-252mib.vmrs"), pending, spoil=False, break_one=True)
    with vmsavedstate.open(pending) as state:
        (finding,) = state.findings
        assert finding.severity is Severity.DAMAGE
        assert "nothing of it is applied" in finding.message
        assert "entry 5" in finding.message
        assert state.processors[0].registers.rax == 0x19


def test_translation(state: SavedState) -> None:
    """With CR0.PG = 0 an address is its own translation; Microsoft's provider walks the tables of CR3 = 0 all the same."""
    for vp in state.processors:
        assert vp.translate(0xC0FFE) == 0xC0FFE
        assert vp.read(0xC0FFE, 12) == state.memory.read(0xC0FFE, 12)
        provider = vp.address_space(ignore_pg=True)
        assert provider.paging_mode is PagingMode.X86_32BIT
        with pytest.raises(PageNotMapped, match=r"PTE at 0xf000e300 is outside of the saved memory") as caught:
            provider.translate(0xC0FFE)
        assert caught.value.level == "PTE"
        assert provider.walk(0xC0FFE).steps[0].entry == 0xF000EEF3
    text = b"Reboot and Select proper Boot device"
    found = list(state.memory.find(text))
    assert found and all(state.memory.read(at, len(text)) == text for at in found)
    assert list(state.processors[0].find(text)) == found
