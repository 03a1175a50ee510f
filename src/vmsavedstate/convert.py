"""The name under which 0.1.0 had :mod:`.export`; it stays importable."""

from .export import Conversion, RegisterChange, write_vmrs

__all__ = ["Conversion", "RegisterChange", "write_vmrs"]
