/* Functions of the saved state dump provider.
 *
 * SPDX-License-Identifier: Apache-2.0
 * Written from the published description of the interface; no part of Microsoft's headers is in it.
 *
 * Every function returns S_OK or a failure, never another success. On failure nothing is written but *bytesRead (0), the
 * handle of a load function (NULL), the strings of LocateSavedStateFiles (NULL), *memoryChunkCount (what is needed) and
 * *unmappedRegionSize. ScanMemoryForDosImages goes downward: startAddress is above endAddress.
 * Strings are freed with LocalFree. docs/provider.md of vmsavedstate says what each function does.
 */
#ifndef VMSAVEDSTATEDUMP_H
#define VMSAVEDSTATEDUMP_H

#include "vmsavedstatedumpdefs.h"

/* Exported names take UTF-16; those with W32 a wchar_t of 4 bytes, those with U8 UTF-8. For wchar_t the plain names
 * mean the W32 variants. */
#if VMSAVEDSTATE_WCHAR_BYTES == 4
#define LocateSavedStateFiles LocateSavedStateFilesW32
#define LoadSavedStateFile LoadSavedStateFileW32
#define LoadSavedStateFiles LoadSavedStateFilesW32
#define ApplyPendingSavedStateFileReplayLog ApplyPendingSavedStateFileReplayLogW32
#define LoadSavedStateSymbolProvider LoadSavedStateSymbolProviderW32
#define FindSavedStateSymbolFieldInType FindSavedStateSymbolFieldInTypeW32
#define GetSavedStateSymbolFieldInfo GetSavedStateSymbolFieldInfoW32
#define CallStackUnwind CallStackUnwindW32
#endif

#if defined(__cplusplus)
extern "C" {
#endif

HRESULT WINAPI LocateSavedStateFiles(LPCWSTR vmName, LPCWSTR snapshotName, LPWSTR *binPath, LPWSTR *vsvPath,
                                     LPWSTR *vmrsPath);
HRESULT WINAPI LoadSavedStateFile(LPCWSTR vmrsFile, VM_SAVED_STATE_DUMP_HANDLE *handle);
HRESULT WINAPI LoadSavedStateFiles(LPCWSTR binFile, LPCWSTR vsvFile, VM_SAVED_STATE_DUMP_HANDLE *handle);
HRESULT WINAPI ApplyPendingSavedStateFileReplayLog(LPCWSTR vmrsFile);
HRESULT WINAPI ReleaseSavedStateFiles(VM_SAVED_STATE_DUMP_HANDLE handle);
HRESULT WINAPI GetVpCount(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 *vpCount);
HRESULT WINAPI GetArchitecture(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, VIRTUAL_PROCESSOR_ARCH *architecture);
HRESULT WINAPI GetPagingMode(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, PAGING_MODE *pagingMode);
HRESULT WINAPI ReadGuestPhysicalAddress(VM_SAVED_STATE_DUMP_HANDLE handle, GUEST_PHYSICAL_ADDRESS physicalAddress,
                                        LPVOID buffer, UINT32 bufferSize, UINT32 *bytesRead);
HRESULT WINAPI GetGuestPhysicalMemoryChunks(VM_SAVED_STATE_DUMP_HANDLE handle, UINT64 *memoryChunkPageSize,
                                            GPA_MEMORY_CHUNK *memoryChunks, UINT64 *memoryChunkCount);
HRESULT WINAPI GuestPhysicalAddressToRawSavedMemoryOffset(
    VM_SAVED_STATE_DUMP_HANDLE handle, GUEST_PHYSICAL_ADDRESS physicalAddress, UINT64 *rawSavedMemoryOffset);
HRESULT WINAPI ReadGuestRawSavedMemory(VM_SAVED_STATE_DUMP_HANDLE handle, UINT64 rawSavedMemoryOffset, LPVOID buffer,
                                       UINT32 bufferSize, UINT32 *bytesRead);
HRESULT WINAPI GetGuestRawSavedMemorySize(VM_SAVED_STATE_DUMP_HANDLE handle, UINT64 *guestRawSavedMemorySize);
HRESULT WINAPI ForceArchitecture(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, VIRTUAL_PROCESSOR_ARCH architecture);
HRESULT WINAPI InKernelSpace(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, BOOL *inKernelSpace);
HRESULT WINAPI ForcePagingMode(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, PAGING_MODE pagingMode);
HRESULT WINAPI SetMemoryBlockCacheLimit(VM_SAVED_STATE_DUMP_HANDLE handle, UINT64 memoryBlockCacheLimit);
HRESULT GetMemoryBlockCacheLimit(VM_SAVED_STATE_DUMP_HANDLE handle, UINT64 *memoryBlockCacheLimit);
HRESULT WINAPI ApplyGuestMemoryFix(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId,
                                   GUEST_VIRTUAL_ADDRESS virtualAddress, LPVOID fixBuffer, UINT32 fixBufferSize);

#if VMSAVEDSTATE_2021
HRESULT WINAPI GetRegisterValue(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, DWORD registerId,
                                VIRTUAL_PROCESSOR_REGISTER *registerValue);
HRESULT WINAPI GuestVirtualAddressToPhysicalAddress(
    VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, GUEST_VIRTUAL_ADDRESS virtualAddress,
    GUEST_PHYSICAL_ADDRESS *physicalAddress, UINT64 *unmappedRegionSize);
HRESULT WINAPI GetGuestEnabledVirtualTrustLevels(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 *virtualTrustLevels);
HRESULT WINAPI GetGuestOsInfo(VM_SAVED_STATE_DUMP_HANDLE handle, UINT8 virtualTrustLevel, GUEST_OS_INFO *guestOsInfo);
HRESULT WINAPI GetActiveVirtualTrustLevel(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, UINT8 *virtualTrustLevel);
HRESULT WINAPI GetEnabledVirtualTrustLevels(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId,
                                            UINT32 *virtualTrustLevels);
HRESULT WINAPI ForceActiveVirtualTrustLevel(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, UINT8 virtualTrustLevel);
HRESULT WINAPI IsActiveVirtualTrustLevelEnabled(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, BOOL *enabled);
HRESULT WINAPI IsNestedVirtualizationEnabled(VM_SAVED_STATE_DUMP_HANDLE handle, BOOL *enabled);
HRESULT WINAPI GetNestedVirtualizationMode(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, BOOL *enabled);
HRESULT WINAPI ForceNestedHostMode(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, BOOL hostMode, BOOL *oldMode);
HRESULT WINAPI LoadSavedStateSymbolProvider(VM_SAVED_STATE_DUMP_HANDLE handle, LPCWSTR userSymbols, BOOL force);
HRESULT WINAPI ReleaseSavedStateSymbolProvider(VM_SAVED_STATE_DUMP_HANDLE handle);
HANDLE WINAPI GetSavedStateSymbolProviderHandle(VM_SAVED_STATE_DUMP_HANDLE handle);
HRESULT WINAPI SetSavedStateSymbolProviderDebugInfoCallback(
    VM_SAVED_STATE_DUMP_HANDLE handle, GUEST_SYMBOLS_PROVIDER_DEBUG_INFO_CALLBACK symbolProviderCallback);
HRESULT WINAPI LoadSavedStateModuleSymbols(VM_SAVED_STATE_DUMP_HANDLE handle, LPCSTR imageName, LPCSTR moduleName,
                                           UINT64 baseAddress, DWORD sizeOfBase);
HRESULT WINAPI LoadSavedStateModuleSymbolsEx(VM_SAVED_STATE_DUMP_HANDLE handle, LPCSTR imageName,
                                             UINT32 imageTimestamp, LPCSTR moduleName, UINT64 baseAddress,
                                             DWORD sizeOfBase);
HRESULT WINAPI ResolveSavedStateGlobalVariableAddress(
    VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, LPCSTR globalName, GUEST_VIRTUAL_ADDRESS *virtualAddress,
    ULONG *size);
HRESULT WINAPI ReadSavedStateGlobalVariable(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, LPCSTR globalName,
                                            LPVOID buffer, ULONG bufferSize);
HRESULT WINAPI GetSavedStateSymbolTypeSize(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, LPCSTR typeName,
                                           ULONG *size);
HRESULT WINAPI FindSavedStateSymbolFieldInType(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, LPCSTR typeName,
                                               LPCWSTR fieldName, UINT32 *offset, BOOL *found);
HRESULT WINAPI GetSavedStateSymbolFieldInfo(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, LPCSTR typeName,
                                            LPWSTR *typeFieldInfoMap);
HRESULT WINAPI ScanMemoryForDosImages(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, UINT64 startAddress,
                                      UINT64 endAddress, PVOID callbackContext,
                                      FOUND_IMAGE_CALLBACK foundImageCallback, UINT64 *standaloneAddress,
                                      DWORD standaloneAddressCount);
HRESULT WINAPI CallStackUnwind(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, MODULE_INFO *imageInfo,
                               DWORD imageInfoCount, UINT32 frameCount, LPWSTR *callStack);
#else
HRESULT WINAPI GetRegisterValue(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId,
                                VIRTUAL_PROCESSOR_REGISTER *registerValue);
HRESULT WINAPI GuestVirtualAddressToPhysicalAddress(
    VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, GUEST_VIRTUAL_ADDRESS virtualAddress,
    GUEST_PHYSICAL_ADDRESS *physicalAddress);
#endif

/* The same functions for UTF-8. */
HRESULT WINAPI LocateSavedStateFilesU8(LPCSTR vmName, LPCSTR snapshotName, LPSTR *binPath, LPSTR *vsvPath,
                                       LPSTR *vmrsPath);
HRESULT WINAPI LoadSavedStateFileU8(LPCSTR vmrsFile, VM_SAVED_STATE_DUMP_HANDLE *handle);
HRESULT WINAPI LoadSavedStateFilesU8(LPCSTR binFile, LPCSTR vsvFile, VM_SAVED_STATE_DUMP_HANDLE *handle);
HRESULT WINAPI ApplyPendingSavedStateFileReplayLogU8(LPCSTR vmrsFile);
#if VMSAVEDSTATE_2021
HRESULT WINAPI LoadSavedStateSymbolProviderU8(VM_SAVED_STATE_DUMP_HANDLE handle, LPCSTR userSymbols, BOOL force);
HRESULT WINAPI FindSavedStateSymbolFieldInTypeU8(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, LPCSTR typeName,
                                                 LPCSTR fieldName, UINT32 *offset, BOOL *found);
HRESULT WINAPI GetSavedStateSymbolFieldInfoU8(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, LPCSTR typeName,
                                              LPSTR *typeFieldInfoMap);
HRESULT WINAPI CallStackUnwindU8(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vpId, MODULE_INFO *imageInfo,
                                 DWORD imageInfoCount, UINT32 frameCount, LPSTR *callStack);
#endif

#if defined(__cplusplus)
}
#endif

#endif
