"""Recognises files of this container; apart from the reader, which other files do without."""

from __future__ import annotations

from ...files.source import Source
from . import layout


def has_signature(source: Source) -> bool:
    """Whether the file begins with the signature of this container (section 1)."""
    return source.size >= 4 and source.read(0, 4) == layout.SIGNATURE.to_bytes(4, "little")
