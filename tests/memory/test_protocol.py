"""Both views of guest memory as one interface: is_valid, and memory as a file object."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmsavedstate
from paging.test_forms import RAM
from paging.test_hostile import TABLES
from support.states import damaged_state
from support.tables import LONG, memory_of, placed, space_of
from vmsavedstate import GuestMemoryError, InvalidArgumentError, Memory, PageNotMapped

TOP = 1 << 64
PAGES = {page * 0x1000: bytes([page + 1]) * 0x1000 for page in range(0x14)}
RANGES = [(0, 0x8000), (0x10000, 0x4000)]
LOST = {(0x2800, 0x3000): "damaged", (0x11000, 0x13000): "missing"}


def views(strict: bool = False) -> list[Memory]:
    physical = memory_of(PAGES, RANGES, lost=LOST, strict=strict)
    tables = memory_of(placed(TABLES), RAM, lost={(0x4000, 0x4800): "damaged"}, strict=strict)
    return [physical, physical.cached(2), space_of(tables, **LONG, cr3=0x1000)]


def test_both_views_are_a_memory(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        vp = state.processors[0]
        for memory in (state.memory, vp.space, state.memory.cached(1), *views()):
            assert isinstance(memory, Memory)
        assert not isinstance(b"", Memory)
        assert vp.space is vp.space is vp.address_space(), "one object per view"
        assert isinstance(vars(type(vp))["space"], property) or hasattr(vars(type(vp))["space"], "__get__")


@given(st.integers(0, 0x16000), st.integers(0, 0x6000), st.booleans(), st.integers(0, 2))
def test_is_valid_exactly_where_there_are_no_gaps(address: int, size: int, strict: bool, which: int) -> None:
    memory = views(strict)[which]
    gaps = list(memory.gaps(address, size))
    assert memory.is_valid(address, size) is (gaps == [])
    if gaps:
        with pytest.raises((GuestMemoryError, PageNotMapped)):
            memory.read(address, size)
    else:
        assert len(memory.read(address, size)) == size


def test_is_valid_of_one_byte_and_of_damage(tmp_path: Path) -> None:
    memory = views()[0]
    assert memory.is_valid(0) and memory.is_valid(0x27FF) and not memory.is_valid(0x2800)
    assert not memory.is_valid(TOP - 1) and memory.is_valid(TOP - 1, 0) and memory.is_valid(5, 0)
    with vmsavedstate.open(damaged_state(tmp_path / "x.vmrs")) as state:
        assert state.memory.is_valid(0, 1 << 20) and not state.memory.is_valid(0, (1 << 20) + 1)
    for wrong in ((-1, 1), (0, -1), (TOP, 1), (TOP - 1, 2), ("0", 1), (True, 1)):
        for view in views():
            with pytest.raises(InvalidArgumentError):
                view.is_valid(*wrong)


def test_the_processor_has_the_methods_of_its_space(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        vp = state.processors[0]
        gva = 0xFFFFFFFF80100700
        assert vp.is_valid(gva, 25) and not vp.is_valid(0x402000)
        vp.require(gva, 25)
        with pytest.raises(PageNotMapped):
            vp.require(0x401FFF, 2)
        assert [block.data[:12] for block in vp.blocks(gva, gva + 25)] == [b"VMSAVEDSTATE"]
        for name in ("read", "read_into", "is_valid", "gaps", "find", "require", "blocks", "translate", "walk"):
            own, theirs = getattr(type(vp), name), getattr(type(vp.space), name)
            assert list(own.__annotations__) == list(theirs.__annotations__), name
            assert own.__doc__ and own.__doc__.strip(), name


# Memory as a file object.


def test_physical_memory_as_a_file() -> None:
    memory = views()[0]
    whole = memory.read(0, 0x14000, fill=0xEE)
    with memory.as_file(fill=0xEE) as file:
        assert isinstance(file, io.RawIOBase) and file.readable() and file.seekable() and not file.writable()
        assert file.read() == whole and file.read() == b"" and file.tell() == 0x14000
        assert file.seek(-4, os.SEEK_END) == 0x13FFC and file.read(100) == whole[-4:]
        assert file.seek(0x2000) == 0x2000 and file.seek(0x900, os.SEEK_CUR) == 0x2900
        buffer = bytearray(0x800)
        assert file.readinto(buffer) == 0x800 and buffer == whole[0x2900:0x3100]
        assert file.seek(0x20000) == 0x20000 and file.read(1) == b"", "behind the end there is nothing"
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
        with pytest.raises(io.UnsupportedOperation):
            file.truncate(0)
        for wrong in ((-1, 0), (-0x14001, 2), (0, 3)):
            with pytest.raises(ValueError):
                file.seek(*wrong)
    with memory.as_file() as file:
        assert file.read() == memory.read(0, 0x14000, fill=0)


@given(st.integers(0, 0x15000), st.integers(0, 0x3000), st.integers(0, 255))
def test_a_buffered_reader_over_memory(position: int, size: int, fill: int) -> None:
    memory = views()[0]
    whole = memory.read(0, 0x14000, fill=fill)
    with io.BufferedReader(memory.as_file(fill=fill), 512) as reader:
        reader.seek(position)
        assert reader.read(size) == whole[position : position + size]


def test_virtual_memory_as_a_file_of_all_addresses(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        space = state.processors[0].space
        with space.as_file(fill=0xFF) as file:
            assert file.seek(0, os.SEEK_END) == TOP and file.read(1) == b""
            file.seek(0xFFFFFFFF80100700)
            assert file.read(25) == b"VMSAVEDSTATE SAMPLE GUEST"
            file.seek(0x401FF0)
            assert file.read(0x20) == space.read(0x401FF0, 0x10) + b"\xff" * 0x10
            file.seek(-16, os.SEEK_END)
            assert len(file.read(100)) == 16


def test_a_file_of_memory_allocates_no_more_than_there_is() -> None:
    physical, virtual = views()[0].as_file(), views()[2].as_file()
    assert len(physical.read(1 << 60)) == 0x14000
    with pytest.raises(InvalidArgumentError, match="more than one read delivers"):
        virtual.read()
    assert virtual.tell() == 0, "nothing was read"
    assert len(virtual.read(16)) == 16


@pytest.mark.parametrize("which", [0, 2])
def test_a_closed_file_of_memory_raises_valueerror(which: int) -> None:
    file: Any = views()[which].as_file()
    file.close()
    file.close()
    for call in (
        lambda: file.read(1), lambda: file.readinto(bytearray(1)), lambda: file.seek(0), file.tell, file.readable,
        file.seekable, file.readall,
    ):  # fmt: skip
        with pytest.raises(ValueError):
            call()
    assert file.closed


def test_a_file_of_memory_after_its_state_is_closed(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        files = [state.memory.as_file(), state.processors[0].space.as_file()]
        for file in files:
            file.read(10)
    for file in files:
        with pytest.raises(vmsavedstate.VmSavedStateError, match="closed"):
            file.read(10)


@pytest.mark.parametrize("fill", [-1, 256, "0", None, True, 0.0])
def test_fill_bytes_that_are_none(fill: Any) -> None:
    for view in views():
        with pytest.raises(InvalidArgumentError):
            view.as_file(fill=fill)


def test_a_strict_file_hides_no_damage() -> None:
    with views(strict=True)[0].as_file() as file:
        file.seek(0x2000)
        with pytest.raises(GuestMemoryError):
            file.read(0x1000)
        file.seek(0x8000)
        assert file.read(0x10) == bytes(16), "a hole is no damage"


def test_libraries_read_memory_as_a_file(sample_guest: Path, tmp_path: Path) -> None:
    import shutil

    with vmsavedstate.open(sample_guest) as state, state.memory.as_file() as file:
        with open(tmp_path / "flat", "wb") as target:
            shutil.copyfileobj(file, target)
        array = np.frombuffer(state.memory.read(0, state.memory.end, fill=0), np.uint8)
    assert (np.fromfile(tmp_path / "flat", np.uint8) == array).all()
