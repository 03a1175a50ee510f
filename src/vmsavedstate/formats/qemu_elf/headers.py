"""The headers of an ELF core file: its machine, its memory segments, its notes, and what none of them covers."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from ...errors import CorruptFileError, FormatError, LimitError
from ...files.ranges import Coverage
from ...files.source import Source
from ...findings import FindingLog
from ...remedies import QEMU_DUMP
from ...snapshot import PAGE_SIZE
from . import layout

MAX_HEADERS = 1 << 20
MAX_SECTIONS = 1 << 16
MAX_NOTES = 64 << 20  # bytes in all; 800 per processor and a VMCOREINFO in real dumps
MAX_NOTE_COUNT = 1 << 16
MAX_NAMES = 1 << 16  # bytes of section names that are looked at


class Load(NamedTuple):
    """A memory segment: guest physical address, file offset, and its bytes in the file and in memory."""

    gpa: int
    offset: int
    file_size: int
    memory_size: int


class Note(NamedTuple):
    """A note: owner, type, its content, and where it stands in the file."""

    owner: str
    type: int
    data: bytes
    offset: int


class ElfCore(NamedTuple):
    """What the headers say; ``machine`` is an EM_ number."""

    machine: int
    loads: tuple[Load, ...]
    notes: tuple[Note, ...]


class _Table(NamedTuple):
    """A table of headers as it is in the file: a million entries are large enough without objects of their own."""

    raw: bytes
    entry: struct.Struct
    fields: tuple[str, ...]

    def columns(self, *names: str) -> Iterator[tuple[int, ...]]:
        """Some fields of each entry."""
        return map(itemgetter(*map(self.fields.index, names)), self.entry.iter_unpack(self.raw))


class _Headers(NamedTuple):
    """The tables of headers."""

    machine: int
    programs: _Table
    sections: _Table
    section_names: bytes
    covered: Coverage  # file offsets of the tables themselves


def read_headers(source: Source, log: FindingLog) -> ElfCore:
    """Raises FormatError for other ELF files, LimitError, CorruptFileError for headers that lie outside of the file."""
    headers = _read_tables(source)
    if b".xen_prstatus\0" in headers.section_names or b".xen_pages\0" in headers.section_names:
        raise FormatError(
            "this is a core of Xen (xl dump-core), which keeps memory in sections", file=source.path,
            remedy="this form is not read; save the guest's memory by another way, from inside of it or as an ELF dump",
        )  # fmt: skip
    loads: list[Load] = []
    notes: list[Note] = []
    note_bytes = 0
    for kind, gpa, offset, size, memory_size in headers.programs.columns("type", "paddr", "offset", "filesz", "memsz"):
        if kind == layout.PT_LOAD:
            loads.append(Load(gpa, offset, size, memory_size))
        elif kind == layout.PT_NOTE:
            note_bytes += size
            if note_bytes > MAX_NOTES:
                raise _too_much(source, offset, size, f"the notes claim {note_bytes:#x} bytes", MAX_NOTES)
            notes.extend(_notes(source, offset, size, log, MAX_NOTE_COUNT - len(notes)))
    _refuse_others(source, notes)
    _report_uncovered(source, headers, log)
    return ElfCore(headers.machine, tuple(loads), tuple(notes))


def _read_tables(source: Source) -> _Headers:
    _, kind, order, _ = layout.IDENT.unpack(_read(source, 0, layout.IDENT_SIZE, "the identification"))
    if kind not in layout.CLASSES or order != layout.ELFDATA2LSB:
        raise FormatError(f"this ELF file is of class {kind} and byte order {order}, not of a machine that is known",
                          file=source.path, offset=4, remedy=QEMU_DUMP)  # fmt: skip
    form = layout.CLASSES[kind]
    header = form.header.unpack(_read(source, layout.IDENT_SIZE, form.header.size, "the header"))
    elf_type, machine, _, _, program_at, section_at, _, _, entry_size, count, section_size, sections, names = header
    if elf_type != layout.ET_CORE or machine not in layout.PRSTATUS:
        raise FormatError(
            f"this ELF file is of type {elf_type} for machine {machine}, not a core dump of x86 or AArch64",
            file=source.path, offset=layout.IDENT_SIZE, remedy=QEMU_DUMP,
        )  # fmt: skip
    covered = Coverage()
    covered.add(0, layout.IDENT_SIZE + form.header.size)
    first: Mapping[str, int] = {}
    if section_at and section_size == form.section.size and (sections or count == layout.PN_XNUM):
        first = dict(zip(form.section_fields, form.section.unpack(
            _read(source, section_at, form.section.size, "section header 0")), strict=True))  # fmt: skip
    if count == layout.PN_XNUM:
        if not first:
            raise CorruptFileError(
                "the number of program headers is in section header 0, which the file lacks",
                file=source.path, offset=layout.IDENT_SIZE, remedy="the file is damaged; use an intact copy",
            )  # fmt: skip
        count = first["info"]
    if count and entry_size != form.program.size:
        raise CorruptFileError(
            f"the file claims {count:#x} program headers of {entry_size:#x} bytes", file=source.path,
            offset=layout.IDENT_SIZE, remedy="the file is damaged; use an intact copy",
        )  # fmt: skip
    section_count = (sections or first["size"]) if first else 0
    programs = _table(source, program_at, count, form.program, MAX_HEADERS, "program headers")
    found = _table(source, section_at, section_count, form.section, MAX_SECTIONS, "section headers")
    for table, offset in ((programs, program_at), (found, section_at)):
        covered.add(offset, offset + len(table))
    index = first["link"] if first and names == layout.SHN_XINDEX else names
    table_of_sections = _Table(found, form.section, form.section_fields)
    return _Headers(
        machine,
        _Table(programs, form.program, form.program_fields),
        table_of_sections,
        _section_names(source, table_of_sections, index),
        covered,
    )


def _section_names(source: Source, sections: _Table, index: int) -> bytes:
    for number, (offset, size) in enumerate(sections.columns("offset", "size")):
        if number == index and offset < source.size:
            return source.read(offset, min(size, MAX_NAMES, source.size - offset))
    return b""


def _table(source: Source, offset: int, count: int, entry: struct.Struct, limit: int, what: str) -> bytes:
    """The bytes of a table. Raises CorruptFileError where it leaves the file, LimitError for more than ``limit`` entries."""
    size = count * entry.size
    if count > limit:
        raise _too_much(source, offset, size, f"the file has {count:,} {what}", limit)
    return _read(source, offset, size, f"the {what}") if count else b""


def _too_much(source: Source, offset: int, size: int, message: str, limit: int) -> FormatError | CorruptFileError:
    """More than this reader takes: a limit of its own where the file holds it, else a size that is wrong."""
    if offset + size > source.size:
        return CorruptFileError(
            f"{message}, which would end behind the end of the file at {source.size:#x}", file=source.path, offset=offset,
            remedy="the file is truncated or damaged; use an intact copy",
        )  # fmt: skip
    return LimitError(
        f"{message}, more than the {limit:,} that are read", file=source.path, offset=offset,
        remedy="this is a limit of this reader, the file may be sound; docs/limits.md lists the limits",
    )  # fmt: skip


def _notes(source: Source, offset: int, size: int, log: FindingLog, allowed: int) -> Iterator[Note]:
    """The notes of one segment; one that leaves it ends it, with damage, and so does one more than ``allowed``."""
    data = _read(source, offset, size, "the notes")
    at = 0
    while at + layout.NOTE.size <= size:
        name_size, content_size, kind = layout.NOTE.unpack_from(data, at)
        name_at = at + layout.NOTE.size
        content_at = name_at + -(-name_size // 4) * 4
        if content_at + content_size > size:
            log.damage("elf.note.size", source.path, offset + at, "a note leaves its segment, the rest of the notes is lost",
                       found=f"{content_size:#x} bytes")  # fmt: skip
            return
        if allowed <= 0:
            log.damage("elf.note.count", source.path, offset + at, "there are too many notes, the rest is not read")
            return
        allowed -= 1
        owner = data[name_at : name_at + name_size].rstrip(b"\0").decode("latin-1")
        yield Note(owner, kind, data[content_at : content_at + content_size], offset + at)
        at = content_at + -(-content_size // 4) * 4


def _refuse_others(source: Source, notes: list[Note]) -> None:
    """Raise FormatError for ELF cores that are not of a machine."""
    for note in notes:
        if note.owner != "CORE" or note.type not in layout.PROCESS_NOTES:
            continue
        name = note.data[layout.PRPSINFO_NAME_AT : layout.PRPSINFO_NAME_AT + 16].rstrip(b"\0")
        if note.type == layout.NT_PRPSINFO and name == layout.KCORE_NAME:
            raise FormatError(
                "this is /proc/kcore or a copy of it: the memory of a running Linux kernel, which changes while it is read",
                file=source.path, offset=note.offset,
                remedy="debuggers such as drgn and gdb open it where it is; of a virtual machine take a dump or save it "
                "from its host",
            )  # fmt: skip
        raise FormatError(
            "this is the core dump of a process, not of a virtual machine", file=source.path, offset=note.offset,
            remedy=QEMU_DUMP,
        )  # fmt: skip


def _report_uncovered(source: Source, headers: _Headers, log: FindingLog) -> None:
    """Say what of the file no header covers: QEMU's ``dump-guest-memory -p`` writes memory without headers for all of it.

    Less than a page, or than what the next segment is aligned to, is padding.
    """
    covered = headers.covered
    for offset, size in headers.programs.columns("offset", "filesz"):
        covered.add(offset, offset + size)
    for kind, offset, size in headers.sections.columns("type", "offset", "size"):
        if kind not in (0, layout.SHT_NOBITS):
            covered.add(offset, offset + size)
    spans = [*covered.spans(), (source.size, source.size)]
    gaps = {
        start: (before, min(start, source.size) - before)
        for (_, before), (start, _) in pairwise([(0, 0), *spans])
        if min(start, source.size) - before >= PAGE_SIZE
    }
    for offset, alignment in headers.programs.columns("offset", "align") if gaps else ():
        if offset in gaps and gaps[offset][1] < alignment:
            del gaps[offset]
    total, first = sum(size for _, size in gaps.values()), min((at for at, _ in gaps.values()), default=0)
    if total:
        log.note(
            "elf.file.uncovered", source.path, first,
            "the file holds bytes that no header covers, so their guest address is unknown and they cannot be read; "
            "if dump-guest-memory wrote it with -p (paging), dump again without it",
            found=f"{total:#x} bytes, the first at {first:#x}",
        )  # fmt: skip


def _read(source: Source, offset: int, size: int, what: str) -> bytes:
    if offset + size > source.size:
        raise CorruptFileError(
            f"{what} would end at {offset + size:#x}, the file ends at {source.size:#x}", file=source.path, offset=offset,
            remedy="the file is truncated or damaged; use an intact copy",
        )  # fmt: skip
    return source.read(offset, size)
