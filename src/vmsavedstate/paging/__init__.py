"""From guest virtual to guest physical addresses, in every paging mode. Knows no files and no processors.

``forms`` describes tables as data, ``selection`` chooses a form from registers, ``walk`` follows one address step by
step, ``leaves`` one and ``tiles`` many of them at once, ``enumeration`` the whole set of tables,
``shared`` where they are met again and again; ``address_space`` joins
them, and ``sparing`` says when tiles, and numpy, are worth their while. Sources:
Intel SDM volume 3 chapter 4, AMD APM volume 2 chapter 5, Arm ARM (DDI 0487) chapter D8; and QEMU's answers, which the
tests compare with.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .access import Access
from .address_space import AddressSpace, AddressSpaces
from .walk import Walk, WalkStep

if TYPE_CHECKING:
    from .runs import LostTable, MappedRegion, MappedRun

__all__ = ["Access", "AddressSpace", "AddressSpaces", "LostTable", "MappedRegion", "MappedRun", "Walk", "WalkStep"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load what needs numpy on first use: opening a file does not."""
        if name not in ("LostTable", "MappedRegion", "MappedRun"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(".runs", __name__), name)
