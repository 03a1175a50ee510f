"""Microsoft's data types of both API generations, with every documented name and number. Nothing here reads a file.

"2018" is the generation of SDK 17134 to 19041, "2021" that of SDK 22000 and later. Each enumeration has Python names
and the C name beside it (``PagingMode.NON_PAGED.c_name == "Paging_NonPaged"``); each structure has the C layout.
Source: specification of the API, sections 3 and 4; Microsoft's pages are under
https://learn.microsoft.com/virtualization/api/vm-dump-provider/
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cenum import CEnum
    from .enums import (
        GuestOsMicrosoftIds,
        GuestOsOpenSourceIds,
        GuestOsVendor,
        PagingMode,
        VirtualProcessorArch,
        VirtualProcessorVendor,
    )
    from .register_ids_2018 import RegisterIdX64, RegisterIdX86
    from .register_ids_2021 import RegisterId
    from .structures import (
        DosImageInfo,
        GpaMemoryChunk,
        GuestOsInfo,
        ModuleInfo,
        VirtualProcessorRegister,
        VirtualProcessorRegisterValue,
    )

_HOMES = {
    "CEnum": "cenum",
    "RegisterId": "register_ids_2021",
    "RegisterIdX64": "register_ids_2018",
    "RegisterIdX86": "register_ids_2018",
    "DosImageInfo": "structures",
    "GpaMemoryChunk": "structures",
    "GuestOsInfo": "structures",
    "ModuleInfo": "structures",
    "VirtualProcessorRegister": "structures",
    "VirtualProcessorRegisterValue": "structures",
}

__all__ = [
    "CEnum",
    "DosImageInfo",
    "GpaMemoryChunk",
    "GuestOsInfo",
    "GuestOsMicrosoftIds",
    "GuestOsOpenSourceIds",
    "GuestOsVendor",
    "ModuleInfo",
    "PagingMode",
    "RegisterId",
    "RegisterIdX64",
    "RegisterIdX86",
    "VirtualProcessorArch",
    "VirtualProcessorRegister",
    "VirtualProcessorRegisterValue",
    "VirtualProcessorVendor",
]


if not TYPE_CHECKING:  # type checkers know the names by the imports above, and must reject unknown ones

    def __getattr__(name: str) -> object:
        """Load a type on first use: 300 register numbers and ctypes are not needed to open a file."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_HOMES.get(name, 'enums')}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """All types."""
    return sorted(__all__)
