"""Microsoft's structures as ctypes, with the C layout of the 64-bit headers (specification of the API, 3.2 to 3.5).

Field names are Microsoft's own, so that code written against the headers reads the same.
"""

from __future__ import annotations

import ctypes as c
from ctypes import Structure, Union


class GpaMemoryChunk(Structure):
    """GPA_MEMORY_CHUNK, 16 bytes, both generations; units are pages of 4096 bytes."""

    _fields_ = (("GuestPhysicalStartPageIndex", c.c_uint64), ("PageCount", c.c_uint64))


class _RegisterIdUnion(Union):
    _fields_ = (("RegisterId", c.c_uint32), ("RegisterId_x86", c.c_int32), ("RegisterId_x64", c.c_int32))


class VirtualProcessorRegister(Structure):
    """VIRTUAL_PROCESSOR_REGISTER of the original documentation page: 24 bytes, the id in, the value out."""

    _anonymous_ = ("_ids",)
    _fields_ = (("Architecture", c.c_int32), ("RegisterValue", c.c_uint64), ("_ids", _RegisterIdUnion))


class _Reg128(Structure):
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


class _Segment(Structure):
    _anonymous_ = ("_attributes",)
    _fields_ = (
        ("Base", c.c_uint64),
        ("Limit", c.c_uint32),
        ("Selector", c.c_uint16),
        ("_attributes", _SegmentAttributes),
    )


class _Table(Structure):
    _fields_ = (("Limit", c.c_uint16), ("Base", c.c_uint64))


class _LastFpEip(Structure):
    _fields_ = (("LastFpEip", c.c_uint32), ("LastFpCs", c.c_uint16))


class _LastFpAddress(Union):
    _anonymous_ = ("_legacy",)
    _fields_ = (("LastFpRip", c.c_uint64), ("_legacy", _LastFpEip))


class _FpControlStatus(Structure):
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


class _XmmControlStatus(Structure):
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


class _ClosedSource(Structure):
    _fields_ = (
        ("BuildNumber", c.c_uint64, 16),
        ("ServiceVersion", c.c_uint64, 8),
        ("MinorVersion", c.c_uint64, 8),
        ("MajorVersion", c.c_uint64, 8),
        ("OsId", c.c_uint64, 8),
        ("VendorId", c.c_uint64, 16),
    )


class _OpenSource(Structure):
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
