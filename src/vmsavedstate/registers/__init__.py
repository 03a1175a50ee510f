"""Registers: names, types, values, and the texts they are read from. Knows no processors and no formats.

``names`` and ``table`` say which registers there are, ``values`` what their values look like; ``qemu_text`` reads the text
of QEMU's monitor, ``register_file`` the registers that a person adds to a dump that lacks them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .qemu_text import parse_qemu_monitor, parse_qemu_text
    from .table import Register, registers_of

__all__ = ["Register", "parse_qemu_monitor", "parse_qemu_text", "registers_of"]

_HOMES = {
    "Register": "table",
    "registers_of": "table",
    "parse_qemu_monitor": "qemu_text",
    "parse_qemu_text": "qemu_text",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a name on first use: opening a saved state needs none of them."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{home}", __name__), name)
