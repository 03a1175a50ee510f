"""Microsoft's small enumerations (specification of the API, section 3.1); register numbers stand beside."""

from __future__ import annotations

from .cenum import CEnum


class PagingMode(CEnum):
    """PAGING_MODE. There is no value for five-level paging in any SDK; it counts as LONG."""

    INVALID = 0, "Paging_Invalid"
    NON_PAGED = 1, "Paging_NonPaged"
    X86_32BIT = 2, "Paging_32Bit"
    PAE = 3, "Paging_Pae"
    LONG = 4, "Paging_Long"
    ARMV8 = 5, "Paging_Armv8"


class VirtualProcessorArch(CEnum):
    """VIRTUAL_PROCESSOR_ARCH. The original documentation page misspells the first name."""

    UNKNOWN = 0, "Arch_Unknown", "Arch_Unkown"
    X86 = 1, "Arch_x86"
    X64 = 2, "Arch_x64"
    ARMV8 = 3, "Arch_Armv8"


class VirtualProcessorVendor(CEnum):
    """VIRTUAL_PROCESSOR_VENDOR (2021; used by no function of the provider)."""

    UNKNOWN = 0, "ProcessorVendor_Unknown"
    AMD = 1, "ProcessorVendor_Amd"
    INTEL = 2, "ProcessorVendor_Intel"
    HYGON = 3, "ProcessorVendor_Hygon"
    ARM = 4, "ProcessorVendor_Arm"


class GuestOsVendor(CEnum):
    """GUEST_OS_VENDOR (2021)."""

    UNDEFINED = 0, "GuestOsVendorUndefined"
    MICROSOFT = 1, "GuestOsVendorMicrosoft"
    HPE = 2, "GuestOsVendorHPE"
    LANCOM = 0x200, "GuestOsVendorLANCOM"


class GuestOsMicrosoftIds(CEnum):
    """GUEST_OS_MICROSOFT_IDS (2021)."""

    UNDEFINED = 0, "GuestOsMicrosoftUndefined"
    MSDOS = 1, "GuestOsMicrosoftMSDOS"
    WINDOWS_3X = 2, "GuestOsMicrosoftWindows3x"
    WINDOWS_9X = 3, "GuestOsMicrosoftWindows9x"
    WINDOWS_NT = 4, "GuestOsMicrosoftWindowsNT"
    WINDOWS_CE = 5, "GuestOsMicrosoftWindowsCE"


class GuestOsOpenSourceIds(CEnum):
    """GUEST_OS_OPENSOURCE_IDS (2021)."""

    UNDEFINED = 0, "GuestOsOpenSourceUndefined"
    LINUX = 1, "GuestOsOpenSourceLinux"
    FREEBSD = 2, "GuestOsOpenSourceFreeBSD"
    XEN = 3, "GuestOsOpenSourceXen"
    ILLUMOS = 4, "GuestOsOpenSourceIllumos"
