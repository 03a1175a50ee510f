"""What may be done to a page: rights of kernel and user, and how the entries of a walk take them away.

Every entry on the way can only deny. So the denials of a walk are or-ed together, and a table of the paging form says
which rights are left. Rights never make a page unmapped.
"""

from __future__ import annotations

from enum import IntFlag


class Access(IntFlag):
    """The rights of a page, with those of user mode (ring 3, EL0) and of the kernel (rings 0 to 2, EL1) apart.

    What changes while a program runs is not looked at: SMAP, protection keys, PSTATE.PAN.
    """

    KERNEL_READ = 1
    KERNEL_WRITE = 2
    KERNEL_EXECUTE = 4
    USER_READ = 8
    USER_WRITE = 16
    USER_EXECUTE = 32

    @property
    def kernel(self) -> str:
        """The rights of the kernel as text, such as ``rw-``."""
        return _text(int(self))

    @property
    def user(self) -> str:
        """The rights of user mode as text, ``---`` for a page of the kernel."""
        return _text(int(self) >> 3)

    def __str__(self) -> str:
        """Kernel and user: ``rwx ---``."""
        return f"{self.kernel} {self.user}"


def _text(bits: int) -> str:
    return "".join(letter if bits >> number & 1 else "-" for number, letter in enumerate("rwx"))


ALL = sum(int(right) for right in Access)  # not ~Access(0), which is -1 before Python 3.11

# Denials: what one entry can take away. Bit numbers in the index of a table of rights.
READ_ONLY, NO_USER, NO_USER_EXECUTE, NO_KERNEL_EXECUTE, NOT_ACCESSED = 1, 2, 4, 8, 16
NO_EXECUTE = NO_USER_EXECUTE | NO_KERNEL_EXECUTE
DENIALS = 32

Rights = tuple[int, ...]


def x86_rights(*, write_protect: bool, smep: bool) -> Rights:
    """Rights by denial on x86 (SDM volume 3, 4.6).

    Without CR0.WP the kernel may write read-only pages; with CR4.SMEP it may not execute pages of the user.
    """
    table = []
    for denied in range(DENIALS):
        rights = Access.KERNEL_READ
        if not (denied & READ_ONLY and write_protect):
            rights |= Access.KERNEL_WRITE
        if not denied & NO_KERNEL_EXECUTE and (denied & NO_USER or not smep):
            rights |= Access.KERNEL_EXECUTE
        if not denied & NO_USER:
            rights |= Access.USER_READ
            if not denied & READ_ONLY:
                rights |= Access.USER_WRITE
            if not denied & NO_USER_EXECUTE:
                rights |= Access.USER_EXECUTE
        table.append(int(rights))
    return tuple(table)


def arm64_rights(*, write_never_execute: bool, hardware_access_flag: bool) -> Rights:
    """Rights by denial at EL1 and EL0 (Arm ARM D8.4).

    A page that user mode may write is never executable for the kernel; with SCTLR_EL1.WXN nothing writable is
    executable. A page whose access flag is clear faults on any use, unless TCR_EL1.HA lets the hardware set it.
    """
    table = []
    for denied in range(DENIALS):
        rights = Access.KERNEL_READ
        if not denied & READ_ONLY:
            rights |= Access.KERNEL_WRITE
        if not denied & NO_USER:
            rights |= Access.USER_READ
            if not denied & READ_ONLY:
                rights |= Access.USER_WRITE
        if not denied & NO_USER_EXECUTE and not (write_never_execute and rights & Access.USER_WRITE):
            rights |= Access.USER_EXECUTE
        writable = rights & Access.USER_WRITE or (write_never_execute and rights & Access.KERNEL_WRITE)
        if not denied & NO_KERNEL_EXECUTE and not writable:
            rights |= Access.KERNEL_EXECUTE
        if denied & NOT_ACCESSED and not hardware_access_flag:
            rights = Access(0)
        table.append(int(rights))
    return tuple(table)


def one_level_rights(*, write_never_execute: bool, hardware_access_flag: bool) -> Rights:
    """Rights by denial at EL2 without VHE and at EL3, which have no user mode (Arm ARM D8.4)."""
    table = arm64_rights(write_never_execute=write_never_execute, hardware_access_flag=hardware_access_flag)
    kernel = int(Access.KERNEL_READ | Access.KERNEL_WRITE | Access.KERNEL_EXECUTE)
    return tuple(table[denied | NO_USER] & kernel for denied in range(DENIALS))
