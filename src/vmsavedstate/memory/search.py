"""Searching memory for bytes or a regular expression, across the borders of pages, blocks and reads.

What is searched comes as pieces: stretches of addresses and where they are kept. Pieces whose addresses follow each
other are one stretch, in which a match may lie anywhere; so physical and virtual memory are searched alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import GuestMemoryError, InvalidArgumentError
from ..snapshot import PageBacking, Unreadable
from .gaps import MemoryGap

Pattern = bytes | re.Pattern[bytes]
Progress = Callable[[int], object]
Unread = Callable[[MemoryGap], object]

WINDOW = 1 << 20  # bytes read and searched at a time
REACH = 1 << 16  # how much of a match of a regular expression is certain to be looked at
BEFORE = 256  # bytes before a window that look-behind may see


class Piece(NamedTuple):
    """Memory to search: ``size`` bytes that have the addresses from ``address`` on, kept at backing ``position``."""

    address: int
    size: int
    position: int


class _Window(NamedTuple):
    """``data[:used]`` has the addresses from ``base`` on; ``last`` where the stretch ends behind it."""

    data: bytearray
    used: int
    base: int
    last: bool


def search(
    backing: PageBacking,
    pieces: Iterator[Piece],
    pattern: Pattern,
    progress: Progress | None,
    *,
    strict: bool,
    unread: Unread | None = None,
) -> Iterator[int]:
    """The addresses at which ``pattern`` begins, ascending within the pieces.

    Matches of bytes may overlap each other, those of a regular expression do not, as in :mod:`re`. Of a match longer than
    64 KiB the end may be missed. Memory that cannot be read is not searched, and ``unread`` is called for it; with
    ``strict`` it raises GuestMemoryError.
    """
    if isinstance(pattern, re.Pattern):
        if not isinstance(pattern.pattern, bytes) or pattern.match(b""):
            raise InvalidArgumentError(
                "the regular expression must be one of bytes, and must not match the empty string"
            )
        return _search_regex(_Windows(backing, REACH + BEFORE, progress, unread, strict=strict).over(pieces), pattern)
    if not isinstance(pattern, bytes) or not pattern or len(pattern) > WINDOW:
        raise InvalidArgumentError(
            "the pattern must be 1 to 1,048,576 bytes, or a compiled regular expression of bytes"
        )
    return _search_bytes(_Windows(backing, len(pattern) - 1, progress, unread, strict=strict).over(pieces), pattern)


def _search_bytes(windows: Iterator[_Window], pattern: bytes) -> Iterator[int]:
    """A window ends with all that a match beginning in it may lack, so each match is whole in exactly one window."""
    for data, used, base, _ in windows:
        at = data.find(pattern, 0, used)
        while at >= 0:
            yield base + at
            at = data.find(pattern, at + 1, used)


def _search_regex(windows: Iterator[_Window], pattern: re.Pattern[bytes]) -> Iterator[int]:
    """Matches that begin within REACH of the end of a window are left to the next one, which sees more of them."""
    searched = -1  # the address up to which matches have been yielded
    for data, used, base, last in windows:
        limit = used if last else used - REACH
        start = searched - base if base <= searched <= base + used else 0
        for match in pattern.finditer(data, start, used):
            if match.start() >= limit:
                break
            start = match.end()
            yield base + match.start()
        searched = base + max(start, limit) if not last else -1


class _Windows:
    """Pieces as windows of one buffer; the last ``keep`` bytes of a window stand before the next one of its stretch."""

    def __init__(
        self, backing: PageBacking, keep: int, progress: Progress | None, unread: Unread | None, *, strict: bool
    ) -> None:
        self._backing = backing
        self._keep = keep
        self._progress = progress
        self._unread = unread
        self._strict = strict
        self._data = bytearray(keep + WINDOW)
        self._view = memoryview(self._data)
        self._base = self._used = self._done = 0

    def over(self, pieces: Iterator[Piece]) -> Iterator[_Window]:
        """All windows."""
        for piece in pieces:
            yield from self._take(piece)
        yield from self._end()

    def _end(self) -> Iterator[_Window]:
        """The last window of a stretch."""
        if self._used:
            yield _Window(self._data, self._used, self._base, True)
        self._used = 0

    def _take(self, piece: Piece) -> Iterator[_Window]:
        address, size, position = piece
        while size:
            if address != self._base + self._used:
                yield from self._end()
                self._base = address
            if self._used == len(self._data):
                yield _Window(self._data, self._used, self._base, False)
                self._view[: self._keep] = self._view[self._used - self._keep :]
                self._base, self._used = self._base + self._used - self._keep, self._keep
            absent = self._absent(piece=Piece(address, size, position))
            if absent:  # in one step: a hostile file may claim any amount of memory that it does not hold
                address, size, position = address + absent, size - absent, position + absent
                continue
            step = min(len(self._data) - self._used, size)
            lost = self._read(Piece(address, step, position))
            if lost:
                self._report_unread(Piece(address, step, position), lost)
                for part in _sound_parts(Piece(address, step, position), lost):
                    yield from self._take(part)
            else:
                self._used += step
                self._report_progress(step)
            address, size, position = address + step, size - step, position + step

    def _absent(self, piece: Piece) -> int:
        """Bytes at the beginning of a piece that are not stored at all; they are reported."""
        if self._strict:
            return 0  # reading raises
        stored = self._backing.next_stored(piece.position)
        absent = piece.size if stored is None else min(stored - piece.position, piece.size)
        if absent and self._unread is not None:
            self._unread(MemoryGap(piece.address, piece.address + absent, "missing"))
        return absent

    def _read(self, piece: Piece) -> list[Unreadable]:
        """Read a piece behind what is in the window; what of it is lost, ascending."""
        target = self._view[self._used : self._used + piece.size]
        found = self._backing.read_into(piece.position, target)
        lost = [item for item in found if item.start < piece.position + piece.size and item.end > piece.position]
        if lost and self._strict:
            start = max(0, lost[0].start - piece.position) + piece.address
            raise GuestMemoryError(
                f"the memory at {start:#x} cannot be searched: {lost[0].message}",
                start=start, end=min(piece.address + piece.size, start + lost[0].end - lost[0].start),
                reason=lost[0].reason, file=lost[0].file,
            )  # fmt: skip
        return sorted(lost, key=lambda item: item.start)

    def _report_unread(self, piece: Piece, lost: list[Unreadable]) -> None:
        if self._unread is None:
            return
        shift = piece.address - piece.position
        for item in lost:
            start, end = max(item.start, piece.position), min(item.end, piece.position + piece.size)
            self._unread(MemoryGap(start + shift, end + shift, item.reason))

    def _report_progress(self, step: int) -> None:
        self._done += step
        if self._progress is not None:
            self._progress(self._done)


def _sound_parts(piece: Piece, lost: list[Unreadable]) -> Iterator[Piece]:
    """What of a piece lies between the lost ranges."""
    at, end = piece.position, piece.position + piece.size
    for item in [*lost, Unreadable(end, end, "", "")]:
        if at < item.start:
            stop = min(item.start, end)
            yield Piece(piece.address + at - piece.position, stop - at, at)
        at = max(at, item.end)
