"""Hyper-V's own saved states: what the keys of either container mean. Knows no paging and no containers' layouts.

``vmrs`` opens a ``.vmrs``, ``pair`` a ``.bin``/``.vsv`` pair. ``keys`` finds the values; ``state_chunks``, ``partition`` and
``registers`` read the partition state, ``ram_metadata`` and ``ram_blocks`` guest memory, ``screen`` the console's picture;
``reader`` makes a snapshot of them. ``layout`` holds the on-disk structures.
"""
