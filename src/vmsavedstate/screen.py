"""The picture of the console that a saved state may hold, and its way into a PNG file."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple


class Screen(NamedTuple):
    """A picture of ``width`` x ``height`` pixels; ``rgb`` holds three bytes per pixel, row by row from the top."""

    width: int
    height: int
    rgb: bytes

    def __repr__(self) -> str:
        """The size; the pixels would flood a prompt."""
        return f"<Screen {self.width} x {self.height}>"

    @classmethod
    def from_rgb565(cls, width: int, height: int, data: bytes) -> Screen:
        """From 16-bit pixels, little-endian, red in the high 5 bits (format specification, 3.1)."""
        # Each pixel is one of 65,536 values: translate the two bytes through tables instead of computing each pixel.
        low, high = data[0::2], data[1::2]
        rgb = bytearray(3 * width * height)
        rgb[0::3] = high.translate(_RED)
        rgb[2::3] = low.translate(_BLUE)
        green = int.from_bytes(high.translate(_GREEN_HIGH), "little") | int.from_bytes(
            low.translate(_GREEN_LOW), "little"
        )  # the two parts share no bit, so one OR over the whole picture joins them
        rgb[1::3] = bytes(green.to_bytes(width * height, "little")).translate(_GREEN)
        return cls(width, height, bytes(rgb))

    def to_rgb565(self) -> bytes:
        """The 16-bit pixels Hyper-V keeps; the inverse of :meth:`from_rgb565`."""
        import numpy as np

        red, green, blue = (np.frombuffer(self.rgb, dtype=np.uint8)[channel::3].astype("<u2") for channel in range(3))
        return bytes((red >> 3 << 11 | green >> 2 << 5 | blue >> 3).astype("<u2").tobytes())

    def to_png(self) -> bytes:
        """The picture as a PNG file: 8 bits per channel, no alpha."""
        import numpy as np

        rows = np.zeros((self.height, 3 * self.width + 1), dtype=np.uint8)  # each row begins with its filter, none
        rows[:, 1:] = np.frombuffer(self.rgb, dtype=np.uint8).reshape(self.height, 3 * self.width)
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + _piece(b"IHDR", header)
            + _piece(b"IDAT", zlib.compress(rows.data))
            + _piece(b"IEND", b"")
        )


def _piece(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _widen(value: int, bits: int) -> int:
    """A ``bits``-wide channel value on the scale 0..255, its high bits repeated below."""
    return value << (8 - bits) | value >> (2 * bits - 8)


_RED = bytes(_widen(byte >> 3, 5) for byte in range(256))
_BLUE = bytes(_widen(byte & 31, 5) for byte in range(256))
_GREEN_HIGH = bytes((byte & 7) << 3 for byte in range(256))
_GREEN_LOW = bytes(byte >> 5 for byte in range(256))
_GREEN = bytes(_widen(byte & 63, 6) for byte in range(256))
