"""Sizes in words."""

from __future__ import annotations


def human_size(size: int) -> str:
    """``size`` bytes in the largest unit that divides it well: ``252 MiB``, ``3.5 GiB``."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}"
