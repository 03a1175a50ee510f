"""Virtual trust levels, the guest's system, nested virtualization (API specification, 6.3)."""

from __future__ import annotations

from collections.abc import Iterable

from ..datatypes.structures import GuestOsInfo
from ..errors import INVALID_VP_STATE, NestedVirtualizationError
from .instance import HANDLES


def GetGuestEnabledVirtualTrustLevels(handle: int) -> int:
    """The VTLs of the partition as a bitmap: bit n for VTL n."""
    return _bitmap(HANDLES.get(handle).state.enabled_vtls)


def GetGuestOsInfo(handle: int, virtual_trust_level: int = 0) -> GuestOsInfo:
    """The guest-OS-id of a VTL; 0 for a guest that has not introduced itself.

    Raises VtlNotEnabledError, RegisterNotAvailableError where the file does not hold it.
    """
    return GuestOsInfo(AsUINT64=HANDLES.get(handle).state.guest_os(virtual_trust_level).raw)


def GetActiveVirtualTrustLevel(handle: int, vp_id: int) -> int:
    """The VTL the processor was running in, or the forced one."""
    return HANDLES.get(handle).processor(vp_id).viewed_vtl


def GetEnabledVirtualTrustLevels(handle: int, vp_id: int) -> int:
    """The VTLs of a processor as a bitmap."""
    return _bitmap(HANDLES.get(handle).processor(vp_id).enabled_vtls)


def ForceActiveVirtualTrustLevel(handle: int, vp_id: int, virtual_trust_level: int) -> None:
    """Take registers and translation from another VTL. Raises VtlNotEnabledError; nothing changes then."""
    HANDLES.get(handle).force_vtl(vp_id, virtual_trust_level)


def IsActiveVirtualTrustLevelEnabled(handle: int, vp_id: int) -> bool:
    """Whether the active or forced VTL is enabled; as none other can be forced, always true."""
    processor = HANDLES.get(handle).processor(vp_id)
    return processor.viewed_vtl in processor.enabled_vtls


def IsNestedVirtualizationEnabled(handle: int) -> bool:
    """Whether a processor carries state of nested virtualization."""
    return HANDLES.get(handle).state.nested


def GetNestedVirtualizationMode(handle: int, vp_id: int) -> bool:
    """Whether the processor was running a nested guest: false where the state holds nothing of that kind.

    Raises NestedVirtualizationError where it does: the layout is unpublished.
    """
    if HANDLES.get(handle).processor(vp_id).nested:
        raise NestedVirtualizationError(
            f"VP {vp_id} carries state of nested virtualization, whose layout is unpublished"
        )
    return False


def ForceNestedHostMode(handle: int, vp_id: int, host_mode: bool) -> bool:
    """Read the registers of the nested host instead. Returns the former mode, always false.

    Raises NestedVirtualizationError for ``host_mode`` true: with 0xC0370506 where the processor runs no nested guest.
    """
    processor = HANDLES.get(handle).processor(vp_id)
    if host_mode and not processor.nested:
        raise NestedVirtualizationError(f"VP {vp_id} does not run a nested guest", hresult=INVALID_VP_STATE)
    if host_mode:
        raise NestedVirtualizationError(f"the registers of the nested host of VP {vp_id} have no published layout")
    return False


def _bitmap(vtls: Iterable[int]) -> int:
    return sum(1 << vtl for vtl in vtls)
