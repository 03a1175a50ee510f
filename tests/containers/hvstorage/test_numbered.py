"""Numbered keys in arrays: the same answers as from keys one by one, by the extension and by its fallback."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmsavedstate
from cli.test_cost import run
from support import partition as p
from support.container import ARRAY, INT, key_entry, key_table, pointer, prefixed
from support.samples import Samples
from support.states import BLOCK, numbered_pages, write_state
from vmsavedstate import SavedStateWriter, codec
from vmsavedstate.containers.hvstorage import numbered, object_table, store
from vmsavedstate.containers.hvstorage.store import Store

BLOCKS = {number: numbered_pages(number) for number in (0, 1, 2, 3, 10, 11, 12)}


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything is kept in arrays, however little there is."""
    monkeypatch.setattr(store, "NUMBERED_FROM", 0)
    monkeypatch.setattr(store, "NUMBERED", 1)
    monkeypatch.setattr(object_table, "EXTENTS_FROM", 1)
    yield


def described(path: Path) -> dict[str, Any]:
    """All that can be seen of a file, in an order of its own."""
    with vmsavedstate.open_store(path) as tree:
        content: dict[str, Any] = {
            "keys": sorted((key.path, tree.unique_path(key), key.type, key.size, key.offset, key.value_offset, key.external)
                           for key in tree.walk()),
            "listed": sorted(item["unique_path"] for item in tree.list_of_dicts()),
            "findings": sorted(map(str, tree.findings)),
        }  # fmt: skip
        for name in (
            "/savedstate/RamBlock1",
            "/SAVEDSTATE/ramblock1",
            "/savedstate/RamBlock01",
            "/savedstate/RamBlock99",
        ):
            found = tree.find(name)
            content[name] = None if found is None else (found.path, found.offset)
            content[f"all {name}"] = [key.offset for key in tree.find_all(name)]
        node = tree.find("/savedstate")
        content["children"] = sorted(child.path for child in node.children) if node is not None else None
    try:
        with vmsavedstate.open(path) as state:
            content["report"] = state.verify().to_dict() | {"file": ""}
            content["stored"] = state.memory.backing.describe()
            content["chunks"] = state.memory.chunks
            content["memory"] = (
                state.memory.read_raw(0, min(state.memory.size, 4 << 20)) if not state.verify().unreadable else 0
            )
    except vmsavedstate.VmSavedStateError as error:
        content["error"] = str(error)
    return content


def both(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    singly = described(path)
    with monkeypatch.context() as patch:
        patch.setattr(store, "NUMBERED_FROM", 0)
        patch.setattr(store, "NUMBERED", 1)
        patch.setattr(object_table, "EXTENTS_FROM", 1)
        return singly, described(path)


def test_a_small_state_kept_in_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = [p.metadata(4 * 256), p.metadata(3 * 256, gpa=1 << 20, backing=10 * 256)]
    singly, arrays = both(write_state(tmp_path / "x.vmrs", ranges=ranges, blocks=BLOCKS), monkeypatch)
    assert arrays == singly and not singly["report"]["findings"]


@pytest.mark.parametrize("name", ["no-os-252mib.vmrs", "config-v9.vmcx", "host-data.vmcx", "no-saved-state-v9.vmrs"])
def test_real_files_kept_in_arrays(samples: Samples, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    singly, arrays = both(samples(name), monkeypatch)
    assert arrays == singly


@settings(max_examples=40)
@given(st.data())
def test_damaged_files_kept_in_arrays(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed in the tables: the same keys, values and findings."""
    folder = tmp_path_factory.mktemp("damaged")
    raw = bytearray(write_state(folder / "x.vmrs", ranges=[p.metadata(4 * 256)], blocks=BLOCKS).read_bytes())
    with Store.open(folder / "x.vmrs") as tree:
        spans = [(0x2000, 0x2400), *((at, at + min(size, 0x600)) for at, size in tree.objects.key_tables)]
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = data.draw(st.sampled_from(spans))
        raw[data.draw(st.integers(start, end - 1))] = data.draw(st.integers(0, 255))
    path = folder / "y.vmrs"
    path.write_bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        try:
            singly, arrays = both(path, patch)
        except vmsavedstate.VmSavedStateError:
            return
    assert arrays == singly


def test_two_keys_of_one_number(tmp_path: Path, arrays: None) -> None:
    """The first by its sequence counts, and the second is a finding."""
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata(256)], blocks={0: numbered_pages(0)})
    with Store.open(path) as tree:
        node = tree["/savedstate"]
        (keys,) = (item for item in node.numbered if item.prefix == "RamBlock")
        assert [key.name for key in keys.entries()] == ["RamBlock0"] and keys.again == () and keys[0].parent is node
        twice = numbered.NumberedKeys("RamBlock", tree.source, tree.log)
        columns = [(7).to_bytes(8, sys.byteorder), *(number.to_bytes(8, sys.byteorder) for number in (100, 200)),
                   (5).to_bytes(4, sys.byteorder), (9).to_bytes(4, sys.byteorder), b"\1"]  # fmt: skip
        twice.extend(columns)
        twice.extend(
            [*columns[:1], (300).to_bytes(8, sys.byteorder), *columns[2:4], (3).to_bytes(4, sys.byteorder), b"\1"]
        )
        twice.finish(node)
        assert (len(twice), twice.again, twice[7].offset, twice[7].sequence) == (1, (7,), 300, 3)
        assert twice.named("RamBlock7") is not None and twice.named("RamBlock07") is None and twice.get(8) is None


def entries(chance: random.Random) -> bytes:
    """A key table of sound entries of many kinds."""
    names = [
        "RamBlock0",
        "RamBlock17",
        "RamBlock017",
        "RamBlock",
        "7",
        "type",
        "Block1234567890123456",
        "Ünnumbered1",
        "a 1",
    ]
    rows = []
    for _ in range(chance.randrange(1, 20)):
        name, parent = chance.choice(names), (chance.randrange(3), chance.choice((0, 0x0A)))
        if chance.random() < 0.4:
            rows.append(key_entry(ARRAY, name, prefixed(chance.randbytes(chance.randrange(20))), parent=parent))
        elif chance.random() < 0.7:
            rows.append(
                key_entry(
                    ARRAY, name, pointer(chance.randrange(BLOCK), chance.randrange(1 << 40)), parent=parent, flags=1
                )
            )
        else:
            rows.append(key_entry(INT, name, bytes(8), parent=parent))
    return key_table(1, rows)


@pytest.mark.skipif(codec.extension() is None, reason="the extension is not in use")
@settings(max_examples=300)
@given(seed=st.integers(0, 1 << 32), changes=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=6))
def test_the_extension_and_its_fallback_agree(seed: int, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(entries(random.Random(seed)))
    for at, byte in changes:
        raw[at % len(raw)] = byte
    data = bytes(raw)
    groups, others, end = codec.extension().scan_keys(data, 10, 0x5000)
    assert ([(place, prefix, list(columns)) for place, prefix, columns in groups], others, end) == numbered.scan_keys(
        data, 10, 0x5000
    )
    objects = data[: len(data) // 18 * 18]
    assert tuple(codec.extension().scan_objects(objects)) == numbered.scan_objects(objects)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="figures of a process as Linux has them")
def test_a_guest_of_a_tib(tmp_path: Path) -> None:
    """1,048,576 blocks, sparse: opened in three times 1.5 s of CPU and 250 MB; no command but ``keys`` takes 300 MB."""
    path = tmp_path / "tib.vmrs"
    with SavedStateWriter(path) as writer:
        writer.add_processor(0, {"cr0": 0x11, "cr4": 0, "cr3": 0, "efer": 0})
        writer.add_memory(0, 1 << 40, lambda _, size: bytes(size), zero_runs=[(0, 1 << 40)])
    compiled = codec.extension() is not None
    for arguments in (
        ["info"],
        ["info", "--json"],
        ["chunks"],
        ["regs"],
        ["maps", "--merge"],
        ["read", "--gpa", "0xff00000000", "--size", "64", "--hex"],
    ):
        code, seconds, memory, told = run([arguments[0], path, *arguments[1:]])
        assert code == 0, told
        assert memory < (250 if arguments[0] == "info" else 300) * 10**6, (arguments, memory)
        assert seconds < (4.5 if compiled else 30), (arguments, seconds)
