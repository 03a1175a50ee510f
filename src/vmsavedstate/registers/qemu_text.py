"""Registers out of the text of QEMU's monitor command ``info registers``, for x86 and ARM64."""

from __future__ import annotations

import json
import re

from .values import FpuState, RegisterValue, SegmentRegister, TableRegister

MXCSR_MASK = 0xFFFF  # not in the text; that of every processor with SSE2

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


def monitor_text(text: str) -> str:
    """The monitor's own text, where ``text`` is what QMP answers to ``human-monitor-command``; else ``text`` as it is.

    QMP sends an object per message: a whole session may be given, of which every ``return`` that is text counts. Text
    printed in more lines than one is read as well.
    """
    messages = _json_values(text)
    answers = [
        item["return"] for item in messages if isinstance(item, dict) and isinstance(item.get("return"), str)
    ]  # fmt: skip
    return "\n".join(answers) if answers else text


def _json_values(text: str) -> list[object]:
    """The JSON values that make up ``text``, one after another; none where it is something else."""
    decoder = json.JSONDecoder()
    values: list[object] = []
    at = len(text) - len(text.lstrip())
    while at < len(text):
        if text[at] != "{":
            return []
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        values.append(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return values


def parse_qemu_monitor(text: str) -> dict[int, dict[str, RegisterValue]]:
    """The registers in the text of QEMU's ``info registers``, with ``-a`` of all processors; index -> name -> value."""
    pieces = re.split(r"^CPU#(\d{1,5})\s*$", text.replace("\r", ""), flags=re.MULTILINE)
    sections = {0: pieces[0]} if len(pieces) == 1 else dict(zip(map(int, pieces[1::2]), pieces[2::2], strict=True))
    found = {index: parse_qemu_text(section) for index, section in sections.items()}
    return {index: registers for index, registers in found.items() if registers}


def parse_qemu_text(text: str) -> dict[str, RegisterValue]:
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
