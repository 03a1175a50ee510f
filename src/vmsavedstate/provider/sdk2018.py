"""The generation of SDK 17134 to 19041: other registers, other translation errors, no ARM64 (API specification, 1 and 7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..datatypes.enums import PagingMode, VirtualProcessorArch
from ..datatypes.structures import VirtualProcessorRegister
from ..errors import E_FAIL, InvalidArgumentError, PageNotMapped, RegisterNotAvailableError
from . import guest_memory, processors
from .guest_memory import (
    GetGuestPhysicalMemoryChunks,
    GetGuestRawSavedMemorySize,
    GetMemoryBlockCacheLimit,
    GuestPhysicalAddressToRawSavedMemoryOffset,
    ReadGuestPhysicalAddress,
    ReadGuestRawSavedMemory,
    SetMemoryBlockCacheLimit,
)
from .instance import HANDLES
from .loading import (
    ApplyPendingSavedStateFileReplayLog,
    LoadSavedStateFile,
    LoadSavedStateFiles,
    ReleaseSavedStateFiles,
)
from .locate import LocateSavedStateFiles
from .processors import GetArchitecture, GetPagingMode, GetVpCount, InKernelSpace
from .register_values import value_2018

__all__ = [
    "LocateSavedStateFiles",
    "LoadSavedStateFile",
    "LoadSavedStateFiles",
    "ApplyPendingSavedStateFileReplayLog",
    "ReleaseSavedStateFiles",
    "GetVpCount",
    "GetArchitecture",
    "GetRegisterValue",
    "GetPagingMode",
    "ReadGuestPhysicalAddress",
    "GuestVirtualAddressToPhysicalAddress",
    "GetGuestPhysicalMemoryChunks",
    "GuestPhysicalAddressToRawSavedMemoryOffset",
    "ReadGuestRawSavedMemory",
    "GetGuestRawSavedMemorySize",
    "ForceArchitecture",
    "InKernelSpace",
    "ForcePagingMode",
    "SetMemoryBlockCacheLimit",
    "GetMemoryBlockCacheLimit",
    "ApplyGuestMemoryFix",
]

# Section 5: one code for the entry that ended the walk; PXE_NOT_PRESENT also where no entry could express the address.
PXE, PDPTE, PDE, PTE = 0xC0370505, 0xC0370506, 0xC0370507, 0xC0370508
_NOT_PRESENT = {"PDPTE": PDPTE, "PDE": PDE, "PTE": PTE, "level 1": PDPTE, "level 2": PDE, "level 3": PTE}


def GetRegisterValue(handle: int, vp_id: int, register: VirtualProcessorRegister) -> int:
    """The 64 bits of a register, also in ``register.RegisterValue``.

    The caller's ``register.Architecture`` chooses the table of ``register.RegisterId``, whatever the processor ran.
    Raises InvalidArgumentError for another architecture than x86 and x64, an unknown register number, or an ARM64 guest;
    RegisterNotAvailableError.
    """
    processor = HANDLES.get(handle).processor(vp_id)
    if register.Architecture not in (VirtualProcessorArch.X86, VirtualProcessorArch.X64):
        raise InvalidArgumentError(f"the architecture {register.Architecture} is neither Arch_x86 (1) nor Arch_x64 (2)")
    if processor.family != "x86":
        raise InvalidArgumentError("this generation of the interface has no registers of ARM64 processors")
    x64 = register.Architecture == VirtualProcessorArch.X64
    register.RegisterValue = value_2018(processor.registers, x64, register.RegisterId)
    return int(register.RegisterValue)


def GuestVirtualAddressToPhysicalAddress(handle: int, vp_id: int, virtual_address: int) -> int:
    """As in the later generation; PageNotMapped has the code of the entry that ended the walk, 0xC0370505 to 0xC0370508."""
    with _codes_by_level():
        return guest_memory.GuestVirtualAddressToPhysicalAddress(handle, vp_id, virtual_address)


def ApplyGuestMemoryFix(handle: int, vp_id: int, virtual_address: int, data: bytes | memoryview) -> None:
    """As in the later generation, with the codes of this one."""
    with _codes_by_level():
        guest_memory.ApplyGuestMemoryFix(handle, vp_id, virtual_address, data)


@contextmanager
def _codes_by_level() -> Iterator[None]:
    """Gives PageNotMapped the code that says at which level the walk ended.

    What the state does not hold is E_FAIL: the code of the later generation means PDPTE_NOT_PRESENT here.
    """
    try:
        yield
    except RegisterNotAvailableError as error:
        error.hresult = E_FAIL
        raise
    except PageNotMapped as error:
        error.hresult = _NOT_PRESENT.get(error.level or "", PXE)
        raise


def ForceArchitecture(handle: int, vp_id: int, architecture: VirtualProcessorArch | int) -> None:
    """As in the later generation, without ARM64."""
    if architecture == VirtualProcessorArch.ARMV8:
        raise InvalidArgumentError("this generation of the interface has no Arch_Armv8")
    processors.ForceArchitecture(handle, vp_id, architecture)


def ForcePagingMode(handle: int, vp_id: int, paging_mode: PagingMode | int) -> None:
    """As in the later generation, without ARM64."""
    if paging_mode == PagingMode.ARMV8:
        raise InvalidArgumentError("this generation of the interface has no Paging_Armv8")
    processors.ForcePagingMode(handle, vp_id, paging_mode)
