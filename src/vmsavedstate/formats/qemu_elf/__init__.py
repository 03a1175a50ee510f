"""ELF dumps of QEMU and KVM guests (``dump-guest-memory``, ``virsh dump --memory-only``). Knows no paging.

``layout`` names the structures, ``headers`` finds segments and notes, ``segments`` is the guest's memory, ``notes`` its
processors, ``register_file`` what a person adds to them; ``reader`` joins them into a snapshot. Sources: the System V
ABI for ELF, the Linux core-dump notes, and QEMU's documented dump format as real dumps show it.
"""
