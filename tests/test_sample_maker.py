"""The script that made the sample still makes it, where QEMU and a compiler are at hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vmsavedstate

SCRIPT = Path(__file__).parents[1] / "examples" / "make_sample.py"


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-system-x86_64", "gcc", "ld"))), reason="needs QEMU, gcc and ld to boot the guest"
)
def test_a_fresh_guest_agrees_with_qemu(tmp_path: Path) -> None:
    target = tmp_path / "fresh.vmrs"
    subprocess.run([sys.executable, SCRIPT, "--out", target], check=True, timeout=120)
    truth = json.loads(target.with_suffix(".json").read_text())
    with vmsavedstate.open(target, strict=True) as state:
        state.check_memory()
        assert state.findings == ()
        assert len(truth["translations"]) > 20
        assert state.memory.size == sum(item["size"] for item in truth["chunks"])
