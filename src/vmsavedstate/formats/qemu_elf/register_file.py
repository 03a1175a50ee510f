"""Registers that a person adds to a dump that lacks them: QEMU's ``info registers -a`` as text, or JSON.

JSON is what ``vmrs regs --json`` prints, or shorter ``{"0": {"efer": "0xd01"}}``: processor index, names and values of
this package, numbers as hex text or numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_type_hints

from ...errors import FormatError, InvalidArgumentError
from ...findings import FindingLog
from ...register_names import Arm64RegisterNames, X86RegisterNames
from ...snapshot import FpuState, GivenRegisters, RegisterValue, SegmentRegister, TableRegister
from ...source import PathArgument, Source
from .notes import Processor

MAX_SIZE = 64 << 20
EFER_LMA = 1 << 10
FORMS = "give the output of QEMU's `info registers -a`, or JSON as `vmrs regs --json` prints it"
MXCSR_MASK = 0xFFFF  # not in the text; that of every processor with SSE2
_PARTS: Mapping[Any, type[SegmentRegister] | type[TableRegister] | type[FpuState]] = {
    SegmentRegister: SegmentRegister,
    TableRegister: TableRegister,
    FpuState: FpuState,
}


def load_registers(given: PathArgument | GivenRegisters, family: str) -> GivenRegisters:
    """Registers by processor index. Raises SourceError, FormatError for what is neither form or names no register."""
    if isinstance(given, Mapping):
        if not all(isinstance(index, int) for index in given):  # JSON that the caller has loaded
            return _from_content(given, family, None)
        for registers in given.values():
            if not isinstance(registers, Mapping):
                raise InvalidArgumentError(f"{registers!r} is no mapping of register names to values")
            _check_given(registers, family)
        return given
    source = Source(given)
    try:
        if source.size > MAX_SIZE:
            raise FormatError(
                f"this file of {source.size:#x} bytes is too large for one of registers", file=source.path,
                remedy=FORMS,
            )  # fmt: skip
        raw = source.read(0, source.size)
    finally:
        source.close()
    text = raw.decode("utf-8", "replace")
    found = _from_json(text, family, source.path) if text.lstrip().startswith("{") else parse_monitor(text)
    types = _types(family)
    foreign = [name for registers in found.values() for name in registers if name not in types]
    if foreign:
        raise FormatError(
            f"these are registers of another kind of machine: {foreign[0]} is none of {family}", file=source.path
        )
    if not found:
        raise FormatError(
            "there are no registers in this file", file=source.path,
            remedy=FORMS,
        )  # fmt: skip
    return found


def _check_given(registers: Mapping[str, RegisterValue], family: str) -> None:
    """Raise InvalidArgumentError for names and types that are none of a register."""
    types = _types(family)
    for name, value in registers.items():
        kind = types.get(name)
        if kind is None or not isinstance(value, kind) or isinstance(value, bool):
            wanted = f"it takes {kind.__name__}" if kind else f"there is none of that name on {family}"
            raise InvalidArgumentError(f"{value!r} cannot be register {name!r}: {wanted}")
        if isinstance(value, int) and not 0 <= value < 1 << _bits(name):
            raise InvalidArgumentError(f"{value:#x} cannot be register {name!r}: it has {_bits(name)} bits")


def _types(family: str) -> dict[str, type]:
    """The type of each register by name."""
    return get_type_hints(Arm64RegisterNames if family == "arm64" else X86RegisterNames)


def add_registers(processor: Processor, given: Mapping[str, RegisterValue], file: str, log: FindingLog) -> Processor:
    """The processor with what it lacks; where both have a register the dump's stays, and a difference is noted."""
    for name, value in given.items():
        own = processor.registers.get(name)
        if own is not None and own != value:
            log.note(
                file, None, f"VP index {processor.vp_index}: the register {name} that was given differs, the dump's counts",
                found=_shown(value), expected=_shown(own),
            )  # fmt: skip
    efer = given.get("efer")
    if isinstance(efer, int) and processor.long_mode is not None and bool(efer & EFER_LMA) != processor.long_mode:
        log.note(
            file, None, f"VP index {processor.vp_index}: the EFER that was given contradicts the file's machine type, which "
            "counts: it is left out", found=hex(efer),
        )  # fmt: skip
        given = {name: value for name, value in given.items() if name != "efer"}
    return processor._replace(registers={**given, **processor.registers})


def _shown(value: RegisterValue) -> str:
    return hex(value) if isinstance(value, int) else repr(value)


def _from_json(text: str, family: str, file: str) -> dict[int, dict[str, RegisterValue]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_registers(str(error), file) from error
    return _from_content(content, family, file)


def _from_content(content: Any, family: str, file: str | None) -> dict[int, dict[str, RegisterValue]]:
    """Registers out of what JSON gave: by processor, or a list of processors as ``vmrs regs --json`` prints."""
    types = _types(family)
    try:
        if "processors" in content:
            content = {item["index"]: item["registers"] for item in content["processors"]}
        found: dict[int, dict[str, RegisterValue]] = {}
        for index, registers in content.items():
            found[int(index)] = {}
            for name, value in registers.items():
                plain = name.lower()
                if plain not in types:
                    raise _no_registers(f"there is no register {name!r} on {family}", file)
                try:
                    found[int(index)][plain] = _value(types[plain], value, _bits(plain))
                except KeyError as error:
                    raise ValueError(f"{name} lacks its part {error}") from error
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{name}: {error}") from error
        return found
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _no_registers(str(error), file) from error


def _no_registers(why: str, file: str | None) -> FormatError:
    return FormatError(
        f"these are no registers: {why}", file=file,
        remedy='give {"0": {"efer": "0xd01"}}, processor index and names, or what `vmrs regs --json` prints',
    )  # fmt: skip


def _bits(name: str) -> int:
    return 128 if re.fullmatch(r"(xmm|fpmmx|q)\d+", name) else 64


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
        raise ValueError(f"{value!r} is no number")
    number = int(value, 0) if isinstance(value, str) else value
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{value!r} is no value of a register")
    return number


_WORDS = re.compile(
    r"\b([ER](?:[A-D]X|[SD]I|[SB]P|IP)|R\d{1,2}|[ER]FL|CR[0234]|DR[0-367]|EFER|MXCSR)\s*=([0-9a-f]{1,16})\b"
)
_ARM_WORDS = re.compile(r"\b(X\d\d|PC|PSTATE)=([0-9a-f]{1,16})\b")
_SEGMENTS = re.compile(
    r"^(ES|CS|SS|DS|FS|GS|LDT|TR) *=([0-9a-f]{4}) ([0-9a-f]{1,16}) ([0-9a-f]{8}) ([0-9a-f]{8})", re.MULTILINE
)
_TABLES = re.compile(r"^(GDT|IDT)= *([0-9a-f]{1,16}) ([0-9a-f]{8})", re.MULTILINE)
_VECTORS = re.compile(r"\b[XYZ]MM(\d+)=((?:[0-9a-f]{16} ?)+)")  # with AVX in use whole YMM or ZMM registers
_STACK = re.compile(r"FPR(\d)=([0-9a-f]{16}) ([0-9a-f]{4})")
_ARM_NAMES = {"X29": "fp", "X30": "lr", "PSTATE": "cpsr"}


def parse_monitor(text: str) -> dict[int, dict[str, RegisterValue]]:
    """The registers in the text of QEMU's ``info registers``, with ``-a`` of all processors; index -> name -> value."""
    pieces = re.split(r"^CPU#(\d{1,5})\s*$", text.replace("\r", ""), flags=re.MULTILINE)
    sections = {0: pieces[0]} if len(pieces) == 1 else dict(zip(map(int, pieces[1::2]), pieces[2::2], strict=True))
    found = {index: parse_processor(section) for index, section in sections.items()}
    return {index: registers for index, registers in found.items() if registers}


def parse_processor(text: str) -> dict[str, RegisterValue]:
    """The registers of one processor."""
    values: dict[str, RegisterValue] = {}
    for name, number in _ARM_WORDS.findall(text):
        values[_ARM_NAMES.get(name, f"x{int(name[1:])}" if name[1:].isdigit() else name.lower())] = int(number, 16)
    for name, number in _WORDS.findall(text):
        plain = name.lower()
        if plain in ("rfl", "efl"):
            plain = "rflags"
        values["r" + plain[1:] if plain[0] == "e" and plain != "efer" else plain] = int(number, 16)
    for name, *words in _SEGMENTS.findall(text):
        selector, base, limit, flags = (int(word, 16) for word in words)
        # The monitor shows the second word of the descriptor: bits 16 to 19 of the limit stand between the attributes.
        values["ldtr" if name == "LDT" else name.lower()] = SegmentRegister(base, limit, selector, flags >> 8 & 0xF0FF)
    for name, base, limit in _TABLES.findall(text):
        values[f"{name.lower()}r"] = TableRegister(int(base, 16), int(limit, 16))
    for number, words in _VECTORS.findall(text):
        if int(number) < 16:
            values[f"xmm{int(number)}"] = int("".join(words.split()[-2:]), 16)
    fpu = _fpu(text)
    if fpu is not None:
        values["fpu"] = fpu
        values.update((f"fpmmx{number}", value) for number, value in enumerate(fpu.st))
    return values


def _fpu(text: str) -> FpuState | None:
    """The x87 state; the tag word of the text is the short one of FXSAVE already. Pointers and opcode are not shown."""
    words = [re.search(rf"\b{name}=([0-9a-f]{{1,8}})\b", text) for name in ("FCW", "FSW", "FTW", "MXCSR")]
    numbers = [int(word[1], 16) for word in words if word is not None]
    physical = {int(number): int(sign + mantissa, 16) for number, mantissa, sign in _STACK.findall(text)}
    if len(numbers) < 4 or len(physical) < 8:
        return None
    control, status, tag, mxcsr = numbers
    top = status >> 11 & 7
    stack = tuple(physical[(top + number) & 7] for number in range(8))
    return FpuState(control, status, tag, 0, 0, 0, mxcsr, MXCSR_MASK, stack)
