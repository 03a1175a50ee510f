"""Plain LZ77 (the XPRESS of MS-XCA, sections 2.3 and 2.4) in Python: the readable fallback of the extension.

Both produce the same bytes and refuse the same input. Format: flags come in u32 words, most significant bit first, 0
for a literal byte, 1 for a match; a match is a u16 (13 bits offset - 1, 3 bits length - 3) with escapes for longer
lengths.
"""

from __future__ import annotations

from ..errors import CodecError

MIN_MATCH = 3
SOUGHT = 4  # matches of three bytes are passed over: each saves one byte, and costs every reader more than that
WINDOW = 8192
CHAIN_DEPTH = 8  # how many earlier places the encoder tries
GOOD_MATCH = 64  # a match of this length is taken without looking further
_MAX_SHORT = 7  # a stored length of 7 announces a nibble, a nibble of 15 a byte, a byte of 255 a u16, 0 a u32


def decode(data: bytes, size: int) -> bytes:
    """``size`` bytes of output; decoding stops when they are complete, whatever input is left.

    Raises CodecError where the input ends before that, or a match reaches behind the start of the output.
    """
    # Tuned: bounds are checked where Python does not check them anyway. A slice behind the end of the input comes out
    # short and the next index raises; output beyond `size` is at most one flag word's worth, and is cut off.
    out = bytearray()
    position, end = 0, len(data)
    nibble_at = -1  # index of the byte whose high nibble serves the next length, -1 for none
    try:
        while (produced := len(out)) < size and position + 4 <= end:
            flags = int.from_bytes(data[position : position + 4], "little")
            position += 4
            left = 32
            while flags:
                run = left - flags.bit_length()  # the literals before the next set flag
                if run:
                    left -= run
                    run += position
                    out += data[position:run]
                    position = run
                left -= 1
                flags ^= 1 << left
                low = data[position]
                offset = (data[position + 1] << 5 | low >> 3) + 1
                position += 2
                length = low & 7
                if length == _MAX_SHORT:
                    length, position, nibble_at = _long_length(data, position, nibble_at)
                    length = min(length, size)
                length += MIN_MATCH
                if offset > produced and offset > len(out):
                    raise CodecError(f"match reaches {offset - len(out):#x} bytes behind the start of the output")
                if length < offset:
                    out += out[-offset : length - offset]
                else:  # the match runs into its own output: repeat its beginning
                    out += (out[-offset:] * (length // offset + 1))[:length]
                    if len(out) >= size:
                        break
            else:
                if left:
                    left += position
                    out += data[position:left]
                    position = left
    except IndexError:
        pass  # the input ended inside a match
    except CodecError as error:
        if len(out) < size:
            raise CodecError(error.message, position=error.position or position, produced=len(out)) from None
    if len(out) < size:
        raise CodecError(
            f"the compressed data ends after {len(out):#x} of {size:#x} bytes", position=end, produced=len(out)
        )
    return bytes(out[:size])


def _long_length(data: bytes, position: int, nibble_at: int) -> tuple[int, int, int]:
    """Stored length (before adding 3) behind a short one of 7, the position after it, and the free nibble."""
    if nibble_at < 0:
        length = data[position] & 15
        nibble_at = position
        position += 1
    else:
        length = data[nibble_at] >> 4
        nibble_at = -1
    if length < 15:
        return length + _MAX_SHORT, position, nibble_at
    length = data[position]
    position += 1
    if length < 255:
        return length + 15 + _MAX_SHORT, position, nibble_at
    length = data[position] | data[position + 1] << 8
    position += 2
    if length == 0:
        length = data[position] | data[position + 1] << 8 | data[position + 2] << 16 | data[position + 3] << 24
        position += 4
    if length < 15 + _MAX_SHORT:
        raise CodecError(f"match length {length:#x} in its long form", position=position)
    return length, position, nibble_at


class _Finder:
    """Finds the longest of the most recent occurrences of four bytes; a chain per four bytes, newest first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._newest: dict[bytes, int] = {}
        self._older: list[int] = [-1] * len(data)

    def insert(self, position: int) -> None:
        key = self._data[position : position + SOUGHT]
        if len(key) == SOUGHT:
            self._older[position] = self._newest.get(key, -1)
            self._newest[key] = position

    def longest(self, position: int) -> tuple[int, int]:
        """(length, offset) of the best match at ``position``, which is not inserted yet; (0, 0) for none."""
        data, end = self._data, len(self._data)
        key = data[position : position + SOUGHT]
        candidate = self._newest.get(key, -1) if len(key) == SOUGHT else -1
        best, offset, tries = 0, 0, CHAIN_DEPTH
        while candidate >= 0 and tries and position - candidate <= WINDOW:
            length = SOUGHT
            while position + length < end and data[candidate + length] == data[position + length]:
                length += 1
            if length > best:
                best, offset = length, position - candidate
                if length >= GOOD_MATCH:
                    break
            candidate = self._older[candidate]
            tries -= 1
        return best, offset


def encode(data: bytes) -> bytes:
    """Compress; a match is put off by one byte where a longer one begins there. The extension makes the same bytes."""
    out = bytearray(4)
    flags_at, flags, count = 0, 0, 0
    nibble_at = -1
    finder = _Finder(data)
    position, end = 0, len(data)
    length, offset = finder.longest(0)
    while position < end:
        finder.insert(position)
        following = (0, 0)
        if 0 < length < GOOD_MATCH:
            following = finder.longest(position + 1)
        if length and following[0] <= length:
            nibble_at = _put_match(out, offset, length, nibble_at)
            flags = flags << 1 | 1
            for inside in range(position + 1, position + length):
                finder.insert(inside)
            position += length
            length, offset = finder.longest(position)
        else:
            out.append(data[position])
            flags <<= 1
            position += 1
            length, offset = following if length else finder.longest(position)
        count += 1
        if count == 32:
            out[flags_at : flags_at + 4] = flags.to_bytes(4, "little")
            flags_at, flags, count = len(out), 0, 0
            out += b"\0\0\0\0"
    rest = 32 - count  # unused flags are ones: a decoder that meets one at the end of the input knows that it is done
    out[flags_at : flags_at + 4] = (flags << rest | (1 << rest) - 1).to_bytes(4, "little")
    return bytes(out)


def _put_match(out: bytearray, offset: int, length: int, nibble_at: int) -> int:
    """Append one match; the index of a byte whose high nibble is still free, or -1."""
    stored = length - MIN_MATCH
    out += ((offset - 1) << 3 | min(stored, _MAX_SHORT)).to_bytes(2, "little")
    if stored < _MAX_SHORT:
        return nibble_at
    nibble = min(stored - _MAX_SHORT, 15)
    if nibble_at < 0:
        nibble_at = len(out)
        out.append(nibble)
    else:
        out[nibble_at] |= nibble << 4
        nibble_at = -1
    if nibble == 15:
        rest = stored - _MAX_SHORT - 15
        if rest < 255:
            out.append(rest)
        else:
            out.append(255)
            out += stored.to_bytes(2, "little") if stored < 1 << 16 else b"\0\0" + stored.to_bytes(4, "little")
    return nibble_at
