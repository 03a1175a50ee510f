"""Writing a saved machine in another form. From here only the public objects may be touched, never a format's inside."""

from .vmrs import Conversion, RegisterChange, write_vmrs

__all__ = ["Conversion", "RegisterChange", "write_vmrs"]
