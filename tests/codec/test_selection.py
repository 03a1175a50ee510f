"""The one choice between the compiled kernel and the Python twin."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vmsavedstate import codec
from vmsavedstate.errors import InvalidArgumentError, VmSavedStateError


def test_python_can_be_forced() -> None:
    assert codec.select("python").name == "python"


def test_the_kernel_serves_when_it_is_built() -> None:
    assert codec.select("").name == ("rust" if codec.kernel_is_built() else "python")


def test_any_other_value_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="VMSAVEDSTATE_KERNEL is 'perl'"):
        codec.select("perl")


def test_a_kernel_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "kernel_is_built", lambda: True)
    monkeypatch.delattr(codec, "_kernel", raising=False)
    monkeypatch.setitem(sys.modules, "vmsavedstate.codec._kernel", None)  # importing it raises ImportError
    with pytest.raises(VmSavedStateError, match="does not load"):
        codec.select("")
    assert codec.select("python").name == "python"


@pytest.mark.skipif(codec.kernel_is_built(), reason="the compiled kernel is built")
def test_demanding_a_kernel_that_is_not_there() -> None:
    with pytest.raises(VmSavedStateError, match="does not load"):
        codec.select("rust")


@pytest.mark.parametrize("value", ["python", ""])
def test_the_environment_decides_and_the_command_tells(value: str) -> None:
    environment = {**os.environ, "VMSAVEDSTATE_KERNEL": value}
    run = subprocess.run(
        [sys.executable, "-m", "vmsavedstate", "--version"], env=environment, capture_output=True, text=True, check=True
    )
    assert f"(codec: {codec.select(value).name}," in run.stdout
