"""The functions of the C library, once: names, generations, parameters as in the headers (API specification, section 6).

Everything else is made from this table: what C wraps, what Python answers, what is exported.
"""

from __future__ import annotations

from typing import NamedTuple

HANDLE = "VM_SAVED_STATE_DUMP_HANDLE"
GENERATIONS = (2018, 2021)


class Function(NamedTuple):
    """A function of the library.

    Attributes:
        name: Microsoft's.
        since: the Windows release or SDK that brought it: ``1803``, ``2004``, ``22000``.
        parameters: (type in the header, name).
        generations: of the interface that have it with these parameters.
        returns: the type in the header.
    """

    name: str
    since: str
    parameters: tuple[tuple[str, str], ...]
    generations: tuple[int, ...] = GENERATIONS
    returns: str = "HRESULT"

    @property
    def wide(self) -> bool:
        """Whether it takes or returns wide strings, so that there are variants for each width of a character."""
        return any(kind in ("LPCWSTR", "LPWSTR *") for kind, _ in self.parameters)


def functions(generation: int) -> tuple[Function, ...]:
    """The functions of a generation, in the order of the specification."""
    return tuple(item for item in FUNCTIONS if generation in item.generations)


def exported(generation: int) -> tuple[str, ...]:
    """Every name that a library exports: functions, their variants for other strings, LocalFree. Nothing else may be."""
    names = []
    for item in functions(generation):
        names += [item.name, f"{item.name}W32", f"{item.name}U8"] if item.wide else [item.name]
    return (*names, "LocalFree")


def _function(since: str, text: str, *generations: int, returns: str = "HRESULT") -> Function:
    name, _, rest = text.partition("(")
    parameters = []
    for part in rest.rstrip(")").split(","):
        kind, _, label = part.strip().rpartition(" ")
        pointer = " *" if label.startswith("*") else ""
        parameters.append(((HANDLE if kind == "H" else kind) + pointer, label.lstrip("*")))
    return Function(name, since, tuple(parameters), generations or GENERATIONS, returns)


FUNCTIONS = (
    _function("1803", "LocateSavedStateFiles(LPCWSTR vmName, LPCWSTR snapshotName, LPWSTR *binPath, LPWSTR *vsvPath, "
              "LPWSTR *vmrsPath)"),
    _function("1803", "LoadSavedStateFile(LPCWSTR vmrsFile, H *handle)"),
    _function("1803", "LoadSavedStateFiles(LPCWSTR binFile, LPCWSTR vsvFile, H *handle)"),
    _function("1803", "ApplyPendingSavedStateFileReplayLog(LPCWSTR vmrsFile)"),
    _function("1803", "ReleaseSavedStateFiles(H handle)"),
    _function("1803", "GetVpCount(H handle, UINT32 *vpCount)"),
    _function("1803", "GetArchitecture(H handle, UINT32 vpId, VIRTUAL_PROCESSOR_ARCH *architecture)"),
    _function("1803", "GetRegisterValue(H handle, UINT32 vpId, VIRTUAL_PROCESSOR_REGISTER *registerValue)", 2018),
    _function("1803", "GetRegisterValue(H handle, UINT32 vpId, DWORD registerId, VIRTUAL_PROCESSOR_REGISTER *registerValue)",
              2021),
    _function("1803", "GetPagingMode(H handle, UINT32 vpId, PAGING_MODE *pagingMode)"),
    _function("1803", "ReadGuestPhysicalAddress(H handle, GUEST_PHYSICAL_ADDRESS physicalAddress, LPVOID buffer, "
              "UINT32 bufferSize, UINT32 *bytesRead)"),
    _function("1803", "GuestVirtualAddressToPhysicalAddress(H handle, UINT32 vpId, GUEST_VIRTUAL_ADDRESS virtualAddress, "
              "GUEST_PHYSICAL_ADDRESS *physicalAddress)", 2018),
    _function("1803", "GuestVirtualAddressToPhysicalAddress(H handle, UINT32 vpId, GUEST_VIRTUAL_ADDRESS virtualAddress, "
              "GUEST_PHYSICAL_ADDRESS *physicalAddress, UINT64 *unmappedRegionSize)", 2021),
    _function("1803", "GetGuestPhysicalMemoryChunks(H handle, UINT64 *memoryChunkPageSize, GPA_MEMORY_CHUNK *memoryChunks, "
              "UINT64 *memoryChunkCount)"),
    _function("1803", "GuestPhysicalAddressToRawSavedMemoryOffset(H handle, GUEST_PHYSICAL_ADDRESS physicalAddress, "
              "UINT64 *rawSavedMemoryOffset)"),
    _function("1803", "ReadGuestRawSavedMemory(H handle, UINT64 rawSavedMemoryOffset, LPVOID buffer, UINT32 bufferSize, "
              "UINT32 *bytesRead)"),
    _function("1803", "GetGuestRawSavedMemorySize(H handle, UINT64 *guestRawSavedMemorySize)"),
    _function("2004", "ForceArchitecture(H handle, UINT32 vpId, VIRTUAL_PROCESSOR_ARCH architecture)"),
    _function("2004", "InKernelSpace(H handle, UINT32 vpId, BOOL *inKernelSpace)"),
    _function("2004", "ForcePagingMode(H handle, UINT32 vpId, PAGING_MODE pagingMode)"),
    _function("2004", "SetMemoryBlockCacheLimit(H handle, UINT64 memoryBlockCacheLimit)"),
    _function("2004", "GetMemoryBlockCacheLimit(H handle, UINT64 *memoryBlockCacheLimit)"),
    _function("22000", "GetGuestEnabledVirtualTrustLevels(H handle, UINT32 *virtualTrustLevels)", 2021),
    _function("22000", "GetGuestOsInfo(H handle, UINT8 virtualTrustLevel, GUEST_OS_INFO *guestOsInfo)", 2021),
    _function("22000", "GetActiveVirtualTrustLevel(H handle, UINT32 vpId, UINT8 *virtualTrustLevel)", 2021),
    _function("22000", "GetEnabledVirtualTrustLevels(H handle, UINT32 vpId, UINT32 *virtualTrustLevels)", 2021),
    _function("22000", "ForceActiveVirtualTrustLevel(H handle, UINT32 vpId, UINT8 virtualTrustLevel)", 2021),
    _function("22000", "IsActiveVirtualTrustLevelEnabled(H handle, UINT32 vpId, BOOL *enabled)", 2021),
    _function("22000", "IsNestedVirtualizationEnabled(H handle, BOOL *enabled)", 2021),
    _function("22000", "GetNestedVirtualizationMode(H handle, UINT32 vpId, BOOL *enabled)", 2021),
    _function("22000", "ForceNestedHostMode(H handle, UINT32 vpId, BOOL hostMode, BOOL *oldMode)", 2021),
    _function("2004", "ApplyGuestMemoryFix(H handle, UINT32 vpId, GUEST_VIRTUAL_ADDRESS virtualAddress, LPVOID fixBuffer, "
              "UINT32 fixBufferSize)"),
    _function("22000", "LoadSavedStateSymbolProvider(H handle, LPCWSTR userSymbols, BOOL force)", 2021),
    _function("22000", "ReleaseSavedStateSymbolProvider(H handle)", 2021),
    _function("22000", "GetSavedStateSymbolProviderHandle(H handle)", 2021, returns="HANDLE"),
    _function("22000", "SetSavedStateSymbolProviderDebugInfoCallback(H handle, "
              "GUEST_SYMBOLS_PROVIDER_DEBUG_INFO_CALLBACK symbolProviderCallback)", 2021),
    _function("22000", "LoadSavedStateModuleSymbols(H handle, LPCSTR imageName, LPCSTR moduleName, UINT64 baseAddress, "
              "DWORD sizeOfBase)", 2021),
    _function("22000", "LoadSavedStateModuleSymbolsEx(H handle, LPCSTR imageName, UINT32 imageTimestamp, LPCSTR moduleName, "
              "UINT64 baseAddress, DWORD sizeOfBase)", 2021),
    _function("22000", "ResolveSavedStateGlobalVariableAddress(H handle, UINT32 vpId, LPCSTR globalName, "
              "GUEST_VIRTUAL_ADDRESS *virtualAddress, ULONG *size)", 2021),
    _function("22000", "ReadSavedStateGlobalVariable(H handle, UINT32 vpId, LPCSTR globalName, LPVOID buffer, "
              "ULONG bufferSize)", 2021),
    _function("22000", "GetSavedStateSymbolTypeSize(H handle, UINT32 vpId, LPCSTR typeName, ULONG *size)", 2021),
    _function("22000", "FindSavedStateSymbolFieldInType(H handle, UINT32 vpId, LPCSTR typeName, LPCWSTR fieldName, "
              "UINT32 *offset, BOOL *found)", 2021),
    _function("22000", "GetSavedStateSymbolFieldInfo(H handle, UINT32 vpId, LPCSTR typeName, LPWSTR *typeFieldInfoMap)",
              2021),
    _function("22000", "ScanMemoryForDosImages(H handle, UINT32 vpId, UINT64 startAddress, UINT64 endAddress, "
              "PVOID callbackContext, FOUND_IMAGE_CALLBACK foundImageCallback, UINT64 *standaloneAddress, "
              "DWORD standaloneAddressCount)", 2021),
    _function("22000", "CallStackUnwind(H handle, UINT32 vpId, MODULE_INFO *imageInfo, DWORD imageInfoCount, "
              "UINT32 frameCount, LPWSTR *callStack)", 2021),
)  # fmt: skip
