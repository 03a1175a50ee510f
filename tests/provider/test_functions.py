"""What the functions do, through both doors: the same answers, the same codes (API specification, sections 4, 6, 11, 13)."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from provider.doors import SYMBOL_ARGUMENTS, Door, Failure
from support import partition as p
from support.states import damaged_state, legacy_pair, numbered_pages, write_state
from vmsavedstate import SavedStateWriter, SegmentRegister, TableRegister, codec, provider
from vmsavedstate.datatypes import RegisterId, RegisterIdX64, RegisterIdX86, VirtualProcessorRegisterValue
from vmsavedstate.errors import InvalidArgumentError
from vmsavedstate.files.overlay import Patch
from vmsavedstate.formats.hyperv.ram_blocks import RamBlocks
from vmsavedstate.provider import instance as instance_module
from vmsavedstate.provider.instance import HANDLES
from vmsavedstate.registers.values import RegisterValue

E_FAIL = 0x80004005
E_INVALIDARG, FILE_CORRUPT, INVALID_VP_STATE, VTL_NOT_ENABLED = 0x80070057, 0x80070570, 0xC0370506, 0xC0370509
KERNEL, TEXT = 0xFFFFFFFF80100700, b"VMSAVEDSTATE SAMPLE GUEST"
MIB = 1 << 20


@contextmanager
def fails(hresult: int) -> Iterator[None]:
    with pytest.raises(Failure) as caught:
        yield
    assert caught.value.hresult == hresult, f"{caught.value.hresult:#x}, not {hresult:#x}"


def test_processors(door: Door, guest: int) -> None:
    assert door.call("GetVpCount", guest) == 2
    assert [door.call("GetArchitecture", guest, vp) for vp in (0, 1)] == [2, 2]
    assert [door.call("GetPagingMode", guest, vp) for vp in (0, 1)] == [4, 4]
    assert [door.call("InKernelSpace", guest, vp) for vp in (0, 1)] == [1, 0]


@pytest.mark.parametrize("vp", [2, 0xFFFFFFFF])
def test_processor_numbers_out_of_range(door: Door, guest: int, vp: int) -> None:
    for name in ("GetArchitecture", "GetPagingMode", "InKernelSpace"):
        with fails(E_INVALIDARG):
            door.call(name, guest, vp)
    with fails(E_INVALIDARG):
        door.call("ForceArchitecture", guest, vp, 1)
    with fails(E_INVALIDARG):
        door.translate(guest, vp, 0)
    with fails(E_INVALIDARG):
        door.register(guest, vp, 0)


def test_every_register_of_2021(door_2021: Door, sample_guest: Path) -> None:
    handle = door_2021.load(sample_guest)
    with vmsavedstate.open(sample_guest) as state:
        for vp in state.processors:
            r = vp.registers
            for member in RegisterId:
                if not 0 <= member < RegisterId.X64_MAX:
                    with fails(E_INVALIDARG):
                        door_2021.register(handle, vp.id, member)
                    continue
                value = VirtualProcessorRegisterValue.from_buffer_copy(door_2021.register(handle, vp.id, member))
                name = member.name[4:].lower().replace("fp_mmx", "fpmmx")
                if name == "fp_control_status":
                    fp = value.X64.FpControlStatus
                    expected = (r.fpu.control, r.fpu.status, r.fpu.tag, r.fpu.opcode, r.fpu.ip)
                    assert (fp.FpControl, fp.FpStatus, fp.FpTag, fp.LastFpOp, fp.LastFpRip) == expected
                elif name == "xmm_control_status":
                    xmm = value.X64.XmmControlStatus
                    assert (xmm.LastFpRdp, xmm.XmmStatusControl, xmm.XmmStatusControlMask) == (
                        r.fpu.dp, r.fpu.mxcsr, r.fpu.mxcsr_mask,
                    )  # fmt: skip
                elif isinstance(r[name], SegmentRegister):
                    segment = value.X64.Segment
                    assert (segment.Base, segment.Limit, segment.Selector, segment.Attributes) == r[name]
                elif isinstance(r[name], TableRegister):
                    assert (value.X64.Table.Base, value.X64.Table.Limit) == r[name]
                else:
                    assert value.Reg128.Low64 | value.Reg128.High64 << 64 == r[name]
    for number in (159, 0x7FFFFFFF, 0xFFFFFFFF):
        with fails(E_INVALIDARG):
            door_2021.register(handle, 0, number)
    door_2021.call("ReleaseSavedStateFiles", handle)


def _expected_2018(r: vmsavedstate.Registers, name: str) -> int:
    """The table of section 4.2 in words, independent of the code that implements it."""
    low = (1 << 64) - 1
    special = {
        "eip": r.rip, "eflags": r.rflags, "base_gs": r.gs.base, "base_fs": r.fs.base, "tr": r.tr.selector,
        "ldtr": r.ldtr.selector, "base_idtr": r.idtr.base, "limit_idtr": r.idtr.limit, "base_gdtr": r.gdtr.base,
        "limit_gdtr": r.gdtr.limit, "high_xmm_control_status": r.fpu.mxcsr | r.fpu.mxcsr_mask << 32,
        "low_xmm_control_status": r.fpu.dp, "high_fp_control_status": r.fpu.ip,
        "low_fp_control_status": int.from_bytes(
            struct.pack("<HHBBH", r.fpu.control, r.fpu.status, r.fpu.tag, 0, r.fpu.opcode), "little"),
    }  # fmt: skip
    if name in special:
        return special[name]
    if name.startswith("seg_"):
        return int(getattr(r, name[4:]).selector)
    if name.startswith(("low_xmm", "high_xmm")):
        value = r.integer(name.partition("_")[2])
        return value & low if name.startswith("low") else value >> 64
    return r.integer(f"r{name[1:]}" if name in ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi") else name)


@pytest.mark.parametrize(("architecture", "numbers"), [(1, RegisterIdX86), (2, RegisterIdX64)])
def test_every_register_of_2018(
    door_2018: Door, sample_guest: Path, architecture: int, numbers: type[RegisterIdX86] | type[RegisterIdX64]
) -> None:
    """The table is chosen by the caller's architecture; values are as stored, whatever the processor ran."""
    handle = door_2018.load(sample_guest)
    with vmsavedstate.open(sample_guest) as state:
        for vp in state.processors:
            for member in numbers:
                if member.name == "COUNT":
                    with fails(E_INVALIDARG):
                        door_2018.register(handle, vp.id, member, architecture)
                    continue
                value = door_2018.register(handle, vp.id, member, architecture)
                assert int.from_bytes(value, "little") == _expected_2018(vp.registers, member.name.lower()), member
    for number in (81, 0xFFFFFFFF):
        with fails(E_INVALIDARG):
            door_2018.register(handle, 0, number, architecture)
    for other in (0, 3, 7):
        with fails(E_INVALIDARG):
            door_2018.register(handle, 0, 0, other)
    door_2018.call("ReleaseSavedStateFiles", handle)


def test_handles(door: Door, sample_guest: Path) -> None:
    one, other = door.load(sample_guest), door.load(sample_guest)
    assert one != other
    door.call("ReleaseSavedStateFiles", one)
    for bad in (one, 0, 1, 0x7FFFFFFF, 0xDEADBEEFDEADBEEF):
        with fails(E_INVALIDARG):
            door.call("GetVpCount", bad)
        with fails(E_INVALIDARG):
            door.call("ReleaseSavedStateFiles", bad)
        with fails(E_INVALIDARG):
            door.read(bad, 0, 16)
    assert door.call("GetVpCount", other) == 2, "another instance of the same file stays as it is"
    door.call("ReleaseSavedStateFiles", other)


def test_reads_end_at_holes(door: Door, guest: int, sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        memory = state.memory
        assert door.read(guest, 0x100700, len(TEXT)) == TEXT
        assert door.read(guest, 0x100FFA, 12) == memory.read(0x100FFA, 12), "12 bytes across a page at an odd address"
        assert door.read(guest, 0x9FFF0, 100) == memory.read(0x9FFF0, 16), "up to the hole"
        assert door.read(guest, 0xA0000, 100) == b"", "in the hole"
        assert door.read(guest, 0xFFFFF0, 100) == memory.read(0xFFFFF0, 16), "up to the end"
        assert door.read(guest, 0x1000000, 100) == b""
        assert door.read(guest, (1 << 64) - 1, 100) == b"", "past the last address there is"
        assert door.read(guest, 0x100000, 0) == b""
        assert door.read(guest, 0, 16 * MIB) == memory.read(0, 0xA0000)
        assert door.read(guest, 0x100000, 16 * MIB) == memory.read(0x100000, 15 * MIB)


def test_raw_stream(door: Door, guest: int, sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        size = state.memory.size
        assert door.call("GetGuestRawSavedMemorySize", guest) == size
        assert door.chunks(guest) == (4096, [(0, 160), (256, 3840)])
        assert door.read_raw(guest, 0x9FFF0, 32) == state.memory.read_raw(0x9FFF0, 32), "the hole is not in the stream"
        assert door.read_raw(guest, size - 5, 100) == state.memory.read_raw(size - 5, 5)
        assert door.read_raw(guest, size, 100) == b""
        assert door.read_raw(guest, 0, 0) == b""
        for offset in (size + 1, 1 << 63, (1 << 64) - 1):
            with fails(E_INVALIDARG):
                door.read_raw(guest, offset, 100)
        name = "GuestPhysicalAddressToRawSavedMemoryOffset"
        assert door.call(name, guest, 0x100001) == 0xA0001
        for address in (0xA0000, 0x1000000, (1 << 64) - 1):
            with fails(E_INVALIDARG):
                door.call(name, guest, address)


def test_translation(door: Door, guest: int) -> None:
    assert door.translate(guest, 0, KERNEL) == 0x100700
    assert door.translate(guest, 1, 0x400010) == 0x140010
    cases = {  # address: 2018 code by the entry that ended the walk, and the size of what it spans
        0x402000: (0xC0370508, 0x1000),
        0x8000000: (0xC0370507, None),
        0x0000800000000000: (0xC0370505, None),
    }
    for address, (code, span) in cases.items():
        with pytest.raises(Failure) as caught:
            door.translate(guest, 0, address)
        assert caught.value.hresult == (code if door.generation == 2018 else 0xC0370505)
        if door.generation == 2021 and span is not None:
            assert caught.value.unmapped == span - address % span


def spans_state(path: Path, kind: str) -> Path:
    """Tables of one entry each, so that every level has something that maps nothing beside it."""
    memory = bytearray(MIB)
    big = kind == "32bit"
    size = 4 if big else 8
    chain = [0x1000, 0x2000] if big else [0x1000, 0x2000, 0x3000, 0x4000]
    for at, target in zip(chain, [*chain[1:], 0x5000], strict=True):
        memory[at : at + size] = (target | 7).to_bytes(size, "little")
    registers: dict[str, RegisterValue] = {"rip": 0, "cr0": 1 << 31, "cr3": 0x1000}
    registers |= {"cr4": 0x10, "efer": 0} if big else {"cr4": 0x20, "efer": 0x500}
    with SavedStateWriter(path) as writer:
        writer.add_processor(0, registers)
        writer.add_memory(0, MIB, lambda offset, length: bytes(memory[offset : offset + length]))
    return path


SPANS = [  # tables, address, 2018 code, end of what is not mapped
    ("long", 0x1234, 0xC0370508, 0x2000),
    ("long", 0x1FFFFF, 0xC0370508, 0x200000),
    ("long", 0x234567, 0xC0370507, 0x400000),
    ("long", 0x40000001, 0xC0370506, 0x80000000),
    ("long", 0x8000000000, 0xC0370505, 0x10000000000),
    ("long", 0xFFFF800000000005, 0xC0370505, 0xFFFF808000000000),
    ("long", 0x800000000007, 0xC0370505, 0x800000000007 + (1 << 39)),  # no entry could express it
    ("32bit", 0x1234, 0xC0370508, 0x2000),
    ("32bit", 0x412345, 0xC0370507, 0x800000),
    ("32bit", 0x100000000, 0xC0370505, 0x100000000 + (1 << 39)),
]


@pytest.mark.parametrize(("kind", "address", "code", "end"), SPANS)
def test_what_is_not_mapped(door: Door, tmp_path: Path, kind: str, address: int, code: int, end: int) -> None:
    """The code tells the level, the size reaches to the end of the entry's span: 4 KiB, 2 or 4 MiB, 1 GiB, 512 GiB."""
    handle = door.load(spans_state(tmp_path / "spans.vmrs", kind))
    assert door.translate(handle, 0, 0xFFF) == 0x5FFF
    with pytest.raises(Failure) as caught:
        door.translate(handle, 0, address)
    assert caught.value.hresult == (code if door.generation == 2018 else 0xC0370505)
    if door.generation == 2021:
        assert caught.value.unmapped == end - address
    door.call("ReleaseSavedStateFiles", handle)


def test_forced_modes(door: Door, guest: int) -> None:
    door.call("ForcePagingMode", guest, 0, 1)
    assert door.call("GetPagingMode", guest, 0) == 1
    assert door.translate(guest, 0, 0x12345) == 0x12345, "not paged: an address is its own translation"
    assert door.call("GetPagingMode", guest, 1) == 4, "the other processor is as it was"
    door.call("ForcePagingMode", guest, 0, 0)
    assert door.call("GetPagingMode", guest, 0) == 4
    assert door.translate(guest, 0, KERNEL) == 0x100700
    door.call("ForceArchitecture", guest, 0, 1)
    assert door.call("GetArchitecture", guest, 0) == 1
    assert door.translate(guest, 0, KERNEL) == 0x100700, "the mode is not forced with it"
    door.call("ForceArchitecture", guest, 0, 0)
    assert door.call("GetArchitecture", guest, 0) == 2
    highest = 2 if door.generation == 2018 else 3
    for value in (highest + 1, 7, 0xFFFFFFFF, 0x80000000):
        with fails(E_INVALIDARG):
            door.call("ForceArchitecture", guest, 0, value)
    for value in ((5 if door.generation == 2018 else 6), 0xFFFFFFFF):
        with fails(E_INVALIDARG):
            door.call("ForcePagingMode", guest, 0, value)
    assert door.call("GetArchitecture", guest, 0) == 2


def test_a_fix_shows_in_reads_but_not_in_raw_ones(door: Door, guest: int, sample_guest: Path) -> None:
    before = sample_guest.read_bytes()
    door.fix(guest, 0, KERNEL, b"FIXED")
    assert door.read(guest, 0x100700, len(TEXT)) == b"FIXED" + TEXT[5:]
    assert door.read_raw(guest, 0xA0700, len(TEXT)) == TEXT
    door.fix(guest, 0, KERNEL + 2, b"__")
    assert door.read(guest, 0x100700, 5) == b"FI__D", "a later fix lies over an earlier one"
    door.fix(guest, 0, KERNEL & ~0xFFF | 0xFFD, b"across")
    assert door.read(guest, 0x100FFD, 6) == b"across"
    other = door.load(sample_guest)
    assert door.read(other, 0x100700, 5) == TEXT[:5], "another handle does not see it"
    door.call("ReleaseSavedStateFiles", other)
    assert sample_guest.read_bytes() == before


def test_a_fix_of_a_page_table_changes_translation(door: Door, guest: int) -> None:
    """Reads through the handle show the fix, those of the tables too: 0x402000 gets a page. VP 1 makes it, VP 0 sees it."""
    with pytest.raises(Failure):
        door.translate(guest, 0, 0x402000)
    door.call("ForcePagingMode", guest, 1, 1)
    door.fix(guest, 1, 0x6010, (0x140000 | 0x27).to_bytes(8, "little"))
    assert door.translate(guest, 0, 0x402004) == 0x140004


def test_a_fix_is_all_or_nothing(door: Door, guest: int) -> None:
    with fails(0xC0370508 if door.generation == 2018 else 0xC0370505):
        door.fix(guest, 0, 0x401FFE, b"four")  # its second half is not mapped
    assert door.read(guest, 0x141FFE, 2) != b"fo"
    for gva, data in ((KERNEL, b""), ((1 << 64) - 2, b"four")):
        with fails(E_INVALIDARG):
            door.fix(guest, 0, gva, data)


def test_cache_limit(door: Door, guest: int, sample_guest: Path) -> None:
    assert door.call("GetMemoryBlockCacheLimit", guest) == 0
    with vmsavedstate.open(sample_guest) as state:
        for limit in (1, 3, 1000, (1 << 64) - 1, 0):
            door.call("SetMemoryBlockCacheLimit", guest, limit)
            assert door.call("GetMemoryBlockCacheLimit", guest) == limit
            for address, size in ((0x100700, 64), (0xFFFF0, 64), (0x1FFFF0, 64), (0x100000, 5 * MIB), (0x9FFFF, 1)):
                there = state.memory.read(address, size, fill=0)
                assert door.read(guest, address, size) == (b"" if address == 0xFFFF0 else there)
            assert door.translate(guest, 0, KERNEL) == 0x100700


def test_the_cache_keeps_blocks(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit a block is decoded once, without one page by page; the limit goes with the handle, and 0 drops all."""
    asked: list[int] = []
    real = RamBlocks.read

    def counted(self: RamBlocks, position: int, size: int) -> object:
        asked.append(size)
        return real(self, position, size)

    monkeypatch.setattr(RamBlocks, "read", counted)
    packed = codec.active().encode_block(numbered_pages(0))
    handle = door.load(write_state(tmp_path / "packed.vmrs", blocks={0: packed}))

    def reads() -> list[int]:
        asked.clear()
        for page in (5, 9, 5):
            assert door.read(handle, page * 4096, 64) == numbered_pages(page, 1)[:64]
        return list(asked)

    assert reads() == [64, 64, 64]
    door.call("SetMemoryBlockCacheLimit", handle, 1)
    assert reads() == [MIB]
    assert reads() == []
    door.call("SetMemoryBlockCacheLimit", handle, 0)
    assert reads() == [64, 64, 64]
    door.call("ForcePagingMode", handle, 0, 1)
    door.call("SetMemoryBlockCacheLimit", handle, 1)
    door.fix(handle, 0, 5 * 4096, b"!")
    assert door.read(handle, 5 * 4096, 1) == b"!", "a fix lies over what is kept"
    door.call("ReleaseSavedStateFiles", handle)


@pytest.mark.parametrize("limit", [-1, 1 << 64, 1.5, None, "x"])
def test_limits_that_are_none(sample_guest: Path, limit: Any) -> None:
    handle = provider.LoadSavedStateFile(sample_guest)
    with pytest.raises(InvalidArgumentError):
        provider.SetMemoryBlockCacheLimit(handle, limit)
    assert provider.GetMemoryBlockCacheLimit(handle) == 0
    number: Any = "a" if limit == 1 << 64 else limit
    with pytest.raises(InvalidArgumentError):
        provider.GetArchitecture(handle, number)
    provider.ReleaseSavedStateFiles(handle)


def test_many_fixes_stay_few(door: Door, guest: int) -> None:
    """What was fixed again and again is one piece, and a read does not go through thousands."""
    for number in range(300):
        door.fix(guest, 0, KERNEL + number % 3, bytes([number % 256]) * 2)
    assert len(list(HANDLES.get(guest)._fixes)) <= 4
    assert door.read(guest, 0x100700, 4) == bytes([297 % 256, 298 % 256, 299 % 256, 299 % 256])


def test_a_long_fix_is_copied_once(guest: int, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages it has, in one run of memory or in many: no byte is taken twice on the way."""
    taken: list[int] = []

    def counted(offset: int, data: bytes) -> Patch:
        taken.append(len(data))
        return Patch(offset, data)

    monkeypatch.setattr(instance_module, "Patch", counted)
    door.call("ForcePagingMode", guest, 0, 1)
    data = bytes(range(251)) * 17000  # 4 MiB, a thousand pages in a row
    door.fix(guest, 0, 0x100003, data)
    assert taken == [len(data)]
    assert door.read(guest, 0x100003, len(data)) == data


def test_missing_files_and_files_that_are_none(door: Door, tmp_path: Path, sample_guest: Path) -> None:
    random = tmp_path / "random.vmrs"
    random.write_bytes(bytes(range(256)) * 64)
    empty = tmp_path / "empty.vmrs"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.vmrs"
    cut.write_bytes(sample_guest.read_bytes()[:0x3000])
    cases = {tmp_path / "missing.vmrs": 0x80070002, random: FILE_CORRUPT, empty: FILE_CORRUPT, cut: FILE_CORRUPT}
    for path, code in cases.items():
        with fails(code):
            door.load(path)
    with fails(E_INVALIDARG):
        door.load(sample_guest, sample_guest)  # complete in itself: no pair


def test_pairs(door: Door, tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    handle = door.load(bin_path, vsv_path)
    assert door.call("GetVpCount", handle) == 1
    door.call("ReleaseSavedStateFiles", handle)
    with fails(FILE_CORRUPT):
        door.load(bin_path)  # one file of a pair is no .vmrs, and its companion is not guessed
    with fails(0x80070002):
        door.load(bin_path, tmp_path / "other.vsv")
    with fails(FILE_CORRUPT):
        door.load(bin_path, bin_path)


def test_what_a_state_lacks(door: Door, tmp_path: Path) -> None:
    no_state = tmp_path / "a.vmrs"
    with vmsavedstate.StoreWriter(no_state) as writer:
        writer.set("/configuration/properties/version", "int", 0x0A00)
    cases = [
        (no_state, 0xC0370500),
        (write_state(tmp_path / "b.vmrs", ranges=()), 0xC0370501),
        (write_state(tmp_path / "c.vmrs", blob=p.envelope(p.prolog() + p.epilog())), 0xC0370502),
        (write_state(tmp_path / "d.vmrs", blob=b"\xa5" * 4096), FILE_CORRUPT),  # encrypted, as far as anyone can tell
    ]
    for path, code in cases:
        with fails(code):
            door.load(path)


def test_registers_that_are_not_saved(door: Door, tmp_path: Path) -> None:
    blob = p.envelope(p.prolog() + p.vp_indices([0, 5]) + p.vp(0) + p.general(7) + p.vp(5) + p.general(9) + p.epilog())
    handle = door.load(write_state(tmp_path / "bare.vmrs", blob=blob))
    assert door.call("GetVpCount", handle) == 2
    assert door.register(handle, 1, 0)[:8] == (9).to_bytes(8, "little"), "an id is an index, the numbers are sparse"
    with fails(INVALID_VP_STATE):
        door.register(handle, 0, 56 if door.generation == 2018 else 46)
    for name in ("GetArchitecture", "GetPagingMode", "InKernelSpace"):
        with fails(INVALID_VP_STATE):
            door.call(name, handle, 0)
    with fails(INVALID_VP_STATE if door.generation == 2021 else E_FAIL):  # in 2018 the code means PDPTE_NOT_PRESENT
        door.translate(handle, 0, 0)
    door.call("ReleaseSavedStateFiles", handle)


def test_damage_delivers_what_is_before_it(door: Door, tmp_path: Path) -> None:
    handle = door.load(damaged_state(tmp_path / "damaged.vmrs"))
    assert door.read(handle, MIB - 16, 64) == numbered_pages(0)[-16:]
    assert door.read(handle, 0, 3 * MIB) == numbered_pages(0)
    assert door.read(handle, 2 * MIB, 4096) == numbered_pages(512)[:4096]
    assert door.read_raw(handle, MIB - 16, 64) == numbered_pages(0)[-16:]
    for size in (1, 64, 4096, MIB, 2 * MIB):
        with fails(FILE_CORRUPT):
            door.read(handle, MIB, size)
        with fails(FILE_CORRUPT):
            door.read_raw(handle, MIB, size)
    door.call("SetMemoryBlockCacheLimit", handle, 8)
    assert door.read(handle, 0, 3 * MIB) == numbered_pages(0), "a cache does not hide damage"
    with fails(FILE_CORRUPT):
        door.read(handle, MIB, 16)
    door.call("ReleaseSavedStateFiles", handle)


def test_a_fix_over_damage_can_be_read(door: Door, tmp_path: Path) -> None:
    handle = door.load(damaged_state(tmp_path / "damaged.vmrs"))
    door.call("ForcePagingMode", handle, 0, 1)
    door.fix(handle, 0, MIB, b"\x55" * 4096)
    assert door.read(handle, MIB - 8, 5000) == numbered_pages(0)[-8:] + b"\x55" * 4096
    with fails(FILE_CORRUPT):
        door.read_raw(handle, MIB, 16)
    door.call("ReleaseSavedStateFiles", handle)


def test_applying_a_log_needs_the_file_alone(door: Door, sample_guest: Path, tmp_path: Path) -> None:
    copy = tmp_path / "guest.vmrs"
    shutil.copyfile(sample_guest, copy)
    handle = door.load(copy)
    with fails(0x80070020):
        door.apply_log(copy)
    door.call("ReleaseSavedStateFiles", handle)
    door.apply_log(copy)
    with fails(0x80070002):
        door.apply_log(tmp_path / "missing.vmrs")
    other = tmp_path / "other"
    other.write_bytes(b"no container")
    with fails(FILE_CORRUPT):
        door.apply_log(other)


def vtl_state(path: Path) -> Path:
    """VP 0 in VTL0 and VTL1, VP 1 in VTL0 alone."""
    code = SegmentRegister(0, 0xFFFFFFFF, 0x10, 0xA09B)
    low: dict[str, RegisterValue] = {"rip": 0x1000, "rax": 1, "cs": code, "cr0": 1 << 31, "cr3": 0x1000, "cr4": 0x20}
    low |= {"efer": 0x500, "cpl": 3}
    high: dict[str, RegisterValue] = {**low, "rip": 0x2000, "cr3": 0x2000, "cpl": 0}
    with SavedStateWriter(path, guest_os_ids={0: 0x0001_0400_0A00_0000, 1: 0x0001_0400_0B00_0000}) as writer:
        writer.add_processor(0, vtls={0: low, 1: high})
        writer.add_processor(1, low)
        writer.add_memory(0, MIB, lambda offset, size: _two_tables(offset, size))
    return path


def _two_tables(offset: int, size: int) -> bytes:
    """Two roots that map address 0 to 0x5000 and to 0x6000."""
    memory = bytearray(MIB)
    for root, page in ((0x1000, 0x5000), (0x2000, 0x6000)):
        for place, entry in (
            (root, root + 0x10000),
            (root + 0x10000, root + 0x20000),
            (root + 0x20000, root + 0x30000),
        ):
            memory[place : place + 8] = (entry | 7).to_bytes(8, "little")
        memory[root + 0x30000 : root + 0x30008] = (page | 7).to_bytes(8, "little")
    return bytes(memory[offset : offset + size])


def test_trust_levels(door_2021: Door, tmp_path: Path) -> None:
    door, handle = door_2021, door_2021.load(vtl_state(tmp_path / "vtl.vmrs"))
    assert door.call("GetGuestEnabledVirtualTrustLevels", handle) == 0b11
    assert [door.call("GetEnabledVirtualTrustLevels", handle, vp) for vp in (0, 1)] == [0b11, 0b1]
    assert [door.call("GetActiveVirtualTrustLevel", handle, vp) for vp in (0, 1)] == [0, 0]
    assert door.guest_os(handle, 0) == 0x0001_0400_0A00_0000
    assert door.guest_os(handle, 1) == 0x0001_0400_0B00_0000
    for vtl in (2, 15, 16, 255):
        with fails(VTL_NOT_ENABLED):
            door.guest_os(handle, vtl)
    assert (door.translate(handle, 0, 0), door.call("InKernelSpace", handle, 0)) == (0x5000, 0)
    door.call("ForceActiveVirtualTrustLevel", handle, 0, 1)
    assert door.call("GetActiveVirtualTrustLevel", handle, 0) == 1
    assert door.call("IsActiveVirtualTrustLevelEnabled", handle, 0) == 1
    assert (door.translate(handle, 0, 0), door.call("InKernelSpace", handle, 0)) == (0x6000, 1)
    assert door.register(handle, 0, RegisterId.X64_RIP)[:8] == (0x2000).to_bytes(8, "little")
    assert door.register(handle, 0, RegisterId.X64_RAX)[:8] == (1).to_bytes(8, "little"), "shared between the levels"
    with fails(VTL_NOT_ENABLED):
        door.call("ForceActiveVirtualTrustLevel", handle, 0, 2)
    with fails(VTL_NOT_ENABLED):
        door.call("ForceActiveVirtualTrustLevel", handle, 1, 1)
    assert door.call("GetActiveVirtualTrustLevel", handle, 0) == 1, "unchanged"
    door.call("ForceActiveVirtualTrustLevel", handle, 0, 0)
    assert door.translate(handle, 0, 0) == 0x5000
    door.call("ReleaseSavedStateFiles", handle)


def test_nested_virtualization(door_2021: Door, tmp_path: Path) -> None:
    rows = [p.vp_indices([0, 1]), p.vp(0), p.general(1), p.chunk(0x30021000, bytes(32)), p.vp(1), p.general(2)]
    blob = p.envelope(p.prolog() + b"".join(rows) + p.epilog())
    door, handle = door_2021, door_2021.load(write_state(tmp_path / "nested.vmrs", blob=blob))
    assert door.call("IsNestedVirtualizationEnabled", handle) == 1
    assert door.call("GetNestedVirtualizationMode", handle, 1) == 0
    with fails(0xC0370503):
        door.call("GetNestedVirtualizationMode", handle, 0)
    assert [door.call("ForceNestedHostMode", handle, vp, 0) for vp in (0, 1)] == [0, 0]
    with fails(0xC0370503):
        door.call("ForceNestedHostMode", handle, 0, 1)
    with fails(INVALID_VP_STATE):
        door.call("ForceNestedHostMode", handle, 1, 1)
    door.call("ReleaseSavedStateFiles", handle)
    plain = door.load(write_state(tmp_path / "plain.vmrs"))
    assert door.call("IsNestedVirtualizationEnabled", plain) == 0
    door.call("ReleaseSavedStateFiles", plain)


def arm64_state(path: Path) -> Path:
    registers = {f"x{n}": 0x100 + n for n in range(29)} | {f"q{n}": (n << 64 | 0x900 + n) for n in range(32)}
    registers |= {"fp": 0xF1, "lr": 0xF2, "pc": 0xF3, "cpsr": 0x5, "sp_el0": 0xF4, "sp_el1": 0xF5, "sctlr_el1": 0}
    registers |= {
        "fpsr": 0xE1,
        "fpcr": 0xE2,
        "ttbr0_el1": 0x1000,
        "ttbr1_el1": 0x2000,
        "tcr_el1": 0xE3,
        "vbar_el1": 0xE4,
    }
    with SavedStateWriter(path, architecture="arm64") as writer:
        writer.add_processor(0, registers)
        writer.add_memory(0, MIB, lambda offset, size: bytes(size))
    return path


def test_arm64_in_2021(door_2021: Door, tmp_path: Path) -> None:
    door, path = door_2021, arm64_state(tmp_path / "arm64.vmrs")
    handle = door.load(path)
    assert (door.call("GetArchitecture", handle, 0), door.call("GetPagingMode", handle, 0)) == (3, 5)
    assert door.call("InKernelSpace", handle, 0) == 1
    assert door.translate(handle, 0, 0x1234) == 0x1234, "SCTLR_EL1.M is 0"
    names = {RegisterId.ARM64_X_FP: "fp", RegisterId.ARM64_X_LR: "lr", RegisterId.ARM64_FP_STATUS: "fpsr",
             RegisterId.ARM64_FP_CONTROL: "fpcr"}  # fmt: skip
    with vmsavedstate.open(path) as state:
        r = state.processors[0].registers
        for member in RegisterId:
            if member <= RegisterId.X64_MAX or member == RegisterId.ARM64_MAX:
                with fails(E_INVALIDARG):
                    door.register(handle, 0, member)
                continue
            value = int.from_bytes(door.register(handle, 0, member), "little")
            assert value == r[names.get(member, member.name[6:].lower())], member
    door.call("ReleaseSavedStateFiles", handle)


def test_arm64_in_2018(door_2018: Door, tmp_path: Path) -> None:
    handle = door_2018.load(arm64_state(tmp_path / "arm64.vmrs"))
    for architecture in (0, 1, 2, 3):
        with fails(E_INVALIDARG):
            door_2018.register(handle, 0, 0, architecture)
    assert door_2018.translate(handle, 0, 0x1234) == 0x1234
    door_2018.call("ReleaseSavedStateFiles", handle)


@pytest.mark.parametrize("name", SYMBOL_ARGUMENTS)
def test_symbols_are_refused(door_2021: Door, sample_guest: Path, name: str) -> None:
    """All but two: there is no provider, whose handle would be one, and a callback is kept."""
    door, handle = door_2021, door_2021.load(sample_guest)
    if name == "GetSavedStateSymbolProviderHandle":
        assert door.symbols(name, handle) is None
        assert door.symbols(name, 77) is None
    elif name == "SetSavedStateSymbolProviderDebugInfoCallback":
        assert door.symbols(name, handle) is None
        assert HANDLES.get(handle).symbol_callback is not None
    else:
        with fails(0x80004001):
            door.symbols(name, handle)
    if name != "GetSavedStateSymbolProviderHandle":
        with fails(E_INVALIDARG):
            door.symbols(name, 77)
    door.call("ReleaseSavedStateFiles", handle)


def test_locating_needs_folders(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMSAVEDSTATE_LOCATE", raising=False)
    with fails(0x80070032):
        door.locate("guest")


def test_locating_by_name(door: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sample_guest: Path) -> None:
    for folder, name in (("one", "Größe 1"), ("two", "Other"), ("three", "Other")):
        place = tmp_path / folder
        place.mkdir()
        with vmsavedstate.StoreWriter(place / "A.vmcx") as writer:
            writer.set("/configuration/properties/name", "string", name)
        shutil.copyfile(sample_guest, place / "A.VMRS")
    (tmp_path / "one" / "broken.vmcx").write_bytes(b"no store")
    monkeypatch.setenv("VMSAVEDSTATE_LOCATE", str(tmp_path))
    assert door.locate("größe 1") == ("", "", str(tmp_path / "one" / "A.VMRS"))
    assert door.locate("nobody") == ("", "", "")
    with fails(E_INVALIDARG):
        door.locate("Other")  # two machines have the name
    with fails(0x80070032):
        door.locate("Größe 1", "a checkpoint")
