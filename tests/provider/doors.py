"""Two doors to one provider: the Python functions, and the C library through ctypes. A test asks both alike.

A call answers its outputs, or raises Failure with the HRESULT. The C door also watches what must not be touched.
"""

from __future__ import annotations

import ctypes as c
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vmsavedstate import provider
from vmsavedstate.datatypes import (
    DosImageInfo,
    GpaMemoryChunk,
    GuestOsInfo,
    VirtualProcessorRegister,
    VirtualProcessorRegisterValue,
)
from vmsavedstate.errors import PageNotMapped, VmSavedStateError
from vmsavedstate.provider import sdk2018
from vmsavedstate.provider.library.signatures import FUNCTIONS

CANARY = 0xA5
# The last parameter of these is their one output.
OUTPUTS: dict[str, Any] = {
    "GetVpCount": c.c_uint32,
    "GetArchitecture": c.c_int32,
    "GetPagingMode": c.c_int32,
    "InKernelSpace": c.c_int32,
    "GetGuestRawSavedMemorySize": c.c_uint64,
    "GuestPhysicalAddressToRawSavedMemoryOffset": c.c_uint64,
    "GetMemoryBlockCacheLimit": c.c_uint64,
    "GetGuestEnabledVirtualTrustLevels": c.c_uint32,
    "GetActiveVirtualTrustLevel": c.c_uint8,
    "GetEnabledVirtualTrustLevels": c.c_uint32,
    "IsActiveVirtualTrustLevelEnabled": c.c_int32,
    "IsNestedVirtualizationEnabled": c.c_int32,
    "GetNestedVirtualizationMode": c.c_int32,
    "ForceNestedHostMode": c.c_int32,
}
# What an integer of the caller is in C.
NUMBERS: dict[str, tuple[Any, ...]] = {
    "GuestPhysicalAddressToRawSavedMemoryOffset": (c.c_uint64,),
    "SetMemoryBlockCacheLimit": (c.c_uint64,),
}


# What the Python functions of symbols take behind the handle.
SYMBOL_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "LoadSavedStateSymbolProvider": ("path", True),
    "ReleaseSavedStateSymbolProvider": (),
    "GetSavedStateSymbolProviderHandle": (),
    "SetSavedStateSymbolProviderDebugInfoCallback": (print,),
    "LoadSavedStateModuleSymbols": ("image", "module", 1, 1),
    "LoadSavedStateModuleSymbolsEx": ("image", 1, "module", 1, 1),
    "ResolveSavedStateGlobalVariableAddress": (0, "name"),
    "ReadSavedStateGlobalVariable": (0, "name", 8),
    "GetSavedStateSymbolTypeSize": (0, "name"),
    "FindSavedStateSymbolFieldInType": (0, "type", "field"),
    "GetSavedStateSymbolFieldInfo": (0, "type"),
    "CallStackUnwind": (0, (), 10),
}


class Failure(Exception):  # noqa: N818
    """A call failed; ``hresult`` is unsigned, ``unmapped`` what a failed translation tells beside."""

    def __init__(self, hresult: int, unmapped: int | None = None) -> None:
        super().__init__(f"{hresult:#x}")
        self.hresult = hresult
        self.unmapped = unmapped


class Door(ABC):
    """A way to call the provider. ``generation`` is 2018 or 2021."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    @abstractmethod
    def load(self, *paths: Path | str | bytes) -> int: ...

    @abstractmethod
    def call(self, name: str, *arguments: int) -> int | None:
        """Any function that takes numbers and gives one or none."""

    @abstractmethod
    def apply_log(self, path: Path) -> None: ...

    @abstractmethod
    def register(self, handle: int, vp: int, number: int, architecture: int = 2) -> bytes:
        """16 bytes in 2021, 8 in 2018."""

    @abstractmethod
    def chunks(self, handle: int) -> tuple[int, list[tuple[int, int]]]: ...

    @abstractmethod
    def read(self, handle: int, address: int, size: int) -> bytes: ...

    @abstractmethod
    def read_raw(self, handle: int, offset: int, size: int) -> bytes: ...

    @abstractmethod
    def translate(self, handle: int, vp: int, gva: int) -> int: ...

    @abstractmethod
    def fix(self, handle: int, vp: int, gva: int, data: bytes) -> None: ...

    @abstractmethod
    def guest_os(self, handle: int, vtl: int) -> int: ...

    @abstractmethod
    def scan(
        self, handle: int, vp: int, start: int, end: int,
        found: Callable[[tuple[str, int, int, int]], bool], alone: Sequence[int] = (),
    ) -> None: ...  # fmt: skip

    @abstractmethod
    def symbols(self, name: str, handle: int) -> object:
        """A function of the symbol group, with arguments that are sound in themselves."""

    @abstractmethod
    def locate(self, vm: str, snapshot: str | None = None) -> tuple[str, str, str]: ...


class PythonDoor(Door):
    """The functions of ``vmsavedstate.provider``."""

    def __init__(self, generation: int) -> None:
        super().__init__(generation)
        self.functions: ModuleType = provider if generation == 2021 else sdk2018

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self.functions, name)(*arguments)
        except PageNotMapped as error:
            raise Failure(error.hresult, error.unmapped_size) from error
        except VmSavedStateError as error:
            raise Failure(error.hresult) from error

    def load(self, *paths: Path | str | bytes) -> int:
        return int(self._ask("LoadSavedStateFile" if len(paths) == 1 else "LoadSavedStateFiles", *paths))

    def call(self, name: str, *arguments: int) -> int | None:
        answer = self._ask(name, *arguments)
        return None if answer is None else int(answer)

    def apply_log(self, path: Path) -> None:
        self._ask("ApplyPendingSavedStateFileReplayLog", path)

    def register(self, handle: int, vp: int, number: int, architecture: int = 2) -> bytes:
        if self.generation == 2018:
            register = VirtualProcessorRegister(Architecture=architecture, RegisterId=number)
            answer = self._ask("GetRegisterValue", handle, vp, register)
            assert answer == register.RegisterValue
            return int(answer).to_bytes(8, "little")
        return bytes(self._ask("GetRegisterValue", handle, vp, number))

    def chunks(self, handle: int) -> tuple[int, list[tuple[int, int]]]:
        answer = self._ask("GetGuestPhysicalMemoryChunks", handle)
        return answer.page_size, [(item.GuestPhysicalStartPageIndex, item.PageCount) for item in answer.chunks]

    def read(self, handle: int, address: int, size: int) -> bytes:
        return bytes(self._ask("ReadGuestPhysicalAddress", handle, address, size))

    def read_raw(self, handle: int, offset: int, size: int) -> bytes:
        return bytes(self._ask("ReadGuestRawSavedMemory", handle, offset, size))

    def translate(self, handle: int, vp: int, gva: int) -> int:
        return int(self._ask("GuestVirtualAddressToPhysicalAddress", handle, vp, gva))

    def fix(self, handle: int, vp: int, gva: int, data: bytes) -> None:
        self._ask("ApplyGuestMemoryFix", handle, vp, gva, data)

    def guest_os(self, handle: int, vtl: int) -> int:
        return int(self._ask("GetGuestOsInfo", handle, vtl).AsUINT64)

    def scan(
        self, handle: int, vp: int, start: int, end: int,
        found: Callable[[tuple[str, int, int, int]], bool], alone: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self._ask("ScanMemoryForDosImages", handle, vp, start, end, found, alone)

    def symbols(self, name: str, handle: int) -> object:
        return self._ask(name, handle, *SYMBOL_ARGUMENTS[name])

    def locate(self, vm: str, snapshot: str | None = None) -> tuple[str, str, str]:
        bin_path, vsv_path, vmrs_path = self._ask("LocateSavedStateFiles", vm, snapshot)
        return bin_path, vsv_path, vmrs_path


class CDoor(Door):
    """The C library. Buffers are longer than they are said to be, and what is behind must stay as it was."""

    def __init__(self, generation: int, path: Path) -> None:
        super().__init__(generation)
        self.library = c.CDLL(str(path))

    def ask(self, name: str, *arguments: Any) -> int:
        """The HRESULT, unsigned."""
        return int(getattr(self.library, name)(*arguments)) & 0xFFFFFFFF

    def _check(self, hresult: int, unmapped: int | None = None) -> None:
        if hresult:
            assert hresult & 0x80000000, f"{hresult:#x} is neither S_OK nor a failure"
            raise Failure(hresult, unmapped)

    def load(self, *paths: Path | str | bytes) -> int:
        handle = c.c_void_p(0x1234)
        texts = [path if isinstance(path, bytes) else str(path).encode() for path in paths]
        name = "LoadSavedStateFileU8" if len(paths) == 1 else "LoadSavedStateFilesU8"
        code = self.ask(name, *texts, c.byref(handle))
        if code:
            assert handle.value is None, "the handle is NULL after a failure"
        self._check(code)
        assert handle.value
        return handle.value

    def call(self, name: str, *arguments: int) -> int | None:
        kind = OUTPUTS.get(name)
        numbers = NUMBERS.get(name, (c.c_uint32,) * 2)
        given = [
            c.c_void_p(arguments[0]),
            *(number(value) for number, value in zip(numbers, arguments[1:], strict=False)),
        ]
        if kind is None:
            self._check(self.ask(name, *given))
            return None
        output = kind(0x5A)
        code = self.ask(name, *given, c.byref(output))
        if code:
            assert output.value == 0x5A, "an output is untouched after a failure"
        self._check(code)
        return int(output.value)

    def apply_log(self, path: Path) -> None:
        self._check(self.ask("ApplyPendingSavedStateFileReplayLogU8", str(path).encode()))

    def register(self, handle: int, vp: int, number: int, architecture: int = 2) -> bytes:
        if self.generation == 2018:
            register = VirtualProcessorRegister(Architecture=architecture, RegisterId=number, RegisterValue=0x5A5A)
            code = self.ask("GetRegisterValue", c.c_void_p(handle), vp, c.byref(register))
            assert (register.Architecture, register.RegisterId) == (architecture, number)
            if code:
                assert register.RegisterValue == 0x5A5A
            self._check(code)
            return int(register.RegisterValue).to_bytes(8, "little")
        buffer = (c.c_char * 24)(*[bytes([CANARY])] * 24)
        code = self.ask("GetRegisterValue", c.c_void_p(handle), vp, c.c_uint32(number), buffer)
        assert buffer.raw[16:] == bytes([CANARY]) * 8
        if code:
            assert buffer.raw == bytes([CANARY]) * 24
        self._check(code)
        return bytes(VirtualProcessorRegisterValue.from_buffer(buffer))

    def chunks(self, handle: int) -> tuple[int, list[tuple[int, int]]]:
        page_size, count = c.c_uint64(0x5A), c.c_uint64(1 << 63)
        code = self.ask("GetGuestPhysicalMemoryChunks", c.c_void_p(handle), c.byref(page_size), None, c.byref(count))
        if code != 0x8007000E:
            self._check(code)
        assert page_size.value == 0x5A, "the page size is untouched when the array is too small"
        needed = count.value
        chunks = (GpaMemoryChunk * (needed + 1))()
        chunks[needed].PageCount = 0x5A
        self._check(
            self.ask("GetGuestPhysicalMemoryChunks", c.c_void_p(handle), c.byref(page_size), chunks, c.byref(count))
        )
        assert (count.value, chunks[needed].PageCount) == (needed, 0x5A)
        return page_size.value, [(item.GuestPhysicalStartPageIndex, item.PageCount) for item in chunks[:needed]]

    def _read(self, name: str, handle: int, place: int, size: int) -> bytes:
        room = (c.c_ubyte * (size + 16))()
        c.memset(room, CANARY, size + 16)
        got = c.c_uint32(0x5A)
        code = self.ask(name, c.c_void_p(handle), c.c_uint64(place), room, c.c_uint32(size), c.byref(got))
        content = bytes(room)
        assert content[size:] == bytes([CANARY]) * 16, "nothing is written past the buffer"
        if code:
            assert got.value == 0, "*bytesRead is 0 after a failure"
            assert content == bytes([CANARY]) * len(content)
        self._check(code)
        return content[: got.value]

    def read(self, handle: int, address: int, size: int) -> bytes:
        return self._read("ReadGuestPhysicalAddress", handle, address, size)

    def read_raw(self, handle: int, offset: int, size: int) -> bytes:
        return self._read("ReadGuestRawSavedMemory", handle, offset, size)

    def translate(self, handle: int, vp: int, gva: int) -> int:
        gpa, unmapped = c.c_uint64(0x5A), c.c_uint64(0x5A)
        more = (c.byref(unmapped),) if self.generation == 2021 else ()
        name = "GuestVirtualAddressToPhysicalAddress"
        code = self.ask(name, c.c_void_p(handle), vp, c.c_uint64(gva), c.byref(gpa), *more)
        if code:
            assert gpa.value == 0x5A
        self._check(code, unmapped.value if self.generation == 2021 else None)
        assert not more or unmapped.value == 0
        return gpa.value

    def fix(self, handle: int, vp: int, gva: int, data: bytes) -> None:
        self._check(self.ask("ApplyGuestMemoryFix", c.c_void_p(handle), vp, c.c_uint64(gva), data, len(data)))

    def guest_os(self, handle: int, vtl: int) -> int:
        info = GuestOsInfo(AsUINT64=0x5A)
        code = self.ask("GetGuestOsInfo", c.c_void_p(handle), c.c_uint8(vtl), c.byref(info))
        if code:
            assert info.AsUINT64 == 0x5A
        self._check(code)
        return int(info.AsUINT64)

    def scan(
        self, handle: int, vp: int, start: int, end: int,
        found: Callable[[tuple[str, int, int, int]], bool], alone: Sequence[int] = (),
    ) -> None:  # fmt: skip
        def tell(context: int, info: Any) -> int:
            assert context == 0xC0DE
            item = info.contents
            return found((item.PdbName.decode(), item.ImageBaseAddress, item.ImageSize, item.Timestamp))

        callback = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.POINTER(DosImageInfo))(tell)
        addresses = (c.c_uint64 * len(alone))(*alone)
        place = (c.c_uint64(start), c.c_uint64(end), c.c_void_p(0xC0DE))
        code = self.ask("ScanMemoryForDosImages", c.c_void_p(handle), vp, *place, callback, addresses, len(alone))
        self._check(code)

    def symbols(self, name: str, handle: int) -> object:
        item = next(item for item in FUNCTIONS if item.name == name)
        room = c.create_string_buffer(b"\xa5" * 64, 64)
        arguments: list[object] = [c.c_void_p(handle)]
        for kind, _ in item.parameters[1:]:
            if kind in ("LPCWSTR", "LPCSTR"):
                arguments.append(b"text")
            elif kind.endswith("CALLBACK"):
                arguments.append(c.CFUNCTYPE(None, c.c_char_p)(lambda message: None))
            else:
                arguments.append(room if kind.endswith("*") or kind == "LPVOID" else c.c_uint64(1))
        function = getattr(self.library, f"{name}U8" if item.wide else name)
        if item.returns == "HANDLE":
            function.restype = c.c_void_p
            return function(*arguments)
        code = function(*arguments) & 0xFFFFFFFF
        assert room.raw == b"\xa5" * 64
        self._check(code)
        return None

    def locate(self, vm: str, snapshot: str | None = None) -> tuple[str, str, str]:
        given = [vm.encode(), None if snapshot is None else snapshot.encode()]
        paths = [c.c_void_p(0x5A) for _ in range(3)]
        code = self.ask("LocateSavedStateFilesU8", *given, *map(c.byref, paths))
        if code:
            assert [path.value for path in paths] == [None] * 3, "NULL after a failure: clients free all three"
        self._check(code)
        texts = [c.string_at(path.value or 0).decode() for path in paths]
        self.library.LocalFree.restype = c.c_void_p
        assert all(self.library.LocalFree(path) is None for path in paths)
        return texts[0], texts[1], texts[2]
