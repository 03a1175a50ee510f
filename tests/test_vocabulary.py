"""Enumerations that are text, integers of any type, and remedies in two wordings."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmsavedstate
from vmsavedstate import Family, InvalidArgumentError, Reason, StepKind, codec, remedies
from vmsavedstate.integers import as_int, as_int_in, as_optional_int
from vmsavedstate.remedies import Remedy


@pytest.mark.parametrize("member", [*Family, *Reason, *StepKind])
def test_members_are_their_text(member: Any) -> None:
    text = member.value
    assert member == text and hash(member) == hash(text) and {text: 1}[member] == 1
    assert str(member) == text == f"{member}" == "%s" % member and f"{member:>12}" == text.rjust(12)  # noqa: UP031
    assert json.dumps({member: [member]}) == json.dumps({text: [text]})
    assert type(member)(text) is member is pickle.loads(pickle.dumps(member))
    assert isinstance(member, str) and repr(member) == repr(text)


def test_answers_use_them(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        vp = state.processors[0]
        assert isinstance(vp.family, Family) and vp.family == "x86"
        assert [type(step.kind) for step in vp.walk(0x400000).steps] == [StepKind] * 4
        gap = next(state.memory.gaps(0xA0000, 1))
        assert isinstance(gap.reason, Reason) and gap.reason == "hole"
        assert isinstance(next(vp.gaps(0x402000, 1)).reason, Reason)
        with pytest.raises(vmsavedstate.GuestMemoryError) as caught:
            state.memory.read(0xA0000, 1)
        assert isinstance(caught.value.reason, Reason)


class Index:
    """As numbers of other libraries: an ``__index__`` and no more."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


KINDS = [int, np.uint64, np.int64, np.uint32, Index]


@pytest.mark.parametrize("kind", KINDS)
def test_integers_become_plain_ones(kind: Any) -> None:
    assert type(as_int(kind(5), "it")) is int and as_int(kind(5), "it") == 5
    assert as_int_in(kind(5), "it", 0, 5) == 5 and as_optional_int(None, "it") is None


@pytest.mark.parametrize("wrong", [True, False, np.bool_(True), 1.0, np.float64(1), "1", b"1", None, [], 1 + 0j])
def test_what_is_no_integer(wrong: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="it is an integer, not "):
        as_int(wrong, "it")


def plain(answer: Any) -> Any:
    """The answer, in which no number is of a foreign type."""
    for item in answer if isinstance(answer, (tuple, list)) else [answer]:
        assert type(item) in (int, bytes, bool, str, tuple) or not isinstance(item, (int, np.generic)), type(item)
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_takes_integers_of_any_type(sample_guest: Path, kind: Any) -> None:
    """Each call with ``kind`` answers as with int; new states, so that nothing is answered from what was looked up."""
    from vmsavedstate.provider import (
        GetRegisterValue,
        GuestVirtualAddressToPhysicalAddress,
        LoadSavedStateFile,
        ReadGuestPhysicalAddress,
        ReadGuestRawSavedMemory,
        ReleaseSavedStateFiles,
    )

    def answers(k: Any) -> list[Any]:
        got: list[Any] = []
        high = k if kind in (np.uint64, Index) else int  # others do not hold the address
        with vmsavedstate.open(sample_guest) as state:
            memory, vp = state.memory, state.processors[0]
            buffer = bytearray(12)
            memory.read_into(k(0x100700), buffer, fill=k(0))
            got += [bytes(buffer), memory.read(k(0x9FFFE), k(4), fill=k(0xCC)), memory.is_valid(k(0x9FFFF), k(2))]
            got += [[tuple(gap) for gap in memory.gaps(k(0x9F000), k(0x2000))], memory.raw_offset(k(0x100000))]
            got += [[tuple(run) for run in memory.runs(k(0x9F000), k(0x2000))], memory.read_raw(k(0x100), k(4))]
            got += [list(memory.find(b"VMSAVED", k(0x100000), k(0x101000)))]
            got += [[block[:2] for block in memory.blocks(k(0x100700), k(0x10070C), k(2))]]
            got += [memory.pages([k(0x100), k(0xA0)])[1].tolist(), memory.cached(k(1)).read(k(0x100700), k(4))]
            got += [memory.overlaid([(k(0x100700), b"X")]).read(k(0x100700), k(4))]
            file = memory.as_file(fill=k(7))
            got += [file.seek(k(0x9FFFF)), file.read(2), file.tell()]
            got += [vp.translate(high(0xFFFFFFFF80100700))]
            got += [vp.translate(k(0x400010)), vp.read(k(0x400000), k(4)), vp.read(k(0x401FFF), k(2), fill=k(1))]
            got += [vp.walk(k(0x400010)).gpa, [tuple(run)[:3] for run in vp.mappings(k(0x400000), k(0x500000))]]
            got += [list(vp.reverse(k(0x100700), k(0), k(0x200000)))]
            found, there = vp.translate_many([k(0x400000), k(0x402000)])
            got += [found.tolist(), there.tolist(), vp.address_space(root=k(0x1000)).translate(k(0x400010))]
            got += [state.guest_os(k(0)).raw, vp.vtl(k(0)).id]
        handle = LoadSavedStateFile(sample_guest)
        try:
            got += [ReadGuestPhysicalAddress(k(handle), k(0x100700), k(12))]
            got += [ReadGuestRawSavedMemory(k(handle), k(0x100), k(4))]
            got += [GuestVirtualAddressToPhysicalAddress(k(handle), k(0), k(0x400010))]
            got += [bytes(GetRegisterValue(k(handle), k(0), k(46)))]
        finally:
            ReleaseSavedStateFiles(k(handle))
        return [plain(item) for item in got]

    assert answers(kind) == answers(int)


def test_small_numpy_numbers_do_not_wrap(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        vp = state.processors[0]
        assert state.memory.read(np.uint8(255), np.uint8(200)) == state.memory.read(255, 200)
        assert list(state.memory.gaps(np.uint16(0xFFFF), np.uint16(0xFFFF))) == []
        assert vp.space.is_valid(np.uint8(250), np.uint8(250)) == vp.space.is_valid(250, 250)


def test_writers_and_codecs_take_them(tmp_path: Path) -> None:
    path = tmp_path / "x.vmrs"
    with vmsavedstate.SavedStateWriter(path) as writer:
        writer.add_processor(np.uint32(0), {"rip": np.uint64(0x1000), "cr3": np.uint16(0x2000)})
        writer.add_memory(np.uint64(0), np.uint64(1 << 20), lambda offset, size: b"\x90" * size)
    with vmsavedstate.open(path, strict=True) as state:
        assert type(state.processors[0].registers.rip) is int
        assert (state.processors[0].registers.rip, state.processors[0].registers.cr3) == (0x1000, 0x2000)
    packed = codec.xpress_encode(b"abcd" * 1000)
    kinds: list[Any] = [np.uint16, np.uint64, Index]
    for kind in kinds:
        assert codec.xpress_decode(packed, kind(4000)) == b"abcd" * 1000
    with pytest.raises(InvalidArgumentError):
        codec.xpress_decode(packed, True)


@pytest.mark.parametrize("wrong", [True, 1.0, "1", None])
def test_every_call_refuses_what_is_none(sample_guest: Path, wrong: Any) -> None:
    with vmsavedstate.open(sample_guest) as state:
        memory, space = state.memory, state.processors[0].space
        for call in (
            lambda: memory.read(wrong, 1), lambda: memory.read(0, wrong), lambda: memory.gaps(wrong, 1),
            lambda: memory.find(b"x", wrong), lambda: memory.blocks(wrong), lambda: memory.pages([wrong]),
            lambda: memory.raw_offset(wrong), lambda: memory.cached(wrong), lambda: space.translate(wrong),
            lambda: space.read(wrong, 1), lambda: space.walk(wrong), lambda: space.translate_many([wrong]),
            lambda: space.mappings(wrong), lambda: space.reverse(wrong), lambda: space.require(wrong, 1),
            lambda: state.guest_os(wrong), lambda: state.processors[0].vtl(wrong),
        ):  # fmt: skip
            with pytest.raises(InvalidArgumentError):
                call()


ALL_REMEDIES = [value for value in vars(remedies).values() if isinstance(value, Remedy)]


@pytest.mark.parametrize("remedy", ALL_REMEDIES)
def test_remedies_are_worded_for_both(remedy: Remedy) -> None:
    assert remedy.code == remedy.code.lower().replace(" ", "-") and remedy.code
    assert "--" not in remedy.python and "`vmrs " not in remedy.python, "a caller of Python has no options"
    assert "=" not in remedy.command.replace("==", ""), "a user of the command has no parameters"
    assert remedy.python != remedy.command


def test_codes_of_remedies_are_unique() -> None:
    codes = [remedy.code for remedy in ALL_REMEDIES]
    assert len(codes) == len(set(codes)) > 10


def test_an_error_words_its_remedy_for_who_reads_it(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state, pytest.raises(vmsavedstate.GuestMemoryError) as caught:
        state.memory.read(0xA0000, 1)
    error = caught.value
    assert error.remedy_code == "fill-byte" and error.remedy and "fill=0" in error.remedy in str(error)
    assert "--fill 0" in error.for_command() and "fill=0" not in error.for_command()
