"""XPRESS and page tokens, and the one choice between the extension and the fallback in Python. Knows no files.

The extension is used where it was built; ``VMSAVEDSTATE_CODEC=python`` forces the fallback, ``VMSAVEDSTATE_CODEC=rust``
demands the extension (``VMSAVEDSTATE_KERNEL`` is the variable's old name). An extension that is installed and does not load
is an error: the fallback is 50 times slower, so nobody should get it without knowing.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any, Protocol

from ..errors import CodecError, InvalidArgumentError, VmSavedStateError
from ..integers import as_int_in
from . import tokens, xpress
from .tokens import BAD, BLOCK, END, MORE, PAGE, SEGMENT, ScanAnswer

__all__ = [
    "BAD",
    "BLOCK",
    "END",
    "MORE",
    "PAGE",
    "SEGMENT",
    "ZERO_BLOCK",
    "Codec",
    "ScanAnswer",
    "active",
    "xpress_decode",
    "xpress_encode",
]


MAX_OUTPUT = 64 << 20  # of the public functions; pages have 4 KiB


ZERO_BLOCK = tokens.encode_zero_block()  # as this package writes a block of zeros


class Codec(Protocol):
    """What either codec offers; see :mod:`.tokens` and :mod:`.xpress` for the meaning of each function."""

    name: str

    def xpress_decode(self, data: bytes, size: int) -> bytes:
        """``size`` bytes of plain LZ77 output; CodecError."""
        ...

    def xpress_encode(self, data: bytes) -> bytes:
        """Plain LZ77 data that decodes to ``data``."""
        ...

    def scan(self, window: bytes, base: int, position: int, produced: int, size: int, stop: int) -> ScanAnswer:
        """Index page tokens."""
        ...

    def decode(
        self, data: bytes, base: int, segments: bytes, start: int, size: int
    ) -> tuple[bytes, list[tuple[int, int, str]]]:
        """Decode a part of an indexed block."""
        ...

    def encode_block(self, data: bytes) -> bytes:
        """Make the page tokens of a block."""
        ...


class PythonCodec:
    """The fallback: pure Python, no compiled code."""

    name = "python"
    xpress_decode = staticmethod(xpress.decode)
    xpress_encode = staticmethod(xpress.encode)
    scan = staticmethod(tokens.scan)
    decode = staticmethod(tokens.decode)
    encode_block = staticmethod(tokens.encode_block)


class RustCodec:
    """The extension; releases the interpreter lock while it decodes."""

    name = "rust"

    def __init__(self) -> None:
        from .. import _extension

        self.extension = _extension
        self.xpress_encode = _extension.xpress_encode
        self.scan = _extension.scan
        self.decode = _extension.decode
        self.encode_block = _extension.encode_block

    def xpress_decode(self, data: bytes, size: int) -> bytes:
        """``size`` bytes of plain LZ77 output; CodecError."""
        out, message, position, produced = self.extension.xpress_decode(data, size)
        if message:
            raise CodecError(message, position=position, produced=produced)
        return out


def extension_is_built() -> bool:
    """Whether the extension is installed, whether or not it loads."""
    return importlib.util.find_spec("._extension", __name__.rpartition(".")[0]) is not None


def select(choice: str) -> Codec:
    """The codec for one value of ``VMSAVEDSTATE_CODEC``: empty, ``python`` or ``rust``.

    Raises InvalidArgumentError for any other value, VmSavedStateError where the extension is demanded or built and does not
    load.
    """
    if choice not in ("", "python", "rust"):
        raise InvalidArgumentError(
            f"VMSAVEDSTATE_CODEC is {choice!r}", remedy="set it to 'python' or 'rust', or leave it unset"
        )
    if choice == "python" or (not choice and not extension_is_built()):
        return PythonCodec()
    try:
        return RustCodec()
    except ImportError as error:
        raise VmSavedStateError(
            f"the extension does not load: {error}",
            remedy="reinstall the package, or set VMSAVEDSTATE_CODEC=python to run without it",
        ) from error


_active: Codec | None = None


def active() -> Codec:
    """The codec of this process; chosen at the first call."""
    global _active
    if _active is None:
        _active = select(os.environ.get("VMSAVEDSTATE_CODEC") or os.environ.get("VMSAVEDSTATE_KERNEL", ""))
    return _active


def extension() -> Any:
    """The extension where it is in use, for what it does besides decoding; None where the fallback is."""
    chosen = active()
    return chosen.extension if isinstance(chosen, RustCodec) else None


def xpress_decode(data: bytes, size: int) -> bytes:
    """``size`` bytes of output of plain LZ77 (XPRESS, MS-XCA); raises CodecError, InvalidArgumentError above 64 MiB."""
    size = as_int_in(size, "the size of the output", 0, MAX_OUTPUT)
    return active().xpress_decode(data, size)


def xpress_encode(data: bytes) -> bytes:
    """Plain LZ77 (XPRESS, MS-XCA) data that decodes to ``data``."""
    return active().xpress_encode(data)
