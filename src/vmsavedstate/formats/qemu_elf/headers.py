"""The headers of an ELF core file: its machine, its memory segments and its notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import CorruptFileError, FormatError
from ...files.source import Source
from ...findings import FindingLog
from . import layout

MAX_HEADERS = 1 << 20
MAX_NOTES = 64 << 20  # bytes in all; 800 per processor and a VMCOREINFO in real dumps
MAX_NOTE_COUNT = 1 << 16


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


def read_headers(source: Source, log: FindingLog) -> ElfCore:
    """Raises FormatError for other ELF files, CorruptFileError for headers that lie outside of the file."""
    _, kind, order, _ = layout.IDENT.unpack(_read(source, 0, layout.IDENT_SIZE, "the identification"))
    if kind not in layout.CLASSES or order != layout.ELFDATA2LSB:
        raise FormatError(f"this ELF file is of class {kind} and byte order {order}, not of a machine that is known",
                          file=source.path, offset=4, remedy="name a dump that QEMU's dump-guest-memory wrote")  # fmt: skip
    form = layout.CLASSES[kind]
    header = form.header.unpack(_read(source, layout.IDENT_SIZE, form.header.size, "the header"))
    elf_type, machine, program_at, section_at, entry_size, count = (header[index] for index in (0, 1, 4, 5, 8, 9))
    if elf_type != layout.ET_CORE or machine not in layout.PRSTATUS:
        raise FormatError(
            f"this ELF file is of type {elf_type} for machine {machine}, not a core dump of x86 or AArch64",
            file=source.path, offset=layout.IDENT_SIZE, remedy="name a dump that QEMU's dump-guest-memory wrote",
        )  # fmt: skip
    if count == layout.PN_XNUM:
        count = int.from_bytes(_read(source, section_at + form.section_info_at, 4, "section header 0"), "little")
    if entry_size != form.program.size or count > MAX_HEADERS:
        raise CorruptFileError(f"the file claims {count:#x} program headers of {entry_size:#x} bytes",
                               file=source.path, offset=layout.IDENT_SIZE)  # fmt: skip
    loads: list[Load] = []
    notes: list[Note] = []
    note_bytes = 0
    table = _read(source, program_at, count * form.program.size, "the program headers")
    for values in form.program.iter_unpack(table):
        entry = dict(zip(form.program_fields, values, strict=True))
        if entry["type"] == layout.PT_LOAD:
            loads.append(Load(entry["paddr"], entry["offset"], entry["filesz"], entry["memsz"]))
        elif entry["type"] == layout.PT_NOTE:
            note_bytes += entry["filesz"]
            if note_bytes > MAX_NOTES:
                raise CorruptFileError(
                    f"the notes claim {note_bytes:#x} bytes", file=source.path, offset=entry["offset"]
                )
            notes.extend(_notes(source, entry["offset"], entry["filesz"], log, MAX_NOTE_COUNT - len(notes)))
    _refuse_process(source, notes)
    return ElfCore(machine, tuple(loads), tuple(notes))


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


def _refuse_process(source: Source, notes: list[Note]) -> None:
    for note in notes:
        if note.owner == "CORE" and note.type in layout.PROCESS_NOTES:
            raise FormatError(
                "this is the core dump of a process, not of a virtual machine", file=source.path, offset=note.offset,
                remedy="name a dump that QEMU's dump-guest-memory or `virsh dump --memory-only` wrote",
            )  # fmt: skip


def _read(source: Source, offset: int, size: int, what: str) -> bytes:
    if offset + size > source.size:
        raise CorruptFileError(
            f"{what} would end at {offset + size:#x}, the file ends at {source.size:#x}", file=source.path, offset=offset,
            remedy="the file is truncated or damaged; use an intact copy",
        )  # fmt: skip
    return source.read(offset, size)
