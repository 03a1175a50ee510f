"""Registers that a person adds to a dump that lacks them: QEMU's ``info registers -a`` as text, or JSON.

The text may be in the answer of QMP's ``human-monitor-command``, as ``virsh qemu-monitor-command`` prints it. Other
JSON is what ``vmrs regs --json`` prints, or shorter ``{"0": {"efer": "0xd01"}}``: processor index, names and values
of this package, numbers as hex text or numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import FormatError, InvalidArgumentError
from ..files.objects import FileArgument, open_evidence
from ..integers import as_int
from ..remedies import REGISTER_FORMS, REGISTER_JSON
from .qemu_text import monitor_text, parse_qemu_monitor
from .table import Register, registers_of
from .values import FpuState, GivenRegisters, RegisterValue, SegmentRegister, TableRegister

MAX_SIZE = 64 << 20
_PARTS: Mapping[Any, type[SegmentRegister] | type[TableRegister] | type[FpuState]] = {
    SegmentRegister: SegmentRegister,
    TableRegister: TableRegister,
    FpuState: FpuState,
}


def load_registers(given: FileArgument | GivenRegisters, family: str) -> GivenRegisters:
    """Registers by processor index. Raises SourceError, FormatError for what is neither form or names no register."""
    if isinstance(given, Mapping):
        if any(isinstance(index, str) for index in given):  # JSON that the caller has loaded
            return _from_content(given, family, None)
        return {as_int(index, "the index of a processor"): _checked(item, family) for index, item in given.items()}
    source = open_evidence(given)
    try:
        if source.size > MAX_SIZE:
            raise FormatError(
                f"this file of {source.size:#x} bytes is too large for one of registers", file=source.path,
                remedy=REGISTER_FORMS,
            )  # fmt: skip
        raw = source.read(0, source.size)
    finally:
        source.close()
    text = monitor_text(raw.decode("utf-8", "replace"))
    found = _from_json(text, family, source.path) if text.lstrip().startswith("{") else parse_qemu_monitor(text)
    known = registers_of(family)
    foreign = [name for registers in found.values() for name in registers if name not in known]
    if foreign:
        raise FormatError(
            f"these are registers of another kind of machine: {family} has no register {foreign[0]}", file=source.path
        )
    if not found:
        raise FormatError(
            "there are no registers in this file", file=source.path,
            remedy=REGISTER_FORMS,
        )  # fmt: skip
    return found


def _checked(registers: object, family: str) -> dict[str, RegisterValue]:
    """Registers with plain integers. Raises InvalidArgumentError for unknown names and values of the wrong type."""
    if not isinstance(registers, Mapping):
        raise InvalidArgumentError(f"{registers!r} is not a mapping of register names to values")
    known = registers_of(family)
    values: dict[str, RegisterValue] = {}
    for name, value in registers.items():
        register = known.get(name)
        if register is None:
            raise InvalidArgumentError(
                f"{value!r} cannot be the value of register {name!r}: {family} has no register of that name"
            )
        values[name] = _plain(register, value)
    return values


def _plain(register: Register, value: Any) -> RegisterValue:
    name = register.name
    if register.type is int:
        try:
            number = as_int(value, name)
        except InvalidArgumentError:
            raise InvalidArgumentError(f"{value!r} cannot be the value of register {name!r}: it takes int") from None
        if not 0 <= number < 1 << register.bits:
            raise InvalidArgumentError(
                f"{number:#x} cannot be the value of register {name!r}: it has {register.bits} bits"
            )
        return number
    if not isinstance(value, register.type):
        raise InvalidArgumentError(
            f"{value!r} cannot be the value of register {name!r}: it takes {register.type.__name__}"
        )
    fields: Any = value
    parts = [
        tuple(as_int(item, name) for item in part) if isinstance(part, tuple) else as_int(part, name) for part in fields
    ]
    plain: RegisterValue = register.type(*parts)
    return plain


def _from_json(text: str, family: str, file: str) -> dict[int, dict[str, RegisterValue]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_registers(str(error), file) from error
    return _from_content(content, family, file)


def _from_content(content: Any, family: str, file: str | None) -> dict[int, dict[str, RegisterValue]]:
    """Registers out of what JSON gave: by processor, or a list of processors as ``vmrs regs --json`` prints."""
    known = registers_of(family)
    try:
        if "processors" in content:
            content = {item["index"]: item["registers"] for item in content["processors"]}
        found: dict[int, dict[str, RegisterValue]] = {}
        for index, registers in content.items():
            found[int(index)] = {}
            for name, value in registers.items():
                plain = name.lower()
                if plain not in known:
                    raise _no_registers(f"there is no register {name!r} on {family}", file)
                try:
                    found[int(index)][plain] = _value(known[plain].type, value, known[plain].bits)
                except KeyError as error:
                    raise ValueError(f"{name} lacks its part {error}") from error
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{name}: {error}") from error
        return found
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _no_registers(str(error), file) from error


def _no_registers(why: str, file: str | None) -> FormatError:
    return FormatError(
        f"no registers can be read from this: {why}", file=file,
        remedy=REGISTER_JSON,
    )  # fmt: skip


def _value(kind: Any, value: Any, bits: int) -> RegisterValue:
    parts = _PARTS.get(kind)
    if parts is None:
        return _number(value, bits)
    fields: dict[str, Any] = {
        name: tuple(map(_number, value[name])) if isinstance(value[name], list) else _number(value[name])
        for name in parts._fields
    }
    stack = fields.pop("st", ())
    single = all(isinstance(field, int) for field in fields.values())
    if not single or not isinstance(stack, tuple) or (kind is FpuState and len(stack) != 8):
        raise ValueError("its parts are single numbers, and st eight of them")
    return FpuState(**fields, st=stack) if kind is FpuState else parts(**fields)


def _number(value: Any, bits: int = 128) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is not a number")
    number = int(value, 0) if isinstance(value, str) else value
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{value!r} is not the value of a register")
    return number
