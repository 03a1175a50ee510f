"""Which of two 16-bit sequence numbers is the newer (format specification, 2.2 rule 3, and 2.6)."""

from __future__ import annotations


def is_newer(candidate: int, other: int) -> bool:
    """Whether ``candidate`` counts against ``other``: of neighbours the successor, also across the wrap, else the larger."""
    difference = (candidate - other) & 0xFFFF
    if difference in (1, 0xFFFF):
        return difference == 1
    return candidate > other
