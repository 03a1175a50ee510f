"""Read Hyper-V saved states: virtual processors, registers, guest memory, from ``.vmrs`` or ``.bin``/``.vsv`` files.

    import vmsavedstate

    with vmsavedstate.open("guest.vmrs") as state:
        print(state.processors[0].registers.rip)
        print(state.memory.read(0x1000, 64))

Names are loaded when they are first used, so that importing the package costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._version import VERSION

if TYPE_CHECKING:
    from . import codec, datatypes, errors, provider
    from . import export as convert
    from .containers import hvstorage
    from .containers.hvstorage.writer import StoreWriter
    from .containers.keytree import KeyEntry, KeyTree
    from .errors import (
        CodecError,
        CompanionError,
        CorruptFileError,
        EncryptedStateError,
        FormatError,
        GuestMemoryError,
        GuestMemoryNotFoundError,
        InvalidArgumentError,
        KeyNotFoundError,
        LibraryBuildError,
        LimitError,
        NestedVirtualizationError,
        NotProvidedError,
        NoVirtualProcessorError,
        PageNotMapped,
        PageTablesError,
        PartitionStateNotFoundError,
        RegisterNotAvailableError,
        ScreenError,
        SourceError,
        SourceExistsError,
        SourceIsADirectoryError,
        SourceNotADirectoryError,
        SourceNotFoundError,
        SourcePermissionError,
        VmSavedStateError,
        VtlNotEnabledError,
    )
    from .export.vmrs import SavedStateWriter
    from .findings import Finding, Severity
    from .memory import GuestPhysicalMemory, MemoryBlock, MemoryChunk, MemoryGap, MemoryRun
    from .memory.file import MemoryFile
    from .memory.protocol import Memory
    from .paging import Access, AddressSpace, LostTable, MappedRegion, MappedRun, Walk, WalkStep
    from .processor import Cpuid, GuestOs, Registers, VirtualProcessor
    from .registers.values import FpuState, SegmentRegister, TableRegister
    from .screen import Screen
    from .snapshot import CpuidLeaf, StateChunk
    from .state import SavedState, open, open_store
    from .summary import Summary
    from .verification import Report, verify
    from .vocabulary import Family, Reason, StepKind

__version__ = VERSION

_HOMES = {
    "open": "state",
    "open_store": "state",
    "KeyEntry": "containers.keytree",
    "KeyTree": "containers.keytree",
    "SavedStateWriter": "export.vmrs",
    "StoreWriter": "containers.hvstorage.writer",
    "SavedState": "state",
    "VirtualProcessor": "processor",
    "GuestPhysicalMemory": "memory",
    "Memory": "memory.protocol",
    "MemoryBlock": "memory",
    "MemoryChunk": "memory",
    "MemoryFile": "memory.file",
    "MemoryGap": "memory",
    "MemoryRun": "memory",
    "Access": "paging",
    "AddressSpace": "paging",
    "LostTable": "paging",
    "MappedRegion": "paging",
    "MappedRun": "paging",
    "Walk": "paging",
    "WalkStep": "paging",
    "Cpuid": "processor",
    "GuestOs": "processor",
    "Registers": "processor",
    "Screen": "screen",
    "Finding": "findings",
    "Severity": "findings",
    "CpuidLeaf": "snapshot",
    "FpuState": "registers.values",
    "SegmentRegister": "registers.values",
    "StateChunk": "snapshot",
    "TableRegister": "registers.values",
    "Summary": "summary",
    "Report": "verification",
    "verify": "verification",
    "Family": "vocabulary",
    "Reason": "vocabulary",
    "StepKind": "vocabulary",
}
_MODULES = ("codec", "convert", "datatypes", "errors", "export", "hvstorage", "provider", "registers")

__all__ = [
    "Access",
    "AddressSpace",
    "Cpuid",
    "CpuidLeaf",
    "Family",
    "Finding",
    "FpuState",
    "GuestOs",
    "GuestPhysicalMemory",
    "KeyEntry",
    "KeyTree",
    "LostTable",
    "MappedRegion",
    "MappedRun",
    "Memory",
    "MemoryBlock",
    "MemoryChunk",
    "MemoryFile",
    "MemoryGap",
    "MemoryRun",
    "Reason",
    "Registers",
    "Report",
    "SavedState",
    "SavedStateWriter",
    "StoreWriter",
    "Screen",
    "SegmentRegister",
    "Severity",
    "StateChunk",
    "StepKind",
    "Summary",
    "TableRegister",
    "VirtualProcessor",
    "Walk",
    "WalkStep",
    "VmSavedStateError",
    "SourceError",
    "SourceExistsError",
    "SourceIsADirectoryError",
    "SourceNotADirectoryError",
    "SourceNotFoundError",
    "SourcePermissionError",
    "FormatError",
    "CorruptFileError",
    "EncryptedStateError",
    "PartitionStateNotFoundError",
    "GuestMemoryNotFoundError",
    "NoVirtualProcessorError",
    "CompanionError",
    "KeyNotFoundError",
    "CodecError",
    "GuestMemoryError",
    "PageNotMapped",
    "PageTablesError",
    "RegisterNotAvailableError",
    "VtlNotEnabledError",
    "ScreenError",
    "LibraryBuildError",
    "LimitError",
    "NestedVirtualizationError",
    "NotProvidedError",
    "InvalidArgumentError",
    "__version__",
    "codec",
    "convert",
    "datatypes",
    "errors",
    "export",
    "hvstorage",
    "open",
    "open_store",
    "provider",
    "registers",
    "verify",
]


if not TYPE_CHECKING:  # type checkers know the names by the imports above, and must reject unknown ones

    def __getattr__(name: str) -> object:
        """Load a public name on first use; every error class is one."""
        if name in _MODULES:
            return importlib.import_module(f".{name}", __name__)
        home = _HOMES.get(name, "errors")
        module = importlib.import_module(f".{home}", __name__)
        if home == "errors" and name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """All public names."""
    return sorted(__all__)
