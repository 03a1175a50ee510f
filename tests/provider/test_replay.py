"""ApplyPendingSavedStateFileReplayLog on the real state whose last commit is made pending again, through both doors."""

from __future__ import annotations

from pathlib import Path

import pytest

from provider.doors import Door, Failure
from support.pending import made_pending
from support.samples import Samples

pytestmark = pytest.mark.real


def test_loading_applies_it_in_memory_and_applying_in_the_file(door: Door, samples: Samples, tmp_path: Path) -> None:
    original, pending = samples("no-os-252mib.vmrs"), tmp_path / "pending.vmrs"
    made_pending(original, pending, spoil=True)
    spoilt = pending.read_bytes()
    handle = door.load(pending)
    assert door.register(handle, 0, 1, 1)[:8] == (4).to_bytes(8, "little")
    with pytest.raises(Failure):
        door.apply_log(pending)  # the handle has it
    door.call("ReleaseSavedStateFiles", handle)
    assert pending.read_bytes() == spoilt
    door.apply_log(pending)
    assert pending.read_bytes() == original.read_bytes(), "as Hyper-V left it"


def test_a_damaged_log_is_refused(door: Door, samples: Samples, tmp_path: Path) -> None:
    pending = tmp_path / "pending.vmrs"
    made_pending(samples("no-os-252mib.vmrs"), pending, spoil=False, break_one=True)
    content = pending.read_bytes()
    with pytest.raises(Failure) as caught:
        door.apply_log(pending)
    assert caught.value.hresult == 0x80070570
    assert pending.read_bytes() == content
