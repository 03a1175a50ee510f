"""Every answer of Microsoft's own DLL that is known (API specification, section 12), through both doors, on both files."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider.doors import Door, Failure
from support.samples import Samples
from vmsavedstate.datatypes import RegisterId

pytestmark = pytest.mark.real

ARCH_X86, PAGING_32BIT = 1, 2
ECX_2018 = 1
RAW_SIZE = 264_241_152


@pytest.fixture(params=["vmrs", "pair"])
def handle(request: pytest.FixtureRequest, door: Door, samples: Samples) -> Iterator[int]:
    names = ["no-os-252mib.vmrs"] if request.param == "vmrs" else ["no-os-252mib.bin", "no-os-252mib.vsv"]
    handle = door.load(*[samples(name) for name in names])
    yield handle
    door.call("ReleaseSavedStateFiles", handle)


def test_processors(door: Door, handle: int) -> None:
    assert door.call("GetVpCount", handle) == 4
    for vp in range(4):
        assert door.call("GetArchitecture", handle, vp) == ARCH_X86
        assert door.call("GetPagingMode", handle, vp) == PAGING_32BIT


def test_ecx(door: Door, handle: int) -> None:
    number = ECX_2018 if door.generation == 2018 else RegisterId.X64_RCX
    values = [door.register(handle, vp, number, ARCH_X86) for vp in range(4)]
    assert [int.from_bytes(value, "little") for value in values] == [4, 0, 0, 0]


def test_chunks(door: Door, handle: int) -> None:
    assert door.chunks(handle) == (4096, [(0, 64_512)])
    assert door.call("GetGuestRawSavedMemorySize", handle) == RAW_SIZE


def test_raw_memory_in_steps(door: Door, handle: int) -> None:
    """252 full reads of 1 MiB, then S_OK with 0 bytes."""
    for number in range(252):
        assert len(door.read_raw(handle, number << 20, 1 << 20)) == 1 << 20
    assert door.read_raw(handle, 252 << 20, 1 << 20) == b""


def test_raw_offset(door: Door, handle: int) -> None:
    assert door.call("GuestPhysicalAddressToRawSavedMemoryOffset", handle, 0xC0FFE) == 0xC0FFE


def test_twelve_bytes(door: Door, handle: int) -> None:
    data = door.read(handle, 0xC0FFE, 12)
    assert struct.unpack("<3I", data) == (75_826_887, 1_235_222_542, 3_439_375_364)


def test_translation_fails(door: Door, handle: int) -> None:
    """The table that CR3 = 0 leads to is outside of the memory; the 2018 code names the entry that could not be read."""
    with pytest.raises(Failure) as caught:
        door.translate(handle, 0, 0xC0FFE)
    assert caught.value.hresult == (0xC0370508 if door.generation == 2018 else 0xC0370505)


def test_wrong_paths(door: Door, tmp_path: Path) -> None:
    for paths in ((tmp_path / "no.vmrs",), (tmp_path / "no.bin", tmp_path / "no.vsv")):
        with pytest.raises(Failure) as caught:
            door.load(*paths)
        assert caught.value.hresult == 0x80070002


def test_a_clean_replay_log(door: Door, samples: Samples, tmp_path: Path) -> None:
    copy = tmp_path / "clean.vmrs"
    shutil.copyfile(samples("no-os-252mib.vmrs"), copy)
    door.apply_log(copy)
    assert copy.read_bytes() == samples("no-os-252mib.vmrs").read_bytes()
