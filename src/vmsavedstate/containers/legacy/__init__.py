"""The container of ``.bin`` and ``.vsv`` files (Server 2012 R2). It knows bytes and keys, not virtual machines."""

from .reader import LegacyStore

__all__ = ["LegacyStore"]
