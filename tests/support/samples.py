"""Where the real files are: the folder ``VMSAVEDSTATE_SAMPLES`` names; packed ones (.xz) are unpacked once a session."""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path

import pytest

VARIABLE = "VMSAVEDSTATE_SAMPLES"


class Samples:
    """The real files by name; skips the test where they are not at hand."""

    def __init__(self, unpacked: Path, beside: str = "") -> None:
        self._unpacked = unpacked
        folder = os.environ.get(VARIABLE)
        self._folder = Path(folder) / beside if folder else None

    def __call__(self, name: str) -> Path:
        """The path of one unpacked sample."""
        if self._folder is None:
            pytest.skip(f"the real saved states are not here: `make samples`, or set {VARIABLE}")
        target = self._unpacked / Path(name).name
        if not target.exists():
            plain, packed = self._folder / name, self._folder / f"{name}.xz"
            if plain.exists():
                shutil.copyfile(plain, target)
            elif packed.exists():
                with lzma.open(packed) as source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy)
            else:
                pytest.skip(f"{name} is not among the samples in {self._folder}")
        return target
