"""Symbols and call stacks (API specification, 6.4). There is no engine for Microsoft's symbol files here: all refuse.

The names exist so that code that binds them all can be loaded. Every function raises InvalidArgumentError for a handle
that is invalid, and NotProvidedError (E_NOTIMPL) otherwise, unless it says something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from ..datatypes.structures import ModuleInfo
from ..errors import NotProvidedError
from .instance import HANDLES


def LoadSavedStateSymbolProvider(handle: int, user_symbols: str | None = None, force: bool = False) -> None:
    """Would load a symbol provider over the search path ``user_symbols``."""
    _refuse(handle)


def ReleaseSavedStateSymbolProvider(handle: int) -> None:
    """Would release it."""
    _refuse(handle)


def GetSavedStateSymbolProviderHandle(handle: int) -> int | None:
    """The handle of the symbol provider: None, as there is none. Raises nothing, whatever the handle is."""
    return None


def SetSavedStateSymbolProviderDebugInfoCallback(handle: int, callback: Callable[[str], None] | None) -> None:
    """Keep a function for the symbol provider's messages; nothing calls it. Does not refuse."""
    HANDLES.get(handle).symbol_callback = callback


def LoadSavedStateModuleSymbols(handle: int, image_name: str, module_name: str, base: int, size: int) -> None:
    """Would load the symbols of a module."""
    _refuse(handle)


def LoadSavedStateModuleSymbolsEx(
    handle: int, image_name: str, image_timestamp: int, module_name: str, base: int, size: int
) -> None:
    """Would load the symbols of a module with a given time stamp."""
    _refuse(handle)


def ResolveSavedStateGlobalVariableAddress(handle: int, vp_id: int, global_name: str) -> tuple[int, int]:
    """Would give the virtual address and size of a global variable."""
    _refuse(handle)


def ReadSavedStateGlobalVariable(handle: int, vp_id: int, global_name: str, size: int) -> bytes:
    """Would read a global variable."""
    _refuse(handle)


def GetSavedStateSymbolTypeSize(handle: int, vp_id: int, type_name: str) -> int:
    """Would give the size of a type."""
    _refuse(handle)


def FindSavedStateSymbolFieldInType(handle: int, vp_id: int, type_name: str, field_name: str) -> int | None:
    """Would give the offset of a field in a type."""
    _refuse(handle)


def GetSavedStateSymbolFieldInfo(handle: int, vp_id: int, type_name: str) -> Mapping[str, Mapping[str, int]]:
    """Would give the fields of a type, with ``FieldOffset`` and ``FieldSize``."""
    _refuse(handle)


def CallStackUnwind(handle: int, vp_id: int, images: Sequence[ModuleInfo], frame_count: int) -> str:
    """Would print a call stack."""
    _refuse(handle)


def _refuse(handle: int) -> NoReturn:
    HANDLES.get(handle)
    raise NotProvidedError(
        "there is no engine for symbol files here",
        remedy="registers, memory and translation are there: give them to a debugger that has one",
    )
