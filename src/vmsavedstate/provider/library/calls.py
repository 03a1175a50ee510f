"""The Python side of the C library: pointers in, an HRESULT out. One method per function, named alike.

``ffi`` and ``lib`` are cffi's view of the library that is calling; cffi itself is not imported here, and not needed beyond
its runtime. Whatever happens, no exception leaves: the host is a C program.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ... import provider
from ...datatypes.structures import VirtualProcessorRegister
from ...errors import InvalidArgumentError, PageNotMapped
from .. import sdk2018
from ..guest_memory import read_physical, read_raw, why_no_more
from ..images import DosImage
from ..loading import damage
from .guard import DONE, E_UNEXPECTED, TooSmallError, escaped, guarded, signed, variant
from .log import log_line, log_wanted
from .pointers import Library, Pointer, Pointers, required
from .signatures import functions

LOWEST_POINTER = 4096
MIXED = "-2018 is the library of programs that were written for SDKs before 22000, the other that of later ones"
REGISTER_SIZES = {2018: 24, 2021: 16}


def attach(ffi: Library, lib: Library, generation: int) -> None:
    """Give every function of a library its answer. Called once per library and process."""
    calls = Calls2018(ffi, lib) if generation == 2018 else Calls(ffi, lib)
    for item in functions(generation):
        if item.returns == "HRESULT":
            answer = guarded(item, getattr(calls, item.name))
            ffi.def_extern(name=f"vmss_{item.name}", error=signed(E_UNEXPECTED), onerror=escaped)(answer)
    ffi.def_extern(name="vmss_attached", error=0, onerror=lambda *what: 0)(lambda: DONE)


def _log_load(name: str, handle: int) -> None:
    """Loading worked: log that the file is damaged, which no code says. A failure to log is not a failure of the call."""
    if log_wanted():
        with suppress(Exception):
            if found := damage(handle):
                count = "1 finding" if len(found) == 1 else f"{len(found)} findings"
                log_line(0, f"{name}: loaded, with damage ({count}; `vmrs verify` lists all): {found[0]}")


def _log_damage(name: str, handle: int, start: int, size: int, got: int, *, raw: bool = False) -> None:
    """A short read is not a failure; if damage is the reason, log it. A failure to log is not a failure of the call."""
    with suppress(Exception):
        if why := why_no_more(handle, start + got, raw=raw):
            log_line(0, f"{name}: {got:#x} of {size:#x} bytes from {start:#x}, because {why}")


class Calls(Pointers):
    """The functions of SDK 22000 and later. NULL where an output is needed is E_INVALIDARG."""

    functions: Any = provider

    # Loading

    def LocateSavedStateFiles(self, width: int, vm: Pointer, snapshot: Pointer, *paths: Pointer) -> None:
        for path in paths:
            required(path)
        found = self.functions.LocateSavedStateFiles(
            self.text(width, vm), self.text(width, snapshot) if snapshot else None
        )
        strings = [self.allocated(width, text) for text in found]
        for path, string in zip(paths, strings, strict=True):
            path[0] = string

    def LoadSavedStateFile(self, width: int, vmrs: Pointer, handle: Pointer) -> None:
        required(handle)
        loaded = self.functions.LoadSavedStateFile(self.path(width, vmrs))
        self._hand_out(handle, loaded, variant("LoadSavedStateFile", width))

    def LoadSavedStateFiles(self, width: int, bin_file: Pointer, vsv_file: Pointer, handle: Pointer) -> None:
        required(handle)
        paths = self.path(width, bin_file), self.path(width, vsv_file)
        self._hand_out(handle, self.functions.LoadSavedStateFiles(*paths), variant("LoadSavedStateFiles", width))

    def _hand_out(self, handle: Pointer, loaded: int, name: str) -> None:
        """Give the caller the handle; not if Ctrl-C comes while the log is written, which is a failure for him."""
        handle[0] = loaded
        try:
            _log_load(name, loaded)
        except BaseException:
            handle[0] = 0
            self.functions.ReleaseSavedStateFiles(loaded)
            raise

    def ApplyPendingSavedStateFileReplayLog(self, width: int, vmrs: Pointer) -> None:
        self.functions.ApplyPendingSavedStateFileReplayLog(self.path(width, vmrs))

    def ReleaseSavedStateFiles(self, handle: int) -> None:
        self.functions.ReleaseSavedStateFiles(handle)

    # Processors

    def GetVpCount(self, handle: int, count: Pointer) -> None:
        required(count)[0] = self.functions.GetVpCount(handle)

    def GetArchitecture(self, handle: int, vp_id: int, architecture: Pointer) -> None:
        required(architecture)[0] = self.functions.GetArchitecture(handle, vp_id)

    def ForceArchitecture(self, handle: int, vp_id: int, architecture: int) -> None:
        self.functions.ForceArchitecture(handle, vp_id, architecture)

    def GetPagingMode(self, handle: int, vp_id: int, mode: Pointer) -> None:
        required(mode)[0] = self.functions.GetPagingMode(handle, vp_id)

    def ForcePagingMode(self, handle: int, vp_id: int, mode: int) -> None:
        self.functions.ForcePagingMode(handle, vp_id, mode)

    def GetRegisterValue(self, handle: int, vp_id: int, register_id: int, value: Pointer) -> None:
        required(value)
        if register_id > 0xFFFF:
            raise InvalidArgumentError(
                f"{register_id:#x} is not the number of a register, but perhaps its address", remedy=MIXED
            )
        self.ffi.memmove(
            value, bytes(self.functions.GetRegisterValue(handle, vp_id, register_id)), REGISTER_SIZES[2021]
        )

    def InKernelSpace(self, handle: int, vp_id: int, in_kernel: Pointer) -> None:
        required(in_kernel)[0] = self.functions.InKernelSpace(handle, vp_id)

    # Memory

    def ReadGuestPhysicalAddress(
        self, handle: int, address: int, buffer: Pointer, size: int, bytes_read: Pointer
    ) -> None:
        got = read_physical(handle, address, self.view(buffer, size))
        if bytes_read:
            bytes_read[0] = got
        if got < size and log_wanted():
            _log_damage("ReadGuestPhysicalAddress", handle, address, size, got)

    def ReadGuestRawSavedMemory(
        self, handle: int, offset: int, buffer: Pointer, size: int, bytes_read: Pointer
    ) -> None:
        got = read_raw(handle, offset, self.view(buffer, size))
        if bytes_read:
            bytes_read[0] = got
        if got < size and log_wanted():
            _log_damage("ReadGuestRawSavedMemory", handle, offset, size, got, raw=True)

    def GuestVirtualAddressToPhysicalAddress(
        self, handle: int, vp_id: int, gva: int, gpa: Pointer, unmapped: Pointer
    ) -> None:
        required(gpa)
        try:
            gpa[0] = self.functions.GuestVirtualAddressToPhysicalAddress(handle, vp_id, gva)
        except PageNotMapped as error:
            if unmapped:
                unmapped[0] = error.unmapped_size
            raise
        if unmapped:
            unmapped[0] = 0

    def GetGuestPhysicalMemoryChunks(self, handle: int, page_size: Pointer, chunks: Pointer, count: Pointer) -> None:
        required(page_size), required(count)
        answer = self.functions.GetGuestPhysicalMemoryChunks(handle)
        needed = len(answer.chunks)
        room = count[0] if chunks else 0  # without an array whatever count says means nothing
        if needed > room:
            count[0] = needed
            raise TooSmallError(f"an array for {room} is too small for {needed} chunks" if chunks else "")
        for number, chunk in enumerate(answer.chunks):
            chunks[2 * number], chunks[2 * number + 1] = chunk.GuestPhysicalStartPageIndex, chunk.PageCount
        page_size[0], count[0] = answer.page_size, needed

    def GuestPhysicalAddressToRawSavedMemoryOffset(self, handle: int, address: int, offset: Pointer) -> None:
        required(offset)[0] = self.functions.GuestPhysicalAddressToRawSavedMemoryOffset(handle, address)

    def GetGuestRawSavedMemorySize(self, handle: int, size: Pointer) -> None:
        required(size)[0] = self.functions.GetGuestRawSavedMemorySize(handle)

    def SetMemoryBlockCacheLimit(self, handle: int, limit: int) -> None:
        self.functions.SetMemoryBlockCacheLimit(handle, limit)

    def GetMemoryBlockCacheLimit(self, handle: int, limit: Pointer) -> None:
        required(limit)[0] = self.functions.GetMemoryBlockCacheLimit(handle)

    def ApplyGuestMemoryFix(self, handle: int, vp_id: int, gva: int, buffer: Pointer, size: int) -> None:
        self.functions.ApplyGuestMemoryFix(handle, vp_id, gva, self.view(buffer, size))

    # Trust levels

    def GetGuestEnabledVirtualTrustLevels(self, handle: int, levels: Pointer) -> None:
        required(levels)[0] = self.functions.GetGuestEnabledVirtualTrustLevels(handle)

    def GetGuestOsInfo(self, handle: int, level: int, info: Pointer) -> None:
        required(info)
        self.ffi.memmove(info, bytes(self.functions.GetGuestOsInfo(handle, level)), 8)

    def GetActiveVirtualTrustLevel(self, handle: int, vp_id: int, level: Pointer) -> None:
        required(level)[0] = self.functions.GetActiveVirtualTrustLevel(handle, vp_id)

    def GetEnabledVirtualTrustLevels(self, handle: int, vp_id: int, levels: Pointer) -> None:
        required(levels)[0] = self.functions.GetEnabledVirtualTrustLevels(handle, vp_id)

    def ForceActiveVirtualTrustLevel(self, handle: int, vp_id: int, level: int) -> None:
        self.functions.ForceActiveVirtualTrustLevel(handle, vp_id, level)

    def IsActiveVirtualTrustLevelEnabled(self, handle: int, vp_id: int, enabled: Pointer) -> None:
        required(enabled)[0] = self.functions.IsActiveVirtualTrustLevelEnabled(handle, vp_id)

    def IsNestedVirtualizationEnabled(self, handle: int, enabled: Pointer) -> None:
        required(enabled)[0] = self.functions.IsNestedVirtualizationEnabled(handle)

    def GetNestedVirtualizationMode(self, handle: int, vp_id: int, enabled: Pointer) -> None:
        required(enabled)[0] = self.functions.GetNestedVirtualizationMode(handle, vp_id)

    def ForceNestedHostMode(self, handle: int, vp_id: int, host_mode: int, old_mode: Pointer) -> None:
        former = self.functions.ForceNestedHostMode(handle, vp_id, bool(host_mode))
        if old_mode:
            old_mode[0] = former

    # Symbols and images

    def LoadSavedStateSymbolProvider(self, width: int, handle: int, symbols: Pointer, force: int) -> None:
        self.functions.LoadSavedStateSymbolProvider(handle, self.text(width, symbols) if symbols else None, bool(force))

    def ReleaseSavedStateSymbolProvider(self, handle: int) -> None:
        self.functions.ReleaseSavedStateSymbolProvider(handle)

    def SetSavedStateSymbolProviderDebugInfoCallback(self, handle: int, callback: Pointer) -> None:
        self.functions.SetSavedStateSymbolProviderDebugInfoCallback(handle, callback or None)

    def LoadSavedStateModuleSymbols(self, handle: int, image: Pointer, module: Pointer, base: int, size: int) -> None:
        names = (self.text(1, image), self.text(1, module))
        self.functions.LoadSavedStateModuleSymbols(handle, *names, base, size)

    def LoadSavedStateModuleSymbolsEx(
        self, handle: int, image: Pointer, timestamp: int, module: Pointer, base: int, size: int
    ) -> None:
        self.functions.LoadSavedStateModuleSymbolsEx(
            handle, self.text(1, image), timestamp, self.text(1, module), base, size
        )

    def ResolveSavedStateGlobalVariableAddress(
        self, handle: int, vp_id: int, name: Pointer, gva: Pointer, size: Pointer
    ) -> None:
        required(gva)
        self.functions.ResolveSavedStateGlobalVariableAddress(handle, vp_id, self.text(1, name))

    def ReadSavedStateGlobalVariable(self, handle: int, vp_id: int, name: Pointer, buffer: Pointer, size: int) -> None:
        required(buffer)
        self.functions.ReadSavedStateGlobalVariable(handle, vp_id, self.text(1, name), size)

    def GetSavedStateSymbolTypeSize(self, handle: int, vp_id: int, name: Pointer, size: Pointer) -> None:
        required(size)
        self.functions.GetSavedStateSymbolTypeSize(handle, vp_id, self.text(1, name))

    def FindSavedStateSymbolFieldInType(
        self, width: int, handle: int, vp_id: int, name: Pointer, field: Pointer, offset: Pointer, found: Pointer
    ) -> None:
        required(offset), required(found)
        self.functions.FindSavedStateSymbolFieldInType(handle, vp_id, self.text(1, name), self.text(width, field))

    def GetSavedStateSymbolFieldInfo(self, width: int, handle: int, vp_id: int, name: Pointer, fields: Pointer) -> None:
        required(fields)
        self.functions.GetSavedStateSymbolFieldInfo(handle, vp_id, self.text(1, name))

    def CallStackUnwind(
        self, width: int, handle: int, vp_id: int, images: Pointer, count: int, frames: int, stack: Pointer
    ) -> None:
        required(stack)
        self.functions.CallStackUnwind(handle, vp_id, (), frames)

    def ScanMemoryForDosImages(
        self, handle: int, vp_id: int, start: int, end: int, context: Pointer,
        callback: Pointer, addresses: Pointer, count: int,
    ) -> None:  # fmt: skip
        required(callback)
        if count and not addresses:
            raise InvalidArgumentError(f"{count} standalone addresses at NULL")
        found = self.ffi.cast("found_image", callback)

        def report(image: DosImage) -> bool:
            name = self.ffi.new("char[]", image.pdb_name.encode("utf-8", "replace"))
            info = self.ffi.new("DOS_IMAGE_INFO *", (name, image.base, image.size, image.timestamp))
            return bool(found(context, info))

        standalone = (addresses[number] for number in range(count))
        self.functions.ScanMemoryForDosImages(handle, vp_id, start, end, report, standalone)


class Calls2018(Calls):
    """The functions of SDK 17134 to 19041."""

    functions = sdk2018

    def GetRegisterValue(self, handle: int, vp_id: int, register: Pointer) -> None:  # type: ignore[override]
        place = int(self.ffi.cast("uintptr_t", register))
        if 0 < place < LOWEST_POINTER:
            raise InvalidArgumentError(
                f"{place:#x} is not the address of a register, but perhaps its number", remedy=MIXED
            )
        view = self.view(register, REGISTER_SIZES[2018])
        self.functions.GetRegisterValue(handle, vp_id, VirtualProcessorRegister.from_buffer(view))

    def GuestVirtualAddressToPhysicalAddress(self, handle: int, vp_id: int, gva: int, gpa: Pointer) -> None:  # type: ignore[override]
        required(gpa)[0] = self.functions.GuestVirtualAddressToPhysicalAddress(handle, vp_id, gva)
