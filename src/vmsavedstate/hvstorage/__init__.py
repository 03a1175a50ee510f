"""The container of ``.vmrs`` and ``.vmcx`` files. It knows bytes, tables and keys, and nothing of virtual machines.

``layout`` holds the structures for reader and writer; ``header``, ``replay``, ``object_table`` and ``key_table`` read
one structure each; ``store`` is the tree; ``writer`` makes such files.
"""

from .store import Store

__all__ = ["Store"]
