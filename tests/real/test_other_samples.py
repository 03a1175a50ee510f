"""Every other sample opens or fails as its README says; the guests agree with QEMU's view of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

import vmsavedstate
from support.samples import Samples
from vmsavedstate import Access, PageNotMapped, SavedState
from vmsavedstate.errors import PartitionStateNotFoundError
from vmsavedstate.hvstorage import Store

pytestmark = pytest.mark.real
WITHOUT_STATE = ["no-saved-state-v9.vmrs", "no-saved-state-v12.vmrs", "config-v9.vmcx", "host-data.vmcx",
                 "config-parent-after-child.vmcx"]  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_STATE)
def test_stores_without_saved_state(samples: Samples, name: str) -> None:
    path = samples(name)
    with pytest.raises(PartitionStateNotFoundError) as caught:
        vmsavedstate.open(path)
    assert caught.value.hresult == 0xC0370500
    with Store.open(path, strict=True) as store:
        entries = list(store.walk())
        assert store.findings == ()
        for entry in entries:
            _ = entry.value
        assert store.findings == ()
        assert len(entries) > 10


@pytest.mark.parametrize("name", ["no-saved-state-v9.vmrs", "no-saved-state-v12.vmrs"])
def test_same_named_siblings_of_real_files(samples: Samples, name: str) -> None:
    with Store.open(samples(name)) as store:
        paths = [entry.path for entry in store.walk()]
        assert len(paths) > len(set(paths)), "several nodes of one path, none of them lost"


def test_parents_after_children(samples: Samples) -> None:
    with Store.open(samples("config-parent-after-child.vmcx")) as store:
        for name in ("sgx", "bank"):
            nodes = [entry for entry in store.walk() if entry.name == name and entry.type == "node"]
            assert nodes
            assert all(entry.children for entry in nodes)


def test_a_file_that_ends_inside_its_log(samples: Samples) -> None:
    with Store.open(samples("host-data.vmcx")) as store:
        assert store.header.replay_log_offset + store.header.replay_log_size > store.source.size


@pytest.mark.peer
@pytest.mark.parametrize("name", [*WITHOUT_STATE, "no-os-252mib.vmrs"])
def test_an_independent_reader_agrees_on_every_value(samples: Samples, name: str) -> None:
    """The peer flattens same-named siblings into one; every value it has must be among ours of that path."""
    hyperv = pytest.importorskip("dissect.hypervisor.descriptor.hyperv")
    path = samples(name)
    ours: dict[str, list[Any]] = {}
    with Store.open(path) as store:
        for entry in store.walk():
            ours.setdefault(entry.path, []).append(entry.value)
    compared = 0

    def walk(entries: Any, above: str) -> None:
        nonlocal compared
        for key, entry in entries.items():
            where = f"{above}/{key}"
            if entry.type.name == "Node":
                walk(entry.children, where)
                continue
            value = entry.value
            value = value.read() if hasattr(value, "read") else bytes(value) if isinstance(value, memoryview) else value
            if isinstance(value, (int, str, bytes, float)):
                assert value in ours[where], where
                compared += 1

    with path.open("rb") as stream:
        walk(hyperv.HyperVFile(stream).root, "")
    assert compared > 10


@pytest.fixture(params=["guest-uboot64", "guest-uboot-arm64"])
def guest(request: pytest.FixtureRequest, samples: Samples) -> Iterator[tuple[SavedState, dict[str, Any]]]:
    truth = json.loads(samples(f"{request.param}.json").read_text())
    with vmsavedstate.open(samples(f"{request.param}.vmrs"), strict=True) as state:
        yield state, truth


def test_guest_is_sound(guest: tuple[SavedState, dict[str, Any]]) -> None:
    state, truth = guest
    state.check_memory()
    assert state.findings == ()
    assert len(state.processors) == len(truth["spec"]["vps"])


def _number(value: str | dict[str, str]) -> Any:
    return {name: int(text, 16) for name, text in value.items()} if isinstance(value, dict) else int(value, 16)


def test_guest_registers(guest: tuple[SavedState, dict[str, Any]]) -> None:
    """Every register the independent writer was given, and QEMU's own view of the general ones."""
    state, truth = guest
    for vp, given in zip(state.processors, truth["spec"]["vps"], strict=True):
        assert vp.index == given["index"]
        (level,) = given["vtls"]
        compared = 0
        for name, text in level["registers"].items():
            value: Any = vp.registers[name]
            assert (value if isinstance(value, int) else value._asdict()) == _number(text), name
            compared += 1
        for number, text in enumerate(level.get("xmm", ())):
            assert vp.registers[f"xmm{number}"] == int(text, 16)
        if "xcr0" in level:
            assert vp.registers.xcr0 == level["xcr0"]
        assert compared >= 40
    stored = truth["spec"]["vps"][0]["vtls"][0]["registers"]
    for vp, seen in zip(state.processors, truth["registers"], strict=True):
        for name, text in seen["gdb"].items():
            if isinstance(stored.get(name), str):  # the other ones that writer leaves at zero
                assert vp.registers[name] == int(text, 16), name


def test_guest_modes(guest: tuple[SavedState, dict[str, Any]]) -> None:
    state, truth = guest
    (vp,) = state.processors
    arm = truth["spec"]["arch"] == "aarch64"
    assert vp.architecture.name == ("ARMV8" if arm else "X64")
    assert vp.paging_mode.name == ("ARMV8" if arm else "LONG")
    assert vp.paging_levels == 4


def test_guest_translations(guest: tuple[SavedState, dict[str, Any]]) -> None:
    """Every answer of QEMU; an unmapped one may come of rights on ARM64, where QEMU heeds them."""
    state, truth = guest
    answers = [(item["gva"], item["gpa"]) for item in truth["translations"]]
    assert len(answers) > 1000
    (vp,) = state.processors
    found, there = vp.translate_many([gva for gva, _ in answers])
    for (gva, expected), gpa, known in zip(answers, found.tolist(), there.tolist(), strict=True):
        ours = gpa if known else None
        walk = vp.walk(gva)
        assert walk.gpa == ours
        if ours is None:
            with pytest.raises(PageNotMapped):
                vp.translate(gva)
        else:
            assert vp.translate(gva) == ours
        assert ours == expected or (expected is None and not walk.access & Access.KERNEL_READ), hex(gva)
    if truth["spec"]["arch"] == "aarch64":
        assert sum(gpa is None for _, gpa in answers) > 500


def test_guest_memory_map(guest: tuple[SavedState, dict[str, Any]]) -> None:
    state, truth = guest
    expected = [(int(item["start"], 16), int(item["length"], 16)) for item in truth["spec"]["memory"]]
    assert [(item.start, item.size) for item in state.memory.chunks] == expected
    inside = [entry["gpa"] for entry in truth["translations"] if entry["gpa"] is not None]
    for gpa in inside[::7]:
        if any(start <= gpa < start + size for start, size in expected):
            assert len(state.memory.read(gpa & ~0xFFF, 4096)) == 4096


@pytest.mark.peer
def test_guest_memory_equals_what_an_independent_reader_finds(guest: tuple[SavedState, dict[str, Any]]) -> None:
    """All of it: that writer starts each range on a new block and never compresses."""
    hyperv = pytest.importorskip("dissect.hypervisor.descriptor.hyperv")
    state, truth = guest
    with open(state.files[0], "rb") as stream:
        blocks = hyperv.HyperVFile(stream).root["savedstate"].children
        number = 0
        for item in truth["spec"]["memory"]:
            ours, theirs = hashlib.sha256(), hashlib.sha256()
            start, left = int(item["start"], 16), int(item["length"], 16)
            while left:
                size = min(left, 1 << 20)
                offset, stored = blocks[f"RamBlock{number}"].file_object_pointer
                assert stored == 1 << 20
                stream.seek(offset)  # the peer itself refuses: it goes by the flag of the object entry, not by its type
                theirs.update(stream.read(size))
                ours.update(state.memory.read(start, size))
                start, left, number = start + size, left - size, number + 1
            assert ours.digest() == theirs.digest()
