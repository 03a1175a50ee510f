"""Microsoft's VM Saved State Dump Provider as Python functions of the same names: the generation of SDK 22000 and later.

    from vmsavedstate.provider import GetVpCount, LoadSavedStateFile, ReleaseSavedStateFiles

    handle = LoadSavedStateFile("guest.vmrs")
    print(GetVpCount(handle))
    ReleaseSavedStateFiles(handle)

What Microsoft returns through pointers is returned, what it returns as a failed HRESULT is raised: an error of
:mod:`vmsavedstate.errors` whose ``hresult`` is that code. ``provider.sdk2018`` has the generation of SDK 17134 to 19041,
``provider.library`` builds both as C libraries. docs/provider.md lists every name. Here only the public objects of
the package are used; new code is better off with ``vmsavedstate.open``.

``instance`` is what stands behind a handle; ``locate``, ``loading``, ``processors``, ``trust_levels``, ``guest_memory``,
``images`` and ``symbols`` hold the functions; ``register_values`` the shapes of registers.
"""

from .guest_memory import (
    ApplyGuestMemoryFix,
    GetGuestPhysicalMemoryChunks,
    GetGuestRawSavedMemorySize,
    GetMemoryBlockCacheLimit,
    GuestPhysicalAddressToRawSavedMemoryOffset,
    GuestVirtualAddressToPhysicalAddress,
    MemoryChunks,
    ReadGuestPhysicalAddress,
    ReadGuestRawSavedMemory,
    SetMemoryBlockCacheLimit,
)
from .images import DosImage, ScanMemoryForDosImages
from .loading import (
    ApplyPendingSavedStateFileReplayLog,
    LoadSavedStateFile,
    LoadSavedStateFiles,
    ReleaseSavedStateFiles,
)
from .locate import LocateSavedStateFiles, SavedStateFiles
from .processors import (
    ForceArchitecture,
    ForcePagingMode,
    GetArchitecture,
    GetPagingMode,
    GetRegisterValue,
    GetVpCount,
    InKernelSpace,
)
from .symbols import (
    CallStackUnwind,
    FindSavedStateSymbolFieldInType,
    GetSavedStateSymbolFieldInfo,
    GetSavedStateSymbolProviderHandle,
    GetSavedStateSymbolTypeSize,
    LoadSavedStateModuleSymbols,
    LoadSavedStateModuleSymbolsEx,
    LoadSavedStateSymbolProvider,
    ReadSavedStateGlobalVariable,
    ReleaseSavedStateSymbolProvider,
    ResolveSavedStateGlobalVariableAddress,
    SetSavedStateSymbolProviderDebugInfoCallback,
)
from .trust_levels import (
    ForceActiveVirtualTrustLevel,
    ForceNestedHostMode,
    GetActiveVirtualTrustLevel,
    GetEnabledVirtualTrustLevels,
    GetGuestEnabledVirtualTrustLevels,
    GetGuestOsInfo,
    GetNestedVirtualizationMode,
    IsActiveVirtualTrustLevelEnabled,
    IsNestedVirtualizationEnabled,
)

__all__ = [
    # 1803
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
    # 2004
    "ForceArchitecture",
    "InKernelSpace",
    "ForcePagingMode",
    "SetMemoryBlockCacheLimit",
    "GetMemoryBlockCacheLimit",
    # SDK 22000
    "GetGuestEnabledVirtualTrustLevels",
    "GetGuestOsInfo",
    "GetActiveVirtualTrustLevel",
    "GetEnabledVirtualTrustLevels",
    "ForceActiveVirtualTrustLevel",
    "IsActiveVirtualTrustLevelEnabled",
    "IsNestedVirtualizationEnabled",
    "GetNestedVirtualizationMode",
    "ForceNestedHostMode",
    "ApplyGuestMemoryFix",
    "LoadSavedStateSymbolProvider",
    "ReleaseSavedStateSymbolProvider",
    "GetSavedStateSymbolProviderHandle",
    "SetSavedStateSymbolProviderDebugInfoCallback",
    "LoadSavedStateModuleSymbols",
    "LoadSavedStateModuleSymbolsEx",
    "ResolveSavedStateGlobalVariableAddress",
    "ReadSavedStateGlobalVariable",
    "GetSavedStateSymbolTypeSize",
    "FindSavedStateSymbolFieldInType",
    "GetSavedStateSymbolFieldInfo",
    "ScanMemoryForDosImages",
    "CallStackUnwind",
    # what they return
    "DosImage",
    "MemoryChunks",
    "SavedStateFiles",
]
