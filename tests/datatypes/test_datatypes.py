"""Every value and offset of Microsoft's types against tables of this file (API specification, sections 3 and 4)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from vmsavedstate import datatypes
from vmsavedstate.datatypes import CEnum

SMALL_ENUMS = {
    "PagingMode": {
        "Paging_Invalid": 0, "Paging_NonPaged": 1, "Paging_32Bit": 2, "Paging_Pae": 3, "Paging_Long": 4, "Paging_Armv8": 5,
    },
    "VirtualProcessorArch": {"Arch_Unknown": 0, "Arch_x86": 1, "Arch_x64": 2, "Arch_Armv8": 3},
    "VirtualProcessorVendor": {
        "ProcessorVendor_Unknown": 0, "ProcessorVendor_Amd": 1, "ProcessorVendor_Intel": 2, "ProcessorVendor_Hygon": 3,
        "ProcessorVendor_Arm": 4,
    },
    "GuestOsVendor": {
        "GuestOsVendorUndefined": 0, "GuestOsVendorMicrosoft": 1, "GuestOsVendorHPE": 2, "GuestOsVendorLANCOM": 0x200,
    },
    "GuestOsMicrosoftIds": {
        "GuestOsMicrosoftUndefined": 0, "GuestOsMicrosoftMSDOS": 1, "GuestOsMicrosoftWindows3x": 2,
        "GuestOsMicrosoftWindows9x": 3, "GuestOsMicrosoftWindowsNT": 4, "GuestOsMicrosoftWindowsCE": 5,
    },
    "GuestOsOpenSourceIds": {
        "GuestOsOpenSourceUndefined": 0, "GuestOsOpenSourceLinux": 1, "GuestOsOpenSourceFreeBSD": 2,
        "GuestOsOpenSourceXen": 3, "GuestOsOpenSourceIllumos": 4,
    },
}  # fmt: skip

X86_2018 = (
    "Eax Ecx Edx Ebx Esp Ebp Esi Edi Eip EFlags "
    + " ".join(f"LowXmm{n} HighXmm{n}" for n in range(16))
    + " LowXmmControlStatus HighXmmControlStatus LowFpControlStatus HighFpControlStatus"
    " Cr0 Cr2 Cr3 Cr4 Cr8 Efer Dr0 Dr1 Dr2 Dr3 Dr6 Dr7 BaseGs BaseFs SegCs SegDs SegEs SegFs SegGs SegSs Tr Ldtr"
    " BaseIdtr LimitIdtr BaseGdtr LimitGdtr Count"
).split()
X64_2018 = (
    "Rax Rcx Rdx Rbx Rsp Rbp Rsi Rdi R8 R9 R10 R11 R12 R13 R14 R15 Rip RFlags " + " ".join(X86_2018[10:])
).split()
X64_2021 = (
    "Rax Rcx Rdx Rbx Rsp Rbp Rsi Rdi R8 R9 R10 R11 R12 R13 R14 R15 Rip RFlags "
    + " ".join(f"Xmm{n}" for n in range(16))
    + " "
    + " ".join(f"FpMmx{n}" for n in range(8))
    + " FpControlStatus XmmControlStatus Cr0 Cr2 Cr3 Cr4 Cr8 Efer Dr0 Dr1 Dr2 Dr3 Dr6 Dr7 Es Cs Ss Ds Fs Gs Ldtr Tr"
    " Idtr Gdtr Max"
).split()
ARM64_2021 = (
    " ".join(f"X{n}" for n in range(29))
    + " XFp XLr Pc SpEl0 SpEl1 Cpsr "
    + " ".join(f"Q{n}" for n in range(32))
    + " FpStatus FpControl EsrEl1 SpsrEl1 FarEl1 ParEl1 ElrEl1 Ttbr0El1 Ttbr1El1 VbarEl1 SctlrEl1 ActlrEl1 TcrEl1"
    " MairEl1 AmairEl1 TpidrEl0 TpidrroEl0 TpidrEl1 ContextIdrEl1 CpacrEl1 CsselrEl1 CntkctlEl1 CntvCvalEl0"
    " CntvCtlEl0 Max"
).split()


@pytest.mark.parametrize("name", SMALL_ENUMS)
def test_small_enumeration(name: str) -> None:
    assert {member.c_name: int(member) for member in getattr(datatypes, name)} == SMALL_ENUMS[name]


def test_register_ids_x86_2018() -> None:
    assert len(X86_2018) == 73
    expected = {f"X86_Register{name}": number for number, name in enumerate(X86_2018)}
    assert {member.c_name: int(member) for member in datatypes.RegisterIdX86} == expected


def test_register_ids_x64_2018() -> None:
    assert len(X64_2018) == 81
    expected = {f"X64_Register{name}": number for number, name in enumerate(X64_2018)}
    assert {member.c_name: int(member) for member in datatypes.RegisterIdX64} == expected


def test_register_ids_2021() -> None:
    expected = {f"X64_Register{name}": number for number, name in enumerate(X64_2021)}
    expected |= {f"ARM64_Register{name}": number for number, name in enumerate(ARM64_2021, start=67)}
    assert expected["X64_RegisterMax"] == 66
    assert expected["ARM64_RegisterMax"] == 158
    assert {member.c_name: int(member) for member in datatypes.RegisterId} == expected


@pytest.mark.parametrize(
    ("number", "name"),
    [(1, "X64_RegisterRcx"), (42, "X64_RegisterFpControlStatus"), (46, "X64_RegisterCr3"), (65, "X64_RegisterGdtr"),
     (98, "ARM64_RegisterPc"), (101, "ARM64_RegisterCpsr"), (102, "ARM64_RegisterQ0"), (141, "ARM64_RegisterTtbr0El1"),
     (149, "ARM64_RegisterTpidrEl0"), (157, "ARM64_RegisterCntvCtlEl0")],
)  # fmt: skip
def test_anchors_of_2021(number: int, name: str) -> None:
    """Numbers the specification names on their own: the tables above cannot all be shifted by one."""
    assert datatypes.RegisterId.from_c_name(name) == number


@pytest.mark.parametrize(
    ("kind", "number", "name"),
    [("RegisterIdX86", 48, "X86_RegisterCr3"), ("RegisterIdX64", 56, "X64_RegisterCr3"),
     ("RegisterIdX86", 72, "X86_RegisterCount"), ("RegisterIdX64", 80, "X64_RegisterCount"),
     ("RegisterIdX64", 50, "X64_RegisterLowXmmControlStatus"), ("RegisterIdX64", 66, "X64_RegisterBaseGs")],
)  # fmt: skip
def test_anchors_of_2018(kind: str, number: int, name: str) -> None:
    assert getattr(datatypes, kind).from_c_name(name) == number


def test_the_documented_misspelling_is_a_name_too() -> None:
    assert datatypes.VirtualProcessorArch.from_c_name("Arch_Unkown") is datatypes.VirtualProcessorArch.UNKNOWN
    assert datatypes.VirtualProcessorArch.UNKNOWN.c_name == "Arch_Unknown"
    with pytest.raises(KeyError):
        datatypes.VirtualProcessorArch.from_c_name("Arch_Unkwon")


def test_python_name_and_c_name_of_one_member() -> None:
    assert datatypes.PagingMode.NON_PAGED.c_name == "Paging_NonPaged"
    assert datatypes.PagingMode(1) is datatypes.PagingMode.NON_PAGED
    assert isinstance(datatypes.PagingMode.NON_PAGED, CEnum)


def _offsets(
    kind: type[ctypes.Structure] | type[ctypes.Union], base: int = 0, prefix: str = ""
) -> Iterator[tuple[str, int]]:
    for name, sub, *bits in kind._fields_:
        if bits:
            continue
        at = base + getattr(kind, name).offset
        path = prefix if name.startswith("_") else f"{prefix}.{name}".lstrip(".")
        if not name.startswith("_"):
            yield path, at
        if isinstance(sub, type) and issubclass(sub, (ctypes.Structure, ctypes.Union)):
            yield from _offsets(sub, at, path)


STRUCTURES = {
    "GpaMemoryChunk": (16, {"GuestPhysicalStartPageIndex": 0, "PageCount": 8}),
    "VirtualProcessorRegister": (
        24, {"Architecture": 0, "RegisterValue": 8, "RegisterId": 16, "RegisterId_x86": 16, "RegisterId_x64": 16},
    ),
    "VirtualProcessorRegisterValue": (16, {
        "Reg64": 0, "Reg32": 0, "Reg16": 0, "Reg8": 0, "Reg128": 0, "Reg128.Low64": 0, "Reg128.High64": 8, "X64": 0,
        "X64.Segment": 0, "X64.Segment.Base": 0, "X64.Segment.Limit": 8, "X64.Segment.Selector": 12,
        "X64.Segment.Attributes": 14, "X64.Table": 0, "X64.Table.Limit": 0, "X64.Table.Base": 8,
        "X64.FpControlStatus": 0, "X64.FpControlStatus.FpControl": 0, "X64.FpControlStatus.FpStatus": 2,
        "X64.FpControlStatus.FpTag": 4, "X64.FpControlStatus.Reserved": 5, "X64.FpControlStatus.LastFpOp": 6,
        "X64.FpControlStatus.LastFpRip": 8, "X64.FpControlStatus.LastFpEip": 8, "X64.FpControlStatus.LastFpCs": 12,
        "X64.XmmControlStatus": 0, "X64.XmmControlStatus.LastFpRdp": 0, "X64.XmmControlStatus.LastFpDp": 0,
        "X64.XmmControlStatus.LastFpDs": 4, "X64.XmmControlStatus.XmmStatusControl": 8,
        "X64.XmmControlStatus.XmmStatusControlMask": 12,
    }),
    "GuestOsInfo": (8, {"AsUINT64": 0, "ClosedSource": 0, "OpenSource": 0}),
    "DosImageInfo": (24, {"PdbName": 0, "ImageBaseAddress": 8, "ImageSize": 16, "Timestamp": 20}),
    "ModuleInfo": (32, {
        "ProcessImageName": 0, "Image": 8, "Image.PdbName": 8, "Image.ImageBaseAddress": 16, "Image.ImageSize": 24,
        "Image.Timestamp": 28,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_layout(name: str) -> None:
    kind = getattr(datatypes, name)
    size, offsets = STRUCTURES[name]
    assert ctypes.sizeof(kind) == size
    assert ctypes.alignment(kind) == 8
    assert dict(_offsets(kind)) == offsets


@pytest.mark.parametrize(
    ("bits", "value"),
    [({"SegmentType": 15}, 0xF), ({"NonSystemSegment": 1}, 0x10), ({"DescriptorPrivilegeLevel": 3}, 0x60),
     ({"Present": 1}, 0x80), ({"Reserved": 15}, 0xF00), ({"Available": 1}, 0x1000), ({"Long": 1}, 0x2000),
     ({"Default": 1}, 0x4000), ({"Granularity": 1}, 0x8000)],
)  # fmt: skip
def test_segment_attribute_bits(bits: dict[str, int], value: int) -> None:
    register = datatypes.VirtualProcessorRegisterValue()
    for name, number in bits.items():
        setattr(register.X64.Segment, name, number)
    assert register.X64.Segment.Attributes == value


@pytest.mark.parametrize(
    ("part", "name", "value", "whole"),
    [("ClosedSource", "BuildNumber", 0xFFFF, 0xFFFF), ("ClosedSource", "ServiceVersion", 0xFF, 0xFF << 16),
     ("ClosedSource", "MinorVersion", 0xFF, 0xFF << 24), ("ClosedSource", "MajorVersion", 0xFF, 0xFF << 32),
     ("ClosedSource", "OsId", 0xFF, 0xFF << 40), ("ClosedSource", "VendorId", 0xFFFF, 0xFFFF << 48),
     ("OpenSource", "VendorSpecific1", 0xFFFF, 0xFFFF), ("OpenSource", "Version", 0xFFFFFFFF, 0xFFFFFFFF << 16),
     ("OpenSource", "VendorSpecific2", 0xFF, 0xFF << 48), ("OpenSource", "OsId", 0x7F, 0x7F << 56),
     ("OpenSource", "IsOpenSource", 1, 1 << 63)],
)  # fmt: skip
def test_guest_os_info_bits(part: str, name: str, value: int, whole: int) -> None:
    info = datatypes.GuestOsInfo()
    setattr(getattr(info, part), name, value)
    assert info.AsUINT64 == whole


def test_structures_show_themselves() -> None:
    value = datatypes.VirtualProcessorRegisterValue()
    value.Reg128.High64, value.Reg128.Low64 = 1, 2
    assert repr(value) == "VirtualProcessorRegisterValue(0x10000000000000002)"
    assert repr(value.X64.Segment) == "Segment(Base=0x2, Limit=0x1, Selector=0x0, Attributes=0x0)"
    assert "LastFpRip=0x1" in repr(value.X64.FpControlStatus)
    assert (
        repr(datatypes.GpaMemoryChunk(0x100, 0xF00))
        == "GpaMemoryChunk(GuestPhysicalStartPageIndex=0x100, PageCount=0xf00)"
    )
    assert "RegisterId=0x38" in repr(datatypes.VirtualProcessorRegister(Architecture=2, RegisterId=56))
    assert repr(datatypes.GuestOsInfo(0x8100_0000_0000_0000)).startswith("GuestOsInfo(0x8100000000000000, OpenSource(")
    assert "ClosedSource(BuildNumber=0x6" in repr(datatypes.GuestOsInfo(6))
    wild = datatypes.DosImageInfo.from_buffer_copy(b"\x10" + bytes(23))
    assert "DosImageInfo" in repr(wild), "a pointer that leads nowhere is not followed"
