"""Microsoft's structures as ctypes, with the C layout of the 64-bit headers (specification of the API, 3.2 to 3.5).

Field names are Microsoft's own, so that code written against the headers reads the same.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from ctypes import Structure, Union
from typing import Any, ClassVar


class _Shown:
    """Shows the fields, for people at a prompt; of a union without a name the first. Not for those that hold pointers."""

    _fields_: ClassVar[Sequence[tuple[Any, ...]]]

    def __repr__(self) -> str:
        """``GpaMemoryChunk(GuestPhysicalStartPageIndex=0x100, PageCount=0xf00)``."""
        names = [kind._fields_[0][0] if name.startswith("_") else name for name, kind, *_ in self._fields_]
        values = ((name, getattr(self, name)) for name in names)
        shown = ", ".join(
            f"{name}={value:#x}" if isinstance(value, int) else f"{name}={value!r}" for name, value in values
        )
        return f"{type(self).__name__.lstrip('_')}({shown})"


class GpaMemoryChunk(_Shown, Structure):
    """GPA_MEMORY_CHUNK, 16 bytes, both generations; units are pages of 4096 bytes."""

    _fields_ = (("GuestPhysicalStartPageIndex", c.c_uint64), ("PageCount", c.c_uint64))


class _RegisterIdUnion(Union):
    _fields_ = (("RegisterId", c.c_uint32), ("RegisterId_x86", c.c_int32), ("RegisterId_x64", c.c_int32))


class VirtualProcessorRegister(_Shown, Structure):
    """VIRTUAL_PROCESSOR_REGISTER of the original documentation page: 24 bytes, the id in, the value out."""

    _anonymous_ = ("_ids",)
    _fields_ = (("Architecture", c.c_int32), ("RegisterValue", c.c_uint64), ("_ids", _RegisterIdUnion))


class _Reg128(_Shown, Structure):
    _fields_ = (("Low64", c.c_uint64), ("High64", c.c_uint64))


class _SegmentBits(Structure):
    _fields_ = (
        ("SegmentType", c.c_uint16, 4),
        ("NonSystemSegment", c.c_uint16, 1),
        ("DescriptorPrivilegeLevel", c.c_uint16, 2),
        ("Present", c.c_uint16, 1),
        ("Reserved", c.c_uint16, 4),
        ("Available", c.c_uint16, 1),
        ("Long", c.c_uint16, 1),
        ("Default", c.c_uint16, 1),
        ("Granularity", c.c_uint16, 1),
    )


class _SegmentAttributes(Union):
    _anonymous_ = ("_bits",)
    _fields_ = (("Attributes", c.c_uint16), ("_bits", _SegmentBits))


class _Segment(_Shown, Structure):
    _anonymous_ = ("_attributes",)
    _fields_ = (
        ("Base", c.c_uint64),
        ("Limit", c.c_uint32),
        ("Selector", c.c_uint16),
        ("_attributes", _SegmentAttributes),
    )


class _Table(_Shown, Structure):
    _fields_ = (("Limit", c.c_uint16), ("Base", c.c_uint64))


class _LastFpEip(Structure):
    _fields_ = (("LastFpEip", c.c_uint32), ("LastFpCs", c.c_uint16))


class _LastFpAddress(Union):
    _anonymous_ = ("_legacy",)
    _fields_ = (("LastFpRip", c.c_uint64), ("_legacy", _LastFpEip))


class _FpControlStatus(_Shown, Structure):
    _anonymous_ = ("_last",)
    _fields_ = (
        ("FpControl", c.c_uint16),
        ("FpStatus", c.c_uint16),
        ("FpTag", c.c_uint8),
        ("Reserved", c.c_uint8),
        ("LastFpOp", c.c_uint16),
        ("_last", _LastFpAddress),
    )


class _LastFpDp(Structure):
    _fields_ = (("LastFpDp", c.c_uint32), ("LastFpDs", c.c_uint16))


class _LastFpData(Union):
    _anonymous_ = ("_legacy",)
    _fields_ = (("LastFpRdp", c.c_uint64), ("_legacy", _LastFpDp))


class _XmmControlStatus(_Shown, Structure):
    _anonymous_ = ("_last",)
    _fields_ = (("_last", _LastFpData), ("XmmStatusControl", c.c_uint32), ("XmmStatusControlMask", c.c_uint32))


class _X64(Union):
    _fields_ = (
        ("Segment", _Segment),
        ("Table", _Table),
        ("FpControlStatus", _FpControlStatus),
        ("XmmControlStatus", _XmmControlStatus),
    )


class VirtualProcessorRegisterValue(Union):
    """VIRTUAL_PROCESSOR_REGISTER of SDK 22000 and later: a union of 16 bytes, output only."""

    _fields_ = (
        ("Reg64", c.c_uint64),
        ("Reg32", c.c_uint32),
        ("Reg16", c.c_uint16),
        ("Reg8", c.c_uint8),
        ("Reg128", _Reg128),
        ("X64", _X64),
    )

    def __repr__(self) -> str:
        """All 128 bits as a number; the register's number says which member is meant."""
        return f"VirtualProcessorRegisterValue({int.from_bytes(bytes(self), 'little'):#x})"


class _ClosedSource(_Shown, Structure):
    _fields_ = (
        ("BuildNumber", c.c_uint64, 16),
        ("ServiceVersion", c.c_uint64, 8),
        ("MinorVersion", c.c_uint64, 8),
        ("MajorVersion", c.c_uint64, 8),
        ("OsId", c.c_uint64, 8),
        ("VendorId", c.c_uint64, 16),
    )


class _OpenSource(_Shown, Structure):
    _fields_ = (
        ("VendorSpecific1", c.c_uint64, 16),
        ("Version", c.c_uint64, 32),
        ("VendorSpecific2", c.c_uint64, 8),
        ("OsId", c.c_uint64, 7),
        ("IsOpenSource", c.c_uint64, 1),
    )


class GuestOsInfo(Union):
    """GUEST_OS_INFO, 8 bytes (2021): what the guest wrote into its guest-OS-id register."""

    _fields_ = (("AsUINT64", c.c_uint64), ("ClosedSource", _ClosedSource), ("OpenSource", _OpenSource))

    def __repr__(self) -> str:
        """The number, and the reading that its highest bit selects."""
        reading = self.OpenSource if self.OpenSource.IsOpenSource else self.ClosedSource
        return f"GuestOsInfo({self.AsUINT64:#x}, {reading!r})"


class DosImageInfo(Structure):
    """DOS_IMAGE_INFO, 24 bytes (2021)."""

    _fields_ = (
        ("PdbName", c.c_char_p),
        ("ImageBaseAddress", c.c_uint64),
        ("ImageSize", c.c_uint32),
        ("Timestamp", c.c_uint32),
    )


class ModuleInfo(Structure):
    """MODULE_INFO, 32 bytes (2021)."""

    _fields_ = (("ProcessImageName", c.c_char_p), ("Image", DosImageInfo))
