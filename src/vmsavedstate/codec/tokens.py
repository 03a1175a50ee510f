"""Page tokens: how a compressed 1 MiB block of guest memory is stored (format specification, section 5), in Python.

A block is indexed first and decoded after: :func:`scan` walks over the tokens without touching their payload, so that
one page can be decoded without the others. The extension has the same functions.

A *segment* is what one token puts out, :data:`SEGMENT`: output position, output size, kind, payload position, payload
size (bytes; the payload position counts from the start of the stored block).
"""

from __future__ import annotations

import struct

from ..errors import CodecError
from . import xpress

PAGE = 4096
BLOCK = 0x100000
TOKEN_END = 0xFFFFFFFF
TOKEN_FILL = 0xFFFFFFFE
TOKEN_FILL_MANY = 0xFFFFFFFD
TOKEN_PART = 0xFFFFFFFC

PLAIN, FILL, XPRESS, LAST = 0, 1, 2, 3  # LAST is the END token, never a segment
SEGMENT = struct.Struct("<IIIII")
MORE, END, BAD = 0, 1, 2
ScanAnswer = tuple[bytes, int, int, int, str]

_INSIDE = "the block ends inside a token"
_WORD = struct.Struct("<I")
_PAIR = struct.Struct("<II")


def scan(window: bytes, base: int, position: int, produced: int, size: int, stop: int) -> ScanAnswer:
    """Index the tokens of a stored block from ``position`` on.

    Arguments: ``window``, the bytes of the block that are at hand, and ``base``, their position in it; ``position`` and
    ``produced``, where the walk stands (0, 0 at first); ``size`` of the whole stored block; ``stop``, the output
    position at which the walk may end.

    Returns the segments found (packed), the new position and produced count, the state, and the reason for BAD. MORE
    means that the walk reached ``stop`` or the end of the window; the next window begins at the position returned.
    """
    segments = bytearray()
    limit = min(size, base + len(window))
    while produced <= stop:
        if position == size and produced == BLOCK:  # tolerated: the output is complete, only END is missing
            return bytes(segments), position, produced, END, ""
        step = _step(window, base, position, produced, size, limit)
        if step is None:
            break
        if isinstance(step, str):
            return bytes(segments), position, produced, BAD, step
        out_size, kind, payload, stored, position_after = step
        if kind == LAST:
            return bytes(segments), position, produced, END, ""
        segments += SEGMENT.pack(produced, out_size, kind, payload, stored)
        produced += out_size
        position = position_after
    return bytes(segments), position, produced, MORE, ""


def _step(
    window: bytes, base: int, position: int, produced: int, size: int, limit: int
) -> tuple[int, int, int, int, int] | str | None:
    """One token: output size, kind, payload position, payload size, position after it. Or why it is bad.

    None where the window ends inside it; ``limit`` is the end of the window, or of the block.
    """
    if position + 4 > limit:
        return f"the tokens end after {produced:#x} bytes of output" if position + 4 > size else None
    token = _WORD.unpack_from(window, position - base)[0]
    if token == TOKEN_END:
        whole = produced == BLOCK
        return (0, LAST, position, 0, position) if whole else f"the tokens make {produced:#x} bytes instead of 0x100000"
    if token == TOKEN_PART:
        if position + 12 > limit:
            return _INSIDE if position + 12 > size else None
        out_size, stored = _PAIR.unpack_from(window, position + 4 - base)
        payload, kind = position + 12, PLAIN if out_size == stored else XPRESS
        if not 0 < out_size < PAGE:
            return f"partial page of {out_size:#x} bytes"
        if produced % PAGE + out_size > PAGE:
            return "partial page leaves its page"
    else:
        if produced % PAGE:
            return f"token {token:#x} inside a page"
        payload, stored, kind, out_size = position + 4, token, XPRESS, PAGE
        if token in (TOKEN_FILL, TOKEN_FILL_MANY):
            stored, kind = 8, FILL
        elif token == PAGE:
            kind = PLAIN
        elif not 0 < token < PAGE:
            return f"unknown token {token:#x}"
    following = payload + stored
    if token == TOKEN_FILL_MANY:
        following += 4
        if following > limit:
            return _INSIDE if following > size else None
        pages = _WORD.unpack_from(window, payload + 8 - base)[0]
        out_size = pages * PAGE
        if not pages:
            return "fill of no pages"
    if following > size:
        return _INSIDE
    if produced + out_size > BLOCK:
        return f"the tokens make more than 0x100000 bytes (token {token:#x})"
    return out_size, kind, payload, stored, following


def decode(data: bytes, base: int, segments: bytes, start: int, size: int) -> tuple[bytes, list[tuple[int, int, str]]]:
    """``size`` bytes of output from output position ``start`` on.

    ``segments`` (packed) must cover that range, ``data`` their payload from position ``base`` of the stored block on.
    Returns the output and a list of (output position, size, reason) of what could not be decoded; such bytes are zero.
    """
    out = bytearray(size)
    bad: list[tuple[int, int, str]] = []
    end = start + size
    for at, out_size, kind, payload, stored in SEGMENT.iter_unpack(segments):
        low, high = max(at, start), min(at + out_size, end)
        if low >= high:
            continue
        piece = data[payload - base : payload - base + stored]
        try:
            if payload < base or len(piece) != stored:
                raise CodecError("the payload is not at hand")
            if kind == FILL:
                piece *= (out_size + 7) // 8
            elif kind == XPRESS:
                piece = xpress.decode(piece, out_size)
        except CodecError as error:
            bad.append((at, out_size, error.message))
            continue
        out[low - start : high - start] = piece[low - at : high - at]
    return bytes(out), bad


def encode_zero_block() -> bytes:
    """The tokens of a block of zeros."""
    out = bytearray()
    _put_fill(out, bytes(8), BLOCK // PAGE)
    return bytes(out + _WORD.pack(TOKEN_END))


def encode_block(data: bytes) -> bytes:
    """The token stream of a block; ``data`` is a whole number of pages, at most 0x100000 bytes.

    The result may be as long as the block or longer; then it must be stored plain (section 4.2).
    """
    if len(data) % PAGE or not 0 < len(data) <= BLOCK:
        raise ValueError(f"a block is 1 to 256 pages, not {len(data):#x} bytes")
    out = bytearray()
    fill, run = b"", 0
    for at in range(0, len(data), PAGE):
        page = data[at : at + PAGE]
        pattern = page[:8]
        uniform = page == pattern * (PAGE // 8)
        if run and not (uniform and pattern == fill):
            _put_fill(out, fill, run)
            run = 0
        if uniform:
            fill, run = pattern, run + 1
            continue
        packed = xpress.encode(page)
        if len(packed) >= PAGE:
            packed = page
        out += _WORD.pack(len(packed)) + packed
    if run:
        _put_fill(out, fill, run)
    return bytes(out + _WORD.pack(TOKEN_END))


def _put_fill(out: bytearray, pattern: bytes, pages: int) -> None:
    if pages == 1:
        out += _WORD.pack(TOKEN_FILL) + pattern
    else:
        out += _WORD.pack(TOKEN_FILL_MANY) + pattern + _WORD.pack(pages)
