"""The container of ``.vmrs`` and ``.vmcx`` files. Knows bytes, tables and keys, and no virtual machines.

``layout`` holds the structures for reader and writer; ``header``, ``replay``, ``object_table`` and ``key_table`` read
one structure each; ``store`` is the tree; ``writer`` makes such files; ``apply_log`` writes a pending replay log into one.
"""
