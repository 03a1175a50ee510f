"""Inputs that the writers refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmsavedstate import CpuidLeaf, SavedStateWriter, StoreWriter
from vmsavedstate.errors import (
    InvalidArgumentError,
)


@pytest.mark.parametrize(
    "options",
    [
        {"vm_version": 1 << 70}, {"vm_version": 0x100}, {"vendor": 1 << 40}, {"guest_os_ids": {300: 1}},
        {"guest_os_ids": {0: 1 << 64}}, {"cpuid": [CpuidLeaf(0, 0, 1 << 33, 0, 0, 0)]}, {"saved_state_type": 5},
        {"cpuid": [CpuidLeaf(0, 0, 0, 0, 0, 0)] * 500},
    ],
)  # fmt: skip
def test_inputs_the_writer_refuses(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        SavedStateWriter(tmp_path / "x.vmrs", **options)
    assert list(tmp_path.iterdir()) == []


def test_more_inputs_the_writers_refuse(tmp_path: Path) -> None:
    with SavedStateWriter(tmp_path / "x.vmrs") as writer:
        with pytest.raises(InvalidArgumentError):
            writer.add_memory(0, 4096, lambda offset, size: bytes(size), node=-1)
        writer.abort()
    with StoreWriter(tmp_path / "y.vmcx") as store:
        for name, kind, value in (("\ud800", "int", 1), ("b", "bool", "false"), ("b", "bool", 2)):
            with pytest.raises(InvalidArgumentError):
                store.set(name, kind, value)
        store.set("a", "bool", True)
        store.close()
        store.close()
        store.abort()
    assert [item.name for item in tmp_path.iterdir()] == ["y.vmcx"]
