"""VMSAVEDSTATE_LOG of the C library: why a call failed, in words; and what no code says, that a file is damaged."""

from __future__ import annotations

import ctypes as c
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provider.doors import CDoor, Failure
from support.partition import metadata
from support.states import BLOCK, damaged_state, legacy_pair, numbered_pages, write_state
from vmsavedstate import SavedStateWriter
from vmsavedstate.provider.instance import HANDLES
from vmsavedstate.provider.library import calls
from vmsavedstate.provider.library import log as log_module

E_INVALIDARG, NOT_FOUND = 0x80070057, 0x80070002
BEGIN = "vmsavedstatedumpprovider: "
Lines = Callable[[], list[str]]


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Asks for a log; answers the lines that came since the last time, without what all begin with."""
    path = tmp_path / "the log"
    monkeypatch.setenv(log_module.VARIABLE, str(path))
    told = 0

    def new() -> list[str]:
        nonlocal told
        every = path.read_text().splitlines() if path.exists() else []
        assert all(line.startswith(BEGIN) for line in every)
        fresh, told = every[told:], len(every)
        return [line.removeprefix(BEGIN) for line in fresh]

    return new


def test_why_in_words(libraries: dict[int, CDoor], lines: Lines) -> None:
    door, handle = libraries[2021], c.c_void_p()
    assert door.ask("LoadSavedStateFileU8", b"/nowhere/\xff", c.byref(handle)) == NOT_FOUND
    assert door.ask("GetVpCount", c.c_void_p(5), c.byref(c.c_uint32())) == E_INVALIDARG
    first, second = lines()
    assert first.startswith("0x80070002: LoadSavedStateFileU8: /nowhere/\\udcff: there is no such file")
    assert second.startswith("0x80070057: GetVpCount: 0x5 is not a handle")


def test_nobody_asked(libraries: dict[int, CDoor], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    door = libraries[2021]
    assert door.ask("LoadSavedStateFileU8", b"/nowhere", c.byref(c.c_void_p())) == NOT_FOUND
    door.call("ReleaseSavedStateFiles", door.load(damaged_state(tmp_path / "damaged.vmrs")))
    assert capfd.readouterr() == ("", "")


def test_a_log_that_cannot_be_is_told_once_and_no_failure(
    libraries: dict[int, CDoor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that is no log of ours is not written to: the name of evidence may have been mistyped."""
    door, evidence = libraries[2021], tmp_path / "guest.vmrs"
    evidence.write_bytes(b"\0\1\2\3" * 100)
    monkeypatch.setenv(log_module.VARIABLE, "-")
    assert door.ask("GetVpCount", c.c_void_p(6), c.byref(c.c_uint32())) == E_INVALIDARG
    assert "0x6 is not a handle" in capfd.readouterr().err
    monkeypatch.setenv(log_module.VARIABLE, "/nowhere/log")
    assert door.ask("GetVpCount", c.c_void_p(6), c.byref(c.c_uint32())) == E_INVALIDARG
    assert capfd.readouterr().err == "", "descriptor 2 may be anything, unless it is a terminal"
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 2)
    monkeypatch.setenv(log_module.VARIABLE, os.devnull)
    assert door.ask("GetVpCount", c.c_void_p(6), c.byref(c.c_uint32())) == E_INVALIDARG
    assert capfd.readouterr().err == ""
    for target, why in (
        (evidence, "what is there is no such log"),
        ("/nowhere/log", "No such file"),
        (tmp_path, "Is a"),
    ):
        monkeypatch.setattr(log_module, "_complained", False)
        monkeypatch.setenv(log_module.VARIABLE, str(target))
        for _ in range(2):
            assert door.ask("GetVpCount", c.c_void_p(6), c.byref(c.c_uint32())) == E_INVALIDARG
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"{BEGIN}no log at VMSAVEDSTATE_LOG={target}: {why}")
    assert evidence.read_bytes() == b"\0\1\2\3" * 100


@pytest.mark.parametrize("generation", [2018, 2021])
def test_damage_is_told_where_no_code_says_it(
    libraries: dict[int, CDoor], sample_guest: Path, tmp_path: Path, lines: Lines, generation: int
) -> None:
    """Loading works, reads are short: the line says what is lost. A hole and the end of memory are no damage."""
    door = libraries[generation]
    handle = door.load(damaged_state(tmp_path / "damaged.vmrs"))
    (line,) = lines()
    assert line.startswith(
        "0x00000000: LoadSavedStateFileU8: loaded, with damage (1 finding; `vmrs verify` lists all): "
    )
    assert "RamBlock1" in line
    door.read(handle, BLOCK - 16, 64), door.read_raw(handle, BLOCK - 16, 64)
    first, second = lines()
    assert first.startswith("0x00000000: ReadGuestPhysicalAddress: 0x10 of 0x40 bytes from 0xffff0, because ")
    assert second.startswith("0x00000000: ReadGuestRawSavedMemory: 0x10 of 0x40 bytes from 0xffff0, because ")
    assert all("guest physical address 0x100000 cannot be read: " in line for line in (first, second))
    with pytest.raises(Failure):
        door.read(handle, BLOCK, 64)
    (line,) = lines()
    assert line.startswith("0x80070570: ReadGuestPhysicalAddress: ") and "fill byte" not in line
    door.read(handle, 3 * BLOCK - 16, 64), door.read_raw(handle, 3 * BLOCK - 16, 64)
    door.call("ReleaseSavedStateFiles", handle)
    handle = door.load(sample_guest)
    assert len(door.read(handle, 0x9FFF0, 64)) == 16
    with pytest.raises(Failure):
        door.call("GuestPhysicalAddressToRawSavedMemoryOffset", handle, 0xA0000)
    (line,) = lines()
    assert line.endswith("guest physical address 0xa0000 is not part of the saved memory")
    door.call("ReleaseSavedStateFiles", handle)


def test_damage_is_found_by_raw_offset_too(libraries: dict[int, CDoor], tmp_path: Path, lines: Lines) -> None:
    """Behind a hole a raw offset is another number than the address."""
    blocks = {0: numbered_pages(0)}  # the second is missing: addresses from 0x900000 on
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata(512, gpa=0x800)], blocks=blocks)
    door = libraries[2021]
    handle = door.load(path)
    lines()
    assert len(door.read_raw(handle, BLOCK - 16, 64)) == 16
    assert "because guest physical address 0x900000 cannot be read: " in lines()[0]
    door.call("ReleaseSavedStateFiles", handle)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_telling_is_never_a_failure(
    libraries: dict[int, CDoor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines, error: type[Exception]
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise error

    path, door = damaged_state(tmp_path / "damaged.vmrs"), libraries[2021]
    monkeypatch.setattr(calls, "damage", fail)
    monkeypatch.setattr(calls, "why_no_more", fail)
    handle = door.load(path)
    assert len(door.read(handle, BLOCK - 16, 64)) == 16
    door.call("ReleaseSavedStateFiles", handle)
    assert lines() == []


def test_an_interrupt_while_telling_is_a_failure_that_leaves_nothing(
    libraries: dict[int, CDoor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    before = set(HANDLES._instances)
    monkeypatch.setattr(calls, "damage", interrupt)
    handle, path = c.c_void_p(1), damaged_state(tmp_path / "damaged.vmrs")
    with pytest.raises(KeyboardInterrupt):
        assert libraries[2021].ask("LoadSavedStateFileU8", str(path).encode(), c.byref(handle)) == 0x80004004
        for _ in range(100):
            time.sleep(0.01)  # the interrupt is the host's, who is Python here
    assert handle.value is None
    assert set(HANDLES._instances) == before


def test_the_other_function_is_named(
    libraries: dict[int, CDoor], sample_guest: Path, tmp_path: Path, lines: Lines
) -> None:
    door = libraries[2021]
    bin_path, vsv_path = legacy_pair(tmp_path)
    for paths, advice in (
        ((bin_path,), "(load both with LoadSavedStateFiles)"),
        ((sample_guest, vsv_path), "(load it with LoadSavedStateFile)"),
    ):
        with pytest.raises(Failure):
            door.load(*paths)
        assert lines()[0].endswith(advice)
    vsv_path.write_bytes(b"")
    with pytest.raises(Failure):
        door.load(bin_path)
    assert lines()[0].endswith("(give the right companion)"), "both together would fail as well"
    vsv_path.unlink()
    with pytest.raises(Failure):
        door.load(bin_path)
    assert lines()[0].endswith("(load both with LoadSavedStateFiles)")
    with pytest.raises(Failure):
        door.load("")
    assert lines() == ["0x80070002: LoadSavedStateFileU8: the path is empty (name a file)"]


def test_strings_of_another_width(libraries: dict[int, CDoor], sample_guest: Path, lines: Lines) -> None:
    """ctypes passes 4 bytes a character: as UTF-16 that is one, and then the end."""
    wide = c.create_unicode_buffer(str(sample_guest))
    assert libraries[2021].ask("LoadSavedStateFile", wide, c.byref(c.c_void_p())) != 0
    assert lines()[0].partition(": ")[2].startswith("LoadSavedStateFile (of UTF-16 strings): /: this is a directory")
    assert libraries[2021].ask("LoadSavedStateFileW32", wide, c.byref(c.c_void_p())) == 0


def test_declarations_of_the_other_generation(libraries: dict[int, CDoor], sample_guest: Path, lines: Lines) -> None:
    """A number where an address should be, and the other way round: E_INVALIDARG, and a hint."""
    for generation, number in ((2018, c.c_void_p(46)), (2021, c.c_uint32(0xBEEF_CAFE))):
        door = libraries[generation]
        handle = door.load(sample_guest)
        value = (c.c_char * 16)()
        assert door.ask("GetRegisterValue", c.c_void_p(handle), 0, number, value) == E_INVALIDARG
        assert bytes(value) == bytes(16)
        assert "-2018 is the library of programs that were written for SDKs before 22000" in lines()[0]
        door.call("ReleaseSavedStateFiles", handle)


def test_paging_that_is_off(libraries: dict[int, CDoor], tmp_path: Path, lines: Lines) -> None:
    """The provider walks all the same, which surprises: every address of such a guest looks unmapped."""
    door = libraries[2021]
    handle = door.load(unpaged_state(tmp_path / "unpaged.vmrs"))
    with pytest.raises(Failure):
        door.translate(handle, 0, 0x5BA9)
    assert (
        "(the processor has paging off; tables are walked all the same, unless Paging_NonPaged is forced)" in lines()[0]
    )
    door.call("ForcePagingMode", handle, 0, 1)
    assert door.translate(handle, 0, 0x5BA9) == 0x5BA9
    door.call("ReleaseSavedStateFiles", handle)


def unpaged_state(path: Path) -> Path:
    """One processor in real mode."""
    with SavedStateWriter(path) as writer:
        writer.add_processor(0, {"rip": 0x5BA9, "cr0": 0x10, "cr3": 0, "cr4": 0, "efer": 0})
        writer.add_memory(0, BLOCK, lambda offset, size: bytes(size))
    return path


def test_asking_how_many_chunks_there_are_is_no_failure_to_tell(
    libraries: dict[int, CDoor], sample_guest: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every client asks with NULL first; an array that is too small is worth a line."""
    door, size, count, chunk = libraries[2021], c.c_uint64(), c.c_uint64(9), (c.c_uint64 * 2)()
    handle = c.c_void_p(door.load(sample_guest))
    monkeypatch.setenv("VMSAVEDSTATE_LOG", "-")
    assert door.ask("GetGuestPhysicalMemoryChunks", handle, c.byref(size), None, c.byref(count)) == 0x8007000E
    assert (count.value, capfd.readouterr().err) == (2, "")
    count.value = 1
    assert door.ask("GetGuestPhysicalMemoryChunks", handle, c.byref(size), chunk, c.byref(count)) == 0x8007000E
    assert (count.value, list(chunk)) == (2, [0, 0])
    assert (
        "0x8007000E: GetGuestPhysicalMemoryChunks: an array for 1 is too small for 2 chunks" in capfd.readouterr().err
    )
    door.call("ReleaseSavedStateFiles", handle.value or 0)
