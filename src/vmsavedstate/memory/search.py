"""Searching memory for bytes or a regular expression, across the borders of pages and blocks.

What is searched comes as blocks (:mod:`.blocks`) that tile a range. Blocks between two gaps are one stretch, in which
a match may be anywhere; so physical and virtual memory are searched alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import InvalidArgumentError
from ..vocabulary import Reason
from .blocks import PIECE, MemoryBlock
from .gaps import MemoryGap

Pattern = bytes | re.Pattern[bytes]
Progress = Callable[[int], object]
Unread = Callable[[MemoryGap], object]

REACH = 1 << 16  # how much of a match of a regular expression is certain to be looked at
BEFORE = 256  # bytes before a window that look-behind may see
NOT_SEARCHED = (Reason.MISSING, Reason.DAMAGED)  # holes and unmapped addresses are no memory


class _Window(NamedTuple):
    """``data`` has the addresses from ``base`` on; ``last`` where the stretch ends behind it."""

    data: bytes
    base: int
    last: bool


def check_pattern(pattern: Pattern) -> None:
    """Raise InvalidArgumentError for a pattern that is empty, too long, or could match nothing."""
    if isinstance(pattern, re.Pattern):
        if not isinstance(pattern.pattern, bytes) or pattern.match(b""):
            raise InvalidArgumentError(
                "the regular expression must be one of bytes, and must not match the empty string"
            )
    elif not isinstance(pattern, bytes) or not 0 < len(pattern) <= PIECE:
        raise InvalidArgumentError(
            "the pattern must be 1 to 1,048,576 bytes, or a compiled regular expression of bytes"
        )


def search(blocks: Iterator[MemoryBlock], pattern: Pattern) -> Iterator[int]:
    """The addresses at which ``pattern`` begins, ascending within the blocks.

    Matches of bytes may overlap each other, those of a regular expression do not, as in :mod:`re`. Of a match longer than
    64 KiB the end may be missed.
    """
    return (
        _search_regex(_windows(blocks), pattern) if isinstance(pattern, re.Pattern) else _search_bytes(blocks, pattern)
    )


def reported(
    blocks: Iterator[MemoryBlock],
    progress: Progress | None,
    unread: Unread | None,
    refuse: Callable[[MemoryGap], object] | None,
) -> Iterator[MemoryBlock]:
    """The same blocks; ``progress`` gets the bytes so far, ``unread`` what is lost, or ``refuse``, which raises."""
    done = 0
    for block in blocks:
        if block.gaps:
            gap = block.gaps[0]
            if gap.reason in NOT_SEARCHED:
                if refuse is not None:
                    refuse(gap)
                if unread is not None:
                    unread(gap)
        yield block
        if not block.gaps:
            done += len(block.data)
            if progress is not None:
                progress(done)


def _search_bytes(blocks: Iterator[MemoryBlock], pattern: bytes) -> Iterator[int]:
    """In each block, and where two meet: ``tail`` is what a match that ends in the next block may begin in."""
    keep, tail = len(pattern) - 1, b""
    known, misses = b"", False
    for address, data, gaps in blocks:
        if gaps:
            tail = b""
            continue
        if tail:
            seam, base = tail + data[:keep], address - len(tail)
            at = seam.find(pattern)
            while at >= 0:
                yield base + at
                at = seam.find(pattern, at + 1)
        if data is not known:  # one object stands for all blocks of zeros
            known, misses = data, False
        if not misses:
            at = data.find(pattern)
            misses = at < 0
            while at >= 0:
                yield address + at
                at = data.find(pattern, at + 1)
        if keep:
            tail = data[-keep:] if len(data) >= keep else (tail + data)[-keep:]


def _search_regex(windows: Iterator[_Window], pattern: re.Pattern[bytes]) -> Iterator[int]:
    """Matches that begin within REACH of the end of a window are left to the next one, which sees more of them."""
    searched = -1  # the address up to which matches have been yielded
    for data, base, last in windows:
        used = len(data)
        limit = used if last else used - REACH
        start = searched - base if base <= searched <= base + used else 0
        for match in pattern.finditer(data, start):
            if match.start() >= limit:
                break
            start = match.end()
            yield base + match.start()
        searched = base + max(start, limit) if not last else -1


def _windows(blocks: Iterator[MemoryBlock]) -> Iterator[_Window]:
    """Blocks as windows; the last bytes of a window stand before the next one of its stretch."""
    keep = REACH + BEFORE
    data, base = b"", 0
    for block in blocks:
        if block.gaps:
            if data:
                yield _Window(data, base, True)
            data = b""
            continue
        if not data:
            data, base = block.data, block.address
            continue
        if len(data) > keep:
            yield _Window(data, base, False)
            data, base = data[-keep:], base + len(data) - keep
        data += block.data
    if data:
        yield _Window(data, base, True)
