"""Real guests for the tests: small machines booted under QEMU, frozen, and compared with what this package reads.

``packages`` fetches kernels and firmware from Debian, ``programs`` makes the guests' own code, ``kinds`` lists the guests,
``machine`` runs QEMU, ``capture`` takes a frozen machine's memory, registers and translations, ``addresses`` chooses what
to ask, ``compare`` holds a saved state against it. ``tables`` writes random page tables into a stopped machine.
"""
