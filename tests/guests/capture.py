"""A frozen machine: its memory map and memory, its registers, and what it answers to virtual addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from .machine import Machine

PAGE = 4096


class Part(NamedTuple):
    """A piece of the memory map: RAM, ROM or video memory, and the file and offset where its bytes are."""

    gpa: int
    size: int
    file: Path
    offset: int

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the part."""
        with open(self.file, "rb") as stream:
            return os.pread(stream.fileno(), size, self.offset + offset)

    def zero_runs(self) -> list[tuple[int, int]]:
        """(offset, size) of the stretches that the file system keeps as holes: never touched, so zero."""
        runs: list[tuple[int, int]] = []
        at, end = self.offset, self.offset + self.size
        with open(self.file, "rb") as stream:
            while at < end:
                try:
                    data = min(os.lseek(stream.fileno(), at, os.SEEK_DATA), end)
                except OSError:  # nothing but holes up to the end of the file
                    data = end
                if data > at:
                    runs.append((at - self.offset, data - at))
                at = data if data == end else min(os.lseek(stream.fileno(), data, os.SEEK_HOLE), end)
        return runs


class TlbLine(NamedTuple):
    """A line of ``info tlb``: a page of the tables, with its flags."""

    gva: int
    gpa: int
    flags: str


class Frozen:
    """A stopped machine."""

    def __init__(self, machine: Machine, processors: int, work: Path) -> None:
        self.machine = machine
        self.processors = processors
        self._work = work

    @cached_property
    def memory(self) -> list[Part]:
        """The parts of the memory map that hold bytes, of whole pages, ascending."""
        views = re.split(r"(?m)^FlatView #\d+", self.machine.monitor("info mtree -f"))
        view = next(text for text in views if re.search(r'AS "memory"', text))
        line = r"^ +([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, (\w+)\): (\S+)(?: @([0-9a-f]+))?"
        parts = []
        for first, last, kind, name, offset in re.findall(line, view, re.MULTILINE):
            gpa = int(first, 16)
            size = int(last, 16) - gpa + 1
            if kind in ("ram", "rom", "romd") and gpa % PAGE == 0 and size % PAGE == 0:
                parts.append(self._part(gpa, size, name, int(offset or "0", 16)))
        return parts

    def _part(self, gpa: int, size: int, name: str, offset: int) -> Part:
        if name == "guestram":
            return Part(gpa, size, self.machine.ram, offset)
        file = self._work / f"part-{gpa:x}"
        self.machine.ask("pmemsave", val=gpa, size=size, filename=str(file))
        return Part(gpa, size, file, 0)

    @cached_property
    def gdb(self) -> list[dict[str, int]]:
        """Registers of each processor as the gdb stub tells them."""
        return [self.machine.gdb.read(cpu) for cpu in range(self.processors)]

    @cached_property
    def monitor(self) -> list[str]:
        """The monitor's register text of each processor."""
        return [self.machine.monitor("info registers", cpu) for cpu in range(self.processors)]

    def answers(self, cpu: int, addresses: Sequence[int]) -> Iterator[tuple[int, int | None]]:
        """(virtual address, QEMU's physical address or None)."""
        for gva in addresses:
            yield gva, self.machine.translate(gva, cpu)

    def tlb(self, cpu: int) -> list[TlbLine]:
        """Every page that QEMU finds in the tables of an x86 processor; empty without paging."""
        found = re.findall(
            r"^([0-9a-f]{8,}): ([0-9a-f]{8,}) (\S+)", self.machine.monitor("info tlb", cpu), re.MULTILINE
        )
        return [TlbLine(int(gva, 16), int(gpa, 16), flags) for gva, gpa, flags in found]

    def dump(self) -> Path:
        """The dump that QEMU itself writes."""
        path = self._work / "dump.elf"
        self.machine.ask("dump-guest-memory", paging=False, protocol=f"file:{path}")
        return path
