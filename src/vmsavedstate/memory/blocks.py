"""Memory as a stream of blocks that tile a range: what can be read as bytes, what cannot as gaps; decoded ahead.

What is streamed comes as *parts*: stretches of addresses that are kept somewhere, and gaps. So physical and virtual
memory are streamed alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..snapshot import PageBacking, Unreadable
from ..vocabulary import Reason
from .gaps import MemoryGap
from .parallel import in_order

PIECE = 1 << 20  # bytes read at a time: one block of a saved state
MANY_PARTS = 1024  # read together at most, however small


class MemoryBlock(NamedTuple):
    """A stretch of memory: ``data``, or where ``data`` is empty the one gap that it is.

    Attributes:
        address: of its first byte.
        data: the bytes; they stay valid.
        gaps: empty, or one :class:`MemoryGap` with the reason.
    """

    address: int
    data: bytes
    gaps: tuple[MemoryGap, ...] = ()

    @property
    def start(self) -> int:
        """First address, bytes."""
        return self.address

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.gaps[0].end if self.gaps else self.address + len(self.data)

    @property
    def size(self) -> int:
        """Bytes, of the data or of the gap."""
        return self.end - self.address

    @property
    def gpa(self) -> int:
        """The address, where it is one of physical memory."""
        return self.address

    def __repr__(self) -> str:
        """Range and kind, without the bytes."""
        kind = self.gaps[0].reason if self.gaps else "data"
        return f"<MemoryBlock {self.start:#x} to {self.end:#x}: {kind}>"


class Kept(NamedTuple):
    """Memory to stream: ``size`` bytes that have the addresses from ``address`` on, kept at backing ``position``."""

    address: int
    size: int
    position: int


Part = Kept | MemoryGap


def stream(backing: PageBacking, parts: Iterable[Part], workers: int) -> Iterator[MemoryBlock]:
    """The blocks of ``parts``, which ascend and leave nothing out; neighbouring gaps of one reason are one block."""

    def work(batch: list[Part]) -> list[MemoryBlock]:
        blocks = [block for part in batch for block in _of_part(backing, part)]
        return blocks if len(batch) == 1 else _joined(blocks)

    pending: MemoryGap | None = None
    for blocks in in_order(_batches(_pieces(backing, parts)), work, workers):
        for block in blocks:
            if block.gaps:
                gap = block.gaps[0]
                if pending is not None and pending.end == gap.start and pending.reason == gap.reason:
                    pending = pending._replace(end=gap.end)
                    continue
                if pending is not None:
                    yield _of_gap(pending)
                pending = gap
                continue
            if pending is not None:
                yield _of_gap(pending)
                pending = None
            yield block
    if pending is not None:
        yield _of_gap(pending)


def _batches(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """Parts to be read together: pages that are scattered would cost more to hand to a thread than to read."""
    batch: list[Part] = []
    size = 0
    for part in parts:
        own = part.size if isinstance(part, Kept) else 0
        if batch and (size + own > PIECE or len(batch) == MANY_PARTS):
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += own
    if batch:
        yield batch


def _of_part(backing: PageBacking, part: Part) -> Iterable[MemoryBlock]:
    return (_of_gap(part),) if isinstance(part, MemoryGap) else _read(backing, part)


def _joined(blocks: list[MemoryBlock]) -> list[MemoryBlock]:
    """The same blocks with the data of neighbours in one."""
    joined: list[MemoryBlock] = []
    pieces: list[MemoryBlock] = []
    for block in [*blocks, None]:
        if block is not None and not block.gaps:
            pieces.append(block)
            continue
        if pieces:
            data = pieces[0].data if len(pieces) == 1 else b"".join(piece.data for piece in pieces)
            joined.append(MemoryBlock(pieces[0].address, data))
            pieces = []
        if block is not None:
            joined.append(block)
    return joined


def _of_gap(gap: MemoryGap) -> MemoryBlock:
    return MemoryBlock(gap.start, b"", (gap,))


def _pieces(backing: PageBacking, parts: Iterable[Part]) -> Iterator[Part]:
    """The parts in pieces of one block, cut where blocks begin; what is not stored at all is one gap, however large."""
    for part in parts:
        if isinstance(part, MemoryGap):
            yield part
            continue
        address, size, position = part
        while size:
            stored = backing.next_stored(position)
            absent = size if stored is None else min(stored - position, size)
            if absent:  # in one step: the metadata of a hostile file may claim any number of pages
                yield MemoryGap(address, address + absent, Reason.MISSING)
                address, size, position = address + absent, size - absent, position + absent
                continue
            step = min(PIECE - position % PIECE, size)
            yield Kept(address, step, position)
            address, size, position = address + step, size - step, position + step


def _read(backing: PageBacking, piece: Kept) -> Iterator[MemoryBlock]:
    """The blocks of one piece: one, or where some of it is lost what lies between, and the gaps."""
    address, size, position = piece
    data, lost = backing.read(position, size)
    if not lost:
        yield MemoryBlock(address, data)
        return
    at, end = position, position + size
    for item in (*sorted(lost, key=lambda item: item.start), Unreadable(end, end, Reason.MISSING, "")):
        start, stop = min(max(item.start, at), end), min(item.end, end)
        if at < start:
            yield MemoryBlock(address + at - position, data[at - position : start - position])
            at = start
        if at < stop:
            yield _of_gap(MemoryGap(address + at - position, address + stop - position, Reason(item.reason)))
            at = stop
