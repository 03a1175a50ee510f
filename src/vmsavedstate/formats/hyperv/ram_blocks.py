"""RamBlock values: 1 MiB of guest memory each, plain or as page tokens (format specification, 4.2 and 5).

One page of a compressed block is read without decoding the block: its tokens are indexed once, as far as needed, and
only the pages asked for are decoded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ... import codec
from ...cache import ByteCache
from ...containers.hvstorage.numbered import NumberedKeys
from ...containers.keytree import KeyEntry
from ...files.ranges import Coverage
from ...findings import FindingLog
from ...snapshot import Unreadable
from .layout.memory import BLOCK, BLOCK_SHIFT, PAGE

INDEX_CACHE = 16 << 20
PAGE_CACHE = 32 << 20
WINDOW = 64 << 10  # bytes of tokens read at a time while a block is indexed
BULK = BLOCK // 4  # from here on a block is read as a whole: one read instead of several windows
MOST_PLAIN = 1 << 16  # plain blocks whose place is remembered
MOST_REPORTED = 1 << 17  # damaged blocks that are told apart
MOST_PIECES = 16  # pieces of one page that are lost one by one; more, and the page is
SMALL = 4 * PAGE  # reads up to this size go through the page cache

ZEROS = bytes(BLOCK)  # one object for all blocks of zeros: who searches or hashes may know it again
ALL_ZERO = codec.ZERO_BLOCK

_SEGMENT = codec.SEGMENT.size


class _Index(NamedTuple):
    """How far the tokens of a block are known: packed segments, next token, output so far, state, why it is bad."""

    segments: bytes
    position: int
    produced: int
    state: int
    reason: str


_UNKNOWN = _Index(b"", 0, 0, codec.MORE, "")


class RamBlocks:
    """The blocks of one saved state as one run of bytes: block N is at backing position N x 1 MiB.

    Implements :class:`vmsavedstate.snapshot.PageBacking`. Reads may come from several threads.
    """

    def __init__(self, blocks: Mapping[int, KeyEntry], log: FindingLog) -> None:
        self._blocks = blocks
        self._log = log
        self._codec: codec.Codec | None = None
        self._numbers: Sequence[int] | None = None
        self._reported: set[tuple[int, bool]] = set()  # blocks whose tokens, or pages, were found damaged
        # How to read blocks that were found to be plain and inside of their file, and where they begin.
        self._plain: dict[int, tuple[Callable[[int, int], bytes], int]] = {}
        self._indexes: ByteCache[int, _Index] = ByteCache(INDEX_CACHE)
        self._pages: ByteCache[int, bytes] = ByteCache(PAGE_CACHE)

    def read(self, position: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """``size`` bytes from ``position``; what cannot be delivered is zero and listed."""
        number, start = position >> BLOCK_SHIFT, position & BLOCK - 1
        if start + size <= BLOCK:
            plain = self._plain.get(number)
            if plain is not None and size < BLOCK:
                read, offset = plain
                return read(offset + start, size), ()
            return self._read_in_block(number, start, size)
        parts: list[bytes] = []
        lost: list[Unreadable] = []
        while size:
            piece = min(size, BLOCK - start)
            data, bad = self._read_in_block(number, start, piece)
            parts.append(data)
            lost.extend(bad)
            number, start, size = number + 1, 0, size - piece
        return b"".join(parts), lost

    def read_into(self, position: int, buffer: memoryview) -> Sequence[Unreadable]:
        """Fill ``buffer`` from ``position``; plain blocks without a copy in between."""
        lost: list[Unreadable] = []
        done = 0
        while done < len(buffer):
            number, start = divmod(position + done, BLOCK)
            piece = min(len(buffer) - done, BLOCK - start)
            entry = self._blocks.get(number)
            target = buffer[done : done + piece]
            if entry is not None and entry.size == BLOCK and self._inside(entry):
                entry.source.read_into(entry.value_offset + start, target)
            else:
                data, bad = self._read_in_block(number, start, piece)
                target[:] = data
                lost.extend(bad)
            done += piece
        return lost

    def next_stored(self, position: int) -> int | None:
        """The first position from ``position`` on whose block is in the file, in whatever state; None if there is none."""
        if self._numbers is None:
            self._numbers = self._blocks.numbers() if isinstance(self._blocks, NumberedKeys) else sorted(self._blocks)
        index = bisect_left(self._numbers, position // BLOCK)
        return max(position, self._numbers[index] * BLOCK) if index < len(self._numbers) else None

    def describe(self) -> dict[str, int]:
        """How many blocks are stored plain, compressed, or cannot be read (``unreadable``), and the bytes they take."""
        if isinstance(self._blocks, NumberedKeys):
            return _described(self._blocks)
        plain = compressed = unreadable = 0
        for entry in self._blocks.values():
            if entry.size > BLOCK or not self._inside(entry):
                unreadable += 1
            elif entry.size == BLOCK:
                plain += 1
            else:
                compressed += 1
        return {
            "blocks": len(self._blocks),
            "plain": plain,
            "compressed": compressed,
            "unreadable": unreadable,
            "stored_bytes": sum(entry.size for entry in self._blocks.values()),
        }

    def check(self, done: Coverage) -> Iterator[int]:
        """Read and decode every block that is not wholly in ``done``; yields the bytes done so far."""
        numbers = self._blocks if isinstance(self._blocks, NumberedKeys) else sorted(self._blocks)
        rest = (number for number in numbers if not done.covers(number * BLOCK, (number + 1) * BLOCK))
        for count, number in enumerate(rest, start=1):
            self._read_in_block(number, 0, BLOCK)
            yield count * BLOCK

    def _read_in_block(self, number: int, start: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        entry = self._blocks.get(number)
        if entry is None:
            return bytes(size), [self._lost(number, 0, BLOCK, "missing", "its block is not in the file")]
        held = entry.size
        if not self._inside(entry):  # the container has said so already
            held = max(0, entry.source.size - entry.value_offset)
            if held == 0 or entry.size > BLOCK:
                return bytes(size), [self._lost(number, 0, BLOCK, "damaged", "its block lies outside of the file")]
        if entry.size > BLOCK:
            why = f"has {entry.size:#x} bytes, more than 1 MiB"
            self._log.loss(
                "memory.block.size",
                entry.source.path,
                entry.offset,
                f"the value of {entry.path} {why}",
                found=entry.size,
            )
            return bytes(size), [self._lost(number, 0, BLOCK, "damaged", f"its block {why}")]
        if entry.size == BLOCK and held < BLOCK:
            return self._read_cut(number, entry, held, start, size)
        if entry.size == BLOCK:
            if len(self._plain) == MOST_PLAIN:  # a walk over a TiB must not keep a million of them
                self._plain.clear()
            self._plain[number] = (entry.source.read, entry.value_offset)
            if size == BLOCK and entry.source.is_hole(entry.value_offset, BLOCK):
                return ZEROS, ()
            return entry.source.read(entry.value_offset + start, size), ()
        if size == BLOCK and entry.size == len(ALL_ZERO) and entry.read() == ALL_ZERO:
            return ZEROS, ()
        if size <= SMALL:
            return self._read_cached(number, entry, start, size)
        return self._decode(number, entry, start, size)

    def _read_cut(
        self, number: int, entry: KeyEntry, held: int, start: int, size: int
    ) -> tuple[bytes, Sequence[Unreadable]]:
        """A read of a plain block of which the file has only the first ``held`` bytes."""
        data = entry.source.read(entry.value_offset + start, min(size, held - start)) if start < held else b""
        lost = [self._lost(number, held, BLOCK, "damaged", "its block ends behind the end of the file")]
        return data.ljust(size, b"\0"), lost if start + size > held else ()

    @staticmethod
    def _inside(entry: KeyEntry) -> bool:
        return entry.value_offset + entry.size <= entry.source.size

    def _read_cached(self, number: int, entry: KeyEntry, start: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """A small read of a compressed block, page by page through the cache."""
        first, last = start // PAGE, (start + size - 1) // PAGE
        parts: list[bytes] = []
        lost: list[Unreadable] = []
        for page in range(first, last + 1):
            key = number * BLOCK + page * PAGE
            data = self._pages.get(key)
            if data is None:
                data, bad = self._decode(number, entry, page * PAGE, PAGE)
                lost.extend(bad)
                if not bad:
                    self._pages.put(key, data, PAGE)
            parts.append(data)
        skip = start - first * PAGE
        return (parts[0] if len(parts) == 1 else b"".join(parts))[skip : skip + size], lost

    def _decode(self, number: int, entry: KeyEntry, start: int, size: int) -> tuple[bytes, Sequence[Unreadable]]:
        """Decode output ``start`` to ``start + size`` of a compressed block."""
        if self._codec is None:
            self._codec = codec.active()
        end = start + size
        stored = min(entry.size, entry.source.size - entry.value_offset)  # the file may end inside of it
        index = self._indexes.get(number) or _UNKNOWN
        window, base = b"", 0
        if size >= BULK:
            window = entry.source.read(entry.value_offset, stored)
        while index.state == codec.MORE and (index.produced < end or size >= BULK):  # in bulk END is looked at as well
            if size < BULK:
                base = index.position
                window = entry.source.read(entry.value_offset + base, min(WINDOW, stored - base))
            index = self._scan(index, window, base, stored, end)
            self._indexes.put(number, index, len(index.segments) + 256)
        starts = memoryview(index.segments).cast("I")[::5]
        low, high = max(0, bisect_right(starts, start) - 1), bisect_left(starts, end)
        chosen = index.segments[low * _SEGMENT : high * _SEGMENT]
        if chosen:
            data_from = codec.SEGMENT.unpack_from(chosen)[3]
            *_, last_payload, last_size = codec.SEGMENT.unpack_from(chosen, len(chosen) - _SEGMENT)
            data_end = last_payload + last_size
            if data_from < base or data_end > base + len(window):
                base, window = data_from, entry.source.read(entry.value_offset + data_from, data_end - data_from)
        out, bad = self._codec.decode(window, base, chosen, start, size)
        lost = [
            self._lost(number, at, stop, "damaged", f"its block is damaged: {reason}") for at, stop, reason in _joined(bad)
        ]  # fmt: skip
        if index.state == codec.BAD:  # also where the pages asked for are fine
            self._report(number, entry, index.produced, BLOCK, index.reason, index.position)
        if bad:
            self._report(number, entry, bad[0][0], bad[0][0] + bad[0][1], bad[0][2])
        if index.produced < end:
            lost.append(self._lost(number, index.produced, BLOCK, "damaged", f"its block is damaged: {index.reason}"))
        return out, lost

    def _scan(self, index: _Index, window: bytes, base: int, size: int, end: int) -> _Index:
        assert self._codec is not None
        stop = end if len(window) < size else BLOCK  # with the whole block at hand its END is checked as well
        segments, position, produced, state, reason = self._codec.scan(
            window, base, index.position, index.produced, size, stop
        )
        return _Index(index.segments + segments, position, produced, state, reason)

    def _report(
        self, number: int, entry: KeyEntry, start: int, end: int, reason: str, position: int | None = None
    ) -> None:
        """Report damage of a block: its tokens and its pages once each, however many of them are bad."""
        kind = (number, position is None)
        if kind in self._reported or len(self._reported) >= MOST_REPORTED:
            return
        self._reported.add(kind)
        self._log.loss(
            "memory.block.damaged",
            entry.source.path,
            entry.value_offset + (position or 0),
            f"{entry.path} is damaged, {end - start:#x} bytes from {start:#x} on: {reason}",
        )

    def _lost(self, number: int, start: int, end: int, reason: str, message: str) -> Unreadable:
        base = number * BLOCK
        entry = self._blocks.get(number) or next(iter(self._blocks.values()), None)  # blocks are all in one file
        file = entry.source.path if entry is not None else None
        return Unreadable(base + start, base + end, reason, message, file)


def _described(blocks: NumberedKeys) -> dict[str, int]:
    """See :meth:`RamBlocks.describe`, for very many blocks."""
    import numpy as np

    offsets, sizes, _ = blocks.extents()
    limit = blocks.source.size
    sound = (sizes <= BLOCK) & (offsets + sizes <= np.uint64(limit)) & (offsets <= np.uint64(limit))
    plain = sound & (sizes == BLOCK)
    counts = {"blocks": len(blocks), "plain": int(plain.sum()), "compressed": int((sound & ~plain).sum())}
    return counts | {"unreadable": int((~sound).sum()), "stored_bytes": int(sizes.sum(dtype=np.uint64))}


def _joined(bad: Sequence[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """(start, end, reason) of the damage in a block: neighbours as one, and a page with many pieces of it as a whole."""
    pieces = Counter(at // PAGE for at, _, _ in bad)
    start = end = -1
    first = ""
    for at, length, reason in bad:
        low, high = at, at + length
        if pieces[at // PAGE] > MOST_PIECES:
            low, high = at // PAGE * PAGE, max(high, at // PAGE * PAGE + PAGE)
        if low > end:
            if end >= 0:
                yield start, end, first
            start, end, first = low, high, reason
        end = max(end, high)
    if end >= 0:
        yield start, end, first
