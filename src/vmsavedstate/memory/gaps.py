"""Memory that cannot be delivered, as ranges with a reason; the same for both address spaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..vocabulary import Reason


class MemoryGap(NamedTuple):
    """Memory that cannot be delivered: ``start`` to ``end`` (excluded) in bytes, and why."""

    start: int
    end: int
    reason: Reason

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    def to_dict(self) -> dict[str, Any]:
        """The gap as JSON has it."""
        return {"start": hex(self.start), "size": self.size, "reason": self.reason}


def merged_gaps(gaps: Iterator[MemoryGap]) -> Iterator[MemoryGap]:
    """Ascending gaps, with those joined that touch and have the same reason."""
    pending: MemoryGap | None = None
    for gap in gaps:
        if pending is not None and (pending.end, pending.reason) == (gap.start, gap.reason):
            pending = MemoryGap(pending.start, gap.end, gap.reason)
            continue
        if pending is not None:
            yield pending
        pending = gap
    if pending is not None:
        yield pending
