"""Guest memory with whole decoded blocks kept: for callers who ask for a cache of their own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..cache import ByteCache
from ..files.ranges import Coverage
from ..snapshot import PageBacking, Unreadable

BLOCK = 1 << 20  # bytes


class CachedBacking:
    """A backing whose blocks of 1 MiB are kept as they are read, the last ``limit`` of them. Damaged ones are not kept."""

    def __init__(self, backing: PageBacking, limit: int) -> None:
        self._backing = backing
        self._blocks: ByteCache[int, bytes] = ByteCache(limit * BLOCK)

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """See PageBacking."""
        inside = position % BLOCK
        if inside + size <= BLOCK:
            block = self._block(position - inside)
            if block is not None:
                return block[inside : inside + size], ()
            return self._backing.read(position, size)
        buffer = bytearray(size)
        lost = self.read_into(position, memoryview(buffer))
        return bytes(buffer), lost

    def read_into(self, position: int, buffer: memoryview) -> Sequence[Unreadable]:
        """See PageBacking."""
        lost: list[Unreadable] = []
        done = 0
        while done < len(buffer):
            inside = (position + done) % BLOCK
            piece = buffer[done : done + BLOCK - inside]
            block = self._block(position + done - inside)
            if block is None:
                lost += self._backing.read_into(position + done, piece)
            else:
                piece[:] = memoryview(block)[inside : inside + len(piece)]
            done += len(piece)
        return lost

    def next_stored(self, position: int) -> int | None:
        """See PageBacking."""
        return self._backing.next_stored(position)

    def describe(self) -> dict[str, int]:
        """See PageBacking."""
        return self._backing.describe()

    def check(self, done: Coverage) -> Iterator[int]:
        """See PageBacking."""
        return self._backing.check(done)

    def _block(self, start: int) -> bytes | None:
        """The whole block at a backing position, None where it cannot be read whole."""
        block = self._blocks.get(start)
        if block is None:
            block, lost = self._backing.read(start, BLOCK)
            if lost:
                return None
            self._blocks.put(start, block, BLOCK)
        return block
