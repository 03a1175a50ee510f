"""The other readers of page tables: Volatility's Intel layer over the flat memory, kdmp-parser over the crash dump."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOW_48 = (1 << 48) - 1  # Volatility takes addresses without their sign extension


def volatility_layer(flat: Path, root: int) -> Any:
    """A four-level Intel layer over a flat memory file."""
    from volatility3.framework import contexts
    from volatility3.framework.layers import intel, physical

    context = contexts.Context()
    context.config["base.location"] = flat.as_uri()
    context.add_layer(physical.FileLayer(context, "base", "base"))
    context.config["tables.memory_layer"] = "base"
    context.config["tables.page_map_offset"] = root
    return intel.Intel32e(context, "tables", "tables")


def kdmp(crash_dump: Path) -> Any:
    """The crash dump as kdmp-parser opens it."""
    import kdmp_parser

    return kdmp_parser.KernelDumpParser(crash_dump)
