"""Virtual processors: architecture, paging mode, registers, privilege (API specification, 6.1 and 6.2)."""

from __future__ import annotations

from typing import TypeVar

from ..datatypes.cenum import CEnum
from ..datatypes.enums import PagingMode, VirtualProcessorArch
from ..datatypes.structures import VirtualProcessorRegisterValue
from ..errors import InvalidArgumentError
from ..integers import as_int
from .instance import HANDLES
from .register_values import value_2021

Member = TypeVar("Member", bound=CEnum)


def GetVpCount(handle: int) -> int:
    """How many virtual processors the state has. Raises InvalidArgumentError, as every function with a handle does."""
    return len(HANDLES.get(handle).state.processors)


def GetArchitecture(handle: int, vp_id: int) -> VirtualProcessorArch:
    """The instruction set the processor was executing, or the forced one.

    Code in compatibility mode counts as x86. Raises RegisterNotAvailableError.
    """
    return HANDLES.get(handle).architecture(vp_id)


def ForceArchitecture(handle: int, vp_id: int, architecture: VirtualProcessorArch | int) -> None:
    """Let GetArchitecture and translation use another architecture; UNKNOWN goes back to the processor's own."""
    HANDLES.get(handle).force_architecture(vp_id, member(VirtualProcessorArch, architecture))


def GetPagingMode(handle: int, vp_id: int) -> PagingMode:
    """The forced mode, or what CR4 and EFER speak of. As in Microsoft's provider CR0.PG does not matter.

    ``processors[n].paging_mode`` of a SavedState says what the processor did. Raises RegisterNotAvailableError.
    """
    return HANDLES.get(handle).paging_mode(vp_id)


def ForcePagingMode(handle: int, vp_id: int, paging_mode: PagingMode | int) -> None:
    """Let GetPagingMode and translation use another mode; INVALID goes back to the processor's own."""
    HANDLES.get(handle).force_paging_mode(vp_id, member(PagingMode, paging_mode))


def GetRegisterValue(handle: int, vp_id: int, register_id: int) -> VirtualProcessorRegisterValue:
    """A register by its REGISTER_ID (SDK 22000 and later), from the active or forced VTL: a union of 16 bytes.

    Raises InvalidArgumentError for an unknown register number or one of the other family, RegisterNotAvailableError.
    """
    processor = HANDLES.get(handle).processor(vp_id)
    return value_2021(processor.registers, processor.family, register_id)


def InKernelSpace(handle: int, vp_id: int) -> bool:
    """Whether the processor was running privileged code: CPL 0, or an exception level above 0.

    Raises RegisterNotAvailableError.
    """
    processor = HANDLES.get(handle).processor(vp_id)
    return processor.cpl != 0 if processor.family == "arm64" else processor.cpl == 0


def member(kind: type[Member], value: int) -> Member:
    """The member of an enumeration. Raises InvalidArgumentError for a number it does not have."""
    try:
        return kind(as_int(value, kind.__name__))
    except ValueError as error:
        raise InvalidArgumentError(f"{value!r} is not a {kind.__name__}") from error
