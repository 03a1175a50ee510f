"""The container of ``.bin`` and ``.vsv`` files (Server 2012 R2). Knows bytes and keys, and no virtual machines.

``layout`` holds the structures, ``signature`` recognises such a file, ``reader`` is the tree.
"""
