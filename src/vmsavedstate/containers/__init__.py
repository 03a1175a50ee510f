"""The containers of Hyper-V's files: trees of named, typed values. Knows bytes and keys, and no virtual machines.

``keytree`` is the tree itself, ``hvstorage`` reads and writes ``.vmrs`` and ``.vmcx``, ``legacy`` reads ``.bin`` and
``.vsv``; ``collector`` keeps Python's garbage collector off large trees. What the keys mean belongs to
:mod:`vmsavedstate.formats`.
"""
