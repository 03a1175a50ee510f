"""Registers by Microsoft's numbers, in the shapes of both generations (API specification, sections 3.3, 3.4, 4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from ..datatypes.register_ids_2018 import RegisterIdX64, RegisterIdX86
from ..datatypes.register_ids_2021 import RegisterId
from ..datatypes.structures import VirtualProcessorRegisterValue
from ..errors import InvalidArgumentError
from ..integers import as_int
from ..processor import Registers
from ..registers.values import FpuState, RegisterValue, SegmentRegister, TableRegister

LOW_HALF = (1 << 64) - 1
_OTHER_NAMES = {"x_fp": "fp", "x_lr": "lr", "fp_status": "fpsr", "fp_control": "fpcr"}  # section 4.1
_SENTINELS = (RegisterId.X64_MAX, RegisterId.ARM64_MAX)


def value_2021(registers: Registers, family: str, register_id: int) -> VirtualProcessorRegisterValue:
    """The 16 bytes of a register, all of them set.

    Raises InvalidArgumentError for an unknown register number or one of the other processor family;
    RegisterNotAvailableError for a register the state does not hold.
    """
    name = _names_2021(family).get(as_int(register_id, "a register id"))
    if name is None:
        raise InvalidArgumentError(
            f"{register_id} is not a REGISTER_ID of {'ARM64' if family == 'arm64' else 'x86 and x64'} processors"
        )
    out = VirtualProcessorRegisterValue()
    if name in ("fp_control_status", "xmm_control_status"):
        _set_fpu(out, _fpu(registers), name)
    else:
        _set(out, registers[name])
    return out


def value_2018(registers: Registers, x64: bool, register_id: int) -> int:
    """The 64 bits of a register, by the table of the caller's architecture.

    Raises InvalidArgumentError for an unknown register number, RegisterNotAvailableError.
    """
    getter = _getters_2018(x64).get(as_int(register_id, "a register id"))
    if getter is None:
        raise InvalidArgumentError(f"{register_id} is not a REGISTER_ID_X{'64' if x64 else '86'}")
    return getter(registers)


@cache
def _names_2021(family: str) -> dict[int, str]:
    """Number -> name in this package, of one family."""
    prefix = "ARM64_" if family == "arm64" else "X64_"
    names: dict[int, str] = {}
    for member in RegisterId:
        if member.name.startswith(prefix) and member not in _SENTINELS:
            short = member.name[len(prefix) :].lower().replace("fp_mmx", "fpmmx")
            names[int(member)] = _OTHER_NAMES.get(short, short) if family == "arm64" else short
    return names


def _set(out: VirtualProcessorRegisterValue, value: RegisterValue) -> None:
    if isinstance(value, SegmentRegister):
        segment = out.X64.Segment
        segment.Base, segment.Limit, segment.Selector, segment.Attributes = value
    elif isinstance(value, TableRegister):
        out.X64.Table.Base, out.X64.Table.Limit = value
    elif isinstance(value, int):
        out.Reg128.Low64, out.Reg128.High64 = value & LOW_HALF, value >> 64
    else:
        raise AssertionError("no register id has this shape")


def _set_fpu(out: VirtualProcessorRegisterValue, fpu: FpuState, name: str) -> None:
    if name == "fp_control_status":
        status = out.X64.FpControlStatus
        status.FpControl, status.FpStatus, status.FpTag = fpu.control, fpu.status, fpu.tag
        status.LastFpOp, status.LastFpRip = fpu.opcode, fpu.ip
    else:
        control = out.X64.XmmControlStatus
        control.LastFpRdp, control.XmmStatusControl, control.XmmStatusControlMask = fpu.dp, fpu.mxcsr, fpu.mxcsr_mask


def _fpu(registers: Registers) -> FpuState:
    fpu = registers["fpu"]
    assert isinstance(fpu, FpuState)
    return fpu


Getter = Callable[[Registers], int]


@cache
def _getters_2018(x64: bool) -> dict[int, Getter]:
    """Number -> what reads it, of one architecture. X86 has other names for the same registers, and no r8 to r15."""
    members = RegisterIdX64 if x64 else RegisterIdX86
    return {int(member): _getter_2018(member.name.lower()) for member in members if member.name != "COUNT"}


def _getter_2018(name: str) -> Getter:
    part, _, rest = name.partition("_")
    if name in ("low_fp_control_status", "high_fp_control_status", "low_xmm_control_status", "high_xmm_control_status"):
        return lambda registers: _status_half(_fpu(registers), name)
    if part in ("low", "high"):
        shift = 64 if part == "high" else 0
        return lambda registers: registers.integer(rest) >> shift & LOW_HALF
    if part == "base":
        return lambda registers: _of(registers, rest).base
    if part == "limit":
        return lambda registers: _of(registers, rest).limit
    if part == "seg" or name in ("tr", "ldtr"):
        return lambda registers: _segment(registers, rest or name).selector
    wide = {"eip": "rip", "eflags": "rflags"}.get(name, f"r{name[1:]}" if name.startswith("e") else name)
    wide = "efer" if name == "efer" else wide
    return lambda registers: registers.integer(wide)


def _of(registers: Registers, name: str) -> SegmentRegister | TableRegister:
    value = registers[name]
    assert isinstance(value, (SegmentRegister, TableRegister))
    return value


def _segment(registers: Registers, name: str) -> SegmentRegister:
    value = registers[name]
    assert isinstance(value, SegmentRegister)
    return value


def _status_half(fpu: FpuState, name: str) -> int:
    """The 64-bit halves of FXSAVE bytes 0 to 15 and 16 to 31."""
    if name == "low_fp_control_status":
        return fpu.control | fpu.status << 16 | fpu.tag << 32 | fpu.opcode << 48
    if name == "high_fp_control_status":
        return fpu.ip
    if name == "low_xmm_control_status":
        return fpu.dp
    return fpu.mxcsr | fpu.mxcsr_mask << 32
