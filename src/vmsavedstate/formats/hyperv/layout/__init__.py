"""On-disk layouts of a Hyper-V saved state, for the reader here and the writer in :mod:`vmsavedstate.export`. No logic.

``keys`` names the keys, ``partition_state`` and ``registers`` the structures in the partition state, ``memory`` those of
guest memory, ``screen`` that of the console's picture.
"""
