"""Hyper-V's own states: what the keys of either container mean. Knows no paging and no files' layouts.

``schema`` names the keys, ``layout`` and ``register_layout`` the structures in their values; ``chunks`` and
``partition`` read the partition state, ``ram_metadata`` and ``ram_blocks`` the guest's memory; ``reader`` joins them
into a snapshot.
"""
