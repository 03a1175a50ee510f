"""Writing a saved machine to a file: a module per format, on public objects and the ``layout`` of that format alone.

``conversion`` writes any saved state as a ``.vmrs`` and lists what could not be taken over; ``vmrs`` is the writer of that
format, ``partition_state`` makes its partition state.
"""

from .conversion import Conversion, RegisterChange, write_vmrs

__all__ = ["Conversion", "RegisterChange", "write_vmrs"]
