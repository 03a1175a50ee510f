"""The one choice between the extension and the fallback in Python."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import vmsavedstate
from vmsavedstate import codec
from vmsavedstate.errors import InvalidArgumentError, VmSavedStateError


def test_python_can_be_forced() -> None:
    assert codec.select("python").name == "python"


def test_the_extension_is_used_where_it_is_built() -> None:
    assert codec.select("").name == ("rust" if codec.extension_is_built() else "python")


def test_any_other_value_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="VMSAVEDSTATE_CODEC is 'perl'"):
        codec.select("perl")


def test_an_extension_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "extension_is_built", lambda: True)
    monkeypatch.delattr(vmsavedstate, "_extension", raising=False)
    monkeypatch.setitem(sys.modules, "vmsavedstate._extension", None)  # importing it raises ImportError
    with pytest.raises(VmSavedStateError, match="does not load"):
        codec.select("")
    assert codec.select("python").name == "python"


@pytest.mark.skipif(codec.extension_is_built(), reason="the extension is built")
def test_demanding_an_extension_that_is_not_there() -> None:
    with pytest.raises(VmSavedStateError, match="does not load"):
        codec.select("rust")


@pytest.mark.parametrize("variable", ["VMSAVEDSTATE_CODEC", "VMSAVEDSTATE_KERNEL"])
@pytest.mark.parametrize("value", ["python", ""])
def test_the_environment_decides_and_the_command_says_so(variable: str, value: str) -> None:
    names = ("VMSAVEDSTATE_CODEC", "VMSAVEDSTATE_KERNEL")
    others = {name: text for name, text in os.environ.items() if name not in names}
    run = subprocess.run(
        [sys.executable, "-m", "vmsavedstate", "--version"],
        env={**others, variable: value}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"(codec: {codec.select(value).name}," in run.stdout
