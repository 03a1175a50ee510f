"""Makes the partition state value (format specification, 6 and 9, rules 12 and 13)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidArgumentError
from ..formats.hyperv.layout import partition_state as layout
from ..formats.hyperv.layout import registers as tables
from ..formats.hyperv.layout.partition_state import ChunkId
from ..integers import as_int
from ..registers.values import FpuState, RegisterValue, SegmentRegister, TableRegister
from ..snapshot import CpuidLeaf

_WIDTHS = {"u8": 1, "u32": 4, "u64": 8, "u128": 16}


@dataclass(frozen=True)
class ProcessorInput:
    """A processor to write: its index, the registers of each VTL by name, and the VTL it was running in."""

    index: int
    vtls: Mapping[int, Mapping[str, RegisterValue]]
    active_vtl: int


def build_partition_state(
    family: str,
    vendor: int,
    processors: Sequence[ProcessorInput],
    os_ids: Mapping[int, int],
    cpuid: Sequence[CpuidLeaf],
) -> bytes:
    """The whole value. Raises InvalidArgumentError for registers that the family does not have."""
    vtls = sorted({0, *os_ids, *(vtl for processor in processors for vtl in processor.vtls)})
    if all(0 not in processor.vtls for processor in processors) and 0 not in os_ids:
        vtls.remove(0)
    stream = [_chunk(ChunkId.PROLOG, _prolog(vendor))]
    if cpuid:
        stream.append(_chunk(ChunkId.PROCESSOR_CPUID_DATA, _cpuid(cpuid)))
    stream.append(_chunk(ChunkId.OS_ID, struct.pack("<Q8x", os_ids.get(0, 0))))
    for vtl in vtls:
        stream.append(_chunk(ChunkId.PARTITION_VTL, bytes([vtl]).ljust(16, b"\0")))
        if vtl and vtl in os_ids:
            stream.append(_chunk(ChunkId.OS_ID, struct.pack("<Q8x", os_ids[vtl])))
    stream.append(_chunk(ChunkId.VP_INDICES, _vp_indices([processor.index for processor in processors])))
    for processor in processors:
        stream.extend(_processor(processor, family))
    stream.append(_chunk(ChunkId.EPILOG, b""))
    body = bytes(layout.ITEM.size) + b"".join(stream)
    size = layout.DESCRIPTOR.size
    return layout.DESCRIPTOR.pack(size, size, size + len(body)) + body


def _chunk(number: int, data: bytes) -> bytes:
    return layout.CHUNK.pack(number, len(data)) + data


def _prolog(vendor: int) -> bytes:
    return layout.PROLOG.pack(layout.PROLOG_TAG, 0, vendor).ljust(layout.PROLOG_SIZE, b"\0")


def _cpuid(leaves: Sequence[CpuidLeaf]) -> bytes:
    basic = max((leaf.leaf for leaf in leaves if leaf.leaf < 0x80000000), default=0)
    extended = max((leaf.leaf for leaf in leaves if leaf.leaf >= 0x80000000), default=0)
    body = b"".join(
        layout.CPUID_LEAF.pack(leaf.leaf, leaf.subleaf, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) for leaf in leaves
    )
    head = layout.CPUID_HEADER.pack(1, len(leaves), basic, extended)
    return (head + body).ljust(layout.CPUID_CHUNK_SIZE, b"\0")


def _vp_indices(indices: Sequence[int]) -> bytes:
    bitmap = sum(1 << index for index in indices)
    size = max(8, (bitmap.bit_length() + 31) // 32 * 4)
    return indices[0].to_bytes(4, "little") + bitmap.to_bytes(size, "little")


def _processor(processor: ProcessorInput, family: str) -> Iterable[bytes]:
    yield _chunk(ChunkId.VP, struct.pack("<I12x", processor.index))
    several = len(processor.vtls) > 1
    if several:
        yield _control_page(processor.active_vtl == 0)
    for vtl in sorted(processor.vtls):
        yield _chunk(ChunkId.VP_VTL, bytes([vtl]).ljust(16, b"\0"))
        if several and vtl and vtl == processor.active_vtl:
            yield _control_page(True)
        yield from _register_chunks(processor.vtls[vtl], family)


def _control_page(runnable: bool) -> bytes:
    return _chunk(ChunkId.VP_VTL_CONTROL_PAGE, layout.VTL_CONTROL_PAGE.pack(bytes(24), runnable))


def _layouts(family: str) -> tuple[tables.ChunkLayout, ...]:
    return (*tables.X86_CHUNKS, *tables.X86_OPTIONAL_CHUNKS) if family == "x86" else tables.ARM64_CHUNKS


def known_registers(family: str) -> frozenset[str]:
    """The names a processor of a family may be given."""
    extra = {"fpu", "cpl"} if family == "x86" else set()
    return frozenset({name for item in _layouts(family) for name in item.registers} | extra)


def _register_chunks(registers: Mapping[str, RegisterValue], family: str) -> Iterable[bytes]:
    """The chunks of one VTL: each one of which a register is given; its other registers are zero."""
    x86 = family == "x86"
    unknown = sorted(set(registers) - known_registers(family))
    if unknown:
        raise InvalidArgumentError(f"there are no registers {', '.join(map(repr, unknown))} on {family}")
    for item in _layouts(family):
        given = [name for name in item.registers if name in registers]
        fpu = registers.get("fpu") if x86 and item.chunk == ChunkId.VP_FP_REGISTERS else None
        if not given and fpu is None:
            continue
        data = bytearray(item.size)
        if isinstance(fpu, FpuState):
            _put_fpu(data, fpu)
        for name in given:
            offset, kind = item.registers[name]
            _put(data, offset, kind, registers[name], name)
        if item.chunk == ChunkId.VP_SEGMENT_REGISTERS:
            data[tables.CPL_AT] = _cpl(registers)
        yield _chunk(item.chunk, bytes(data))


def _put(data: bytearray, offset: int, kind: str, value: RegisterValue, name: str) -> None:
    try:
        if kind == "segment" and isinstance(value, SegmentRegister):
            tables.SEGMENT.pack_into(data, offset, value.base, value.limit, value.selector, value.attributes)
        elif kind == "table" and isinstance(value, TableRegister):
            tables.TABLE.pack_into(data, offset, value.limit, value.base)
        elif kind in _WIDTHS and not isinstance(value, (SegmentRegister, TableRegister, FpuState)):
            width = _WIDTHS[kind]
            data[offset : offset + width] = as_int(value, f"register {name!r}").to_bytes(width, "little")
        else:
            raise InvalidArgumentError(f"register {name!r} is a {kind}, not {type(value).__name__}")
    except (OverflowError, struct.error) as error:
        raise InvalidArgumentError(f"the value of register {name!r} does not fit: {value!r}") from error


def _put_fpu(data: bytearray, fpu: FpuState) -> None:
    try:
        tables.FP_CONTROL_STATUS.pack_into(
            data, tables.FP_STATUS_AT, fpu.control, fpu.status, fpu.tag, fpu.opcode, fpu.ip
        )
        tables.XMM_CONTROL_STATUS.pack_into(data, tables.XMM_STATUS_AT, fpu.dp, fpu.mxcsr, fpu.mxcsr_mask)
        for index, value in enumerate(fpu.st):
            data[tables.ST_AT + 16 * index : tables.ST_AT + 16 * index + 16] = as_int(value, "st").to_bytes(
                16, "little"
            )
    except (OverflowError, struct.error) as error:
        raise InvalidArgumentError(f"the FPU state does not fit: {fpu!r}") from error


def _cpl(registers: Mapping[str, RegisterValue]) -> int:
    """The privilege level: as given, else the DPL of SS, where the processor keeps it."""
    level = registers.get("cpl")
    if level is not None:
        return as_int(level, "the privilege level") & 3
    ss = registers.get("ss")
    return ss.attributes >> 5 & 3 if isinstance(ss, SegmentRegister) else 0
