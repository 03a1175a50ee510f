"""Decodes register chunks with the tables of ``layout.registers`` (format specification, 6.5 to 6.8)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from ...registers.values import FpuState, RegisterValue, SegmentRegister, TableRegister
from .layout import registers as tables
from .layout.partition_state import ChunkId

ChunkData = Mapping[int, bytes]

_INTEGERS = {"u32": struct.Struct("<I"), "u64": struct.Struct("<Q")}


def decode_value(data: bytes, offset: int, kind: str) -> RegisterValue:
    """One register out of a chunk's data; the caller has checked the length."""
    if kind == "u128":
        return int.from_bytes(data[offset : offset + 16], "little")
    if kind == "segment":
        return SegmentRegister(*tables.SEGMENT.unpack_from(data, offset))
    if kind == "table":
        limit, base = tables.TABLE.unpack_from(data, offset)
        return TableRegister(base, limit)
    return int(_INTEGERS[kind].unpack_from(data, offset)[0])


def decode_chunks(chunks: ChunkData, layouts: Iterable[tables.ChunkLayout]) -> dict[str, RegisterValue]:
    """All registers of the chunks that are there in full."""
    values: dict[str, RegisterValue] = {}
    for layout in layouts:
        data = chunks.get(layout.chunk)
        if data is not None and len(data) >= layout.size:
            for name, (offset, kind) in layout.registers.items():
                values[name] = decode_value(data, offset, kind)
    return values


def decode_x86(chunks: ChunkData) -> dict[str, RegisterValue]:
    """The registers of one VTL of an x86 processor; ``fpu`` gathers what FXSAVE keeps beside the registers."""
    values = decode_chunks(chunks, (*tables.X86_CHUNKS, *tables.X86_OPTIONAL_CHUNKS))
    fp = chunks.get(ChunkId.VP_FP_REGISTERS)
    if fp is not None and "xmm0" in values:
        control, status, tag, opcode, ip = tables.FP_CONTROL_STATUS.unpack_from(fp, tables.FP_STATUS_AT)
        dp, mxcsr, mask = tables.XMM_CONTROL_STATUS.unpack_from(fp, tables.XMM_STATUS_AT)
        st = tuple(int.from_bytes(fp[at : at + 16], "little") for at in range(tables.ST_AT, tables.ST_AT + 128, 16))
        values["fpu"] = FpuState(control, status, tag, opcode, ip, dp, mxcsr, mask, st)
    return values


def decode_arm64(chunks: ChunkData) -> dict[str, RegisterValue]:
    """The registers of one VTL of an ARM64 processor."""
    return decode_chunks(chunks, tables.ARM64_CHUNKS)


def registers_of_vtl(by_vtl: Mapping[int, ChunkData], vtl: int, family: str) -> dict[str, RegisterValue]:
    """What the state holds for one VTL: its own chunks, and from the other VTLs only the registers they share (6.7)."""
    decode, shared = (decode_arm64, tables.ARM64_SHARED) if family == "arm64" else (decode_x86, tables.X86_SHARED)
    values = decode(by_vtl.get(vtl, {}))
    for other in sorted(by_vtl):
        if other != vtl:
            for name, value in decode(by_vtl[other]).items():
                if name in shared:
                    values.setdefault(name, value)
    return values


def unconfirmed_of_vtl(by_vtl: Mapping[int, ChunkData], vtl: int, family: str) -> dict[str, int]:
    """Values only third parties have worked out; none are known for ARM64."""
    if family == "arm64":
        return {}
    values = decode_chunks(by_vtl.get(vtl, {}), tables.X86_UNCONFIRMED)
    return {name: value for name, value in values.items() if isinstance(value, int)}


def cpl_of_vtl(by_vtl: Mapping[int, ChunkData], vtl: int, family: str) -> int | None:
    """The privilege level kept behind the segment registers, None where there is none."""
    data = by_vtl.get(vtl, {}).get(ChunkId.VP_SEGMENT_REGISTERS)
    return None if family == "arm64" or data is None else stored_cpl(data)


def stored_cpl(data: bytes) -> int | None:
    """The privilege level in the data of a segment chunk, None where it is too short to hold one."""
    return data[tables.CPL_AT] if len(data) > tables.CPL_AT else None


def expected_sizes(family: str) -> dict[int, int]:
    """Data length of every register chunk of a processor family, in bytes."""
    return {layout.chunk: layout.size for layout in (tables.ARM64_CHUNKS if family == "arm64" else tables.X86_CHUNKS)}
