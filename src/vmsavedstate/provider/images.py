"""Executable images in guest memory: ScanMemoryForDosImages (API specification, 6.4; PE format of Microsoft)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ..errors import GuestMemoryError, InvalidArgumentError, PageNotMapped
from ..integers import as_int
from ..memory import MAX_ADDRESS, GuestPhysicalMemory
from ..paging import AddressSpace
from .instance import HANDLES

if TYPE_CHECKING:
    from ..paging import LostTable

PAGE = 4096
DOS_SIGNATURE, PE_SIGNATURE = b"MZ", b"PE\0\0"
PE_OFFSET_AT = 0x3C
# After the signature: COFF header (machine, sections, time stamp, two of the symbol table, size of what follows), then
# the optional header, whose magic says where its data directories begin.
COFF = struct.Struct("<HHIIIHH")
DIRECTORIES_AT = {0x10B: 96, 0x20B: 112}
SIZE_OF_IMAGE_AT = 56
DEBUG_DIRECTORY, DIRECTORY = 6, struct.Struct("<II")
DEBUG_ENTRY = struct.Struct("<IIHHIIII")
CODEVIEW = 2
NAME_AT = {b"RSDS": 24, b"NB10": 16}  # CodeView records: where the name of the PDB begins
MAX_DEBUG_ENTRIES, MAX_NAME = 32, 1024


class DosImage(NamedTuple):
    """An executable image, as DOS_IMAGE_INFO: ``base`` is its virtual address, ``size`` its bytes in memory.

    ``pdb_name`` is the path of its symbol file, empty where it names none; ``timestamp`` is that of its COFF header.
    """

    pdb_name: str
    base: int
    size: int
    timestamp: int


def ScanMemoryForDosImages(
    handle: int,
    vp_id: int,
    start: int,
    end: int,
    found: Callable[[DosImage], object],
    standalone_addresses: Iterable[int] = (),
) -> None:
    """Look for executable images in virtual memory from ``start`` **down** to ``end``, at the beginning of every page.

    ``found`` is called for each on the caller's thread, first for those at ``standalone_addresses``; what it answers
    ends the scan if it is true. What is not mapped or cannot be read is passed over.

    Raises InvalidArgumentError unless ``start`` is above ``end``, RegisterNotAvailableError, PageTablesError.
    """
    with HANDLES.get(handle) as instance:
        start, end = as_int(start, "start"), as_int(end, "end")
        if not 0 <= end < start < MAX_ADDRESS:
            raise InvalidArgumentError(f"the scan goes downward, and {start:#x} is not above {end:#x}")
        space = instance.space(vp_id)
        for address in chain(standalone_addresses, _downward(space, instance.memory, start, end)):
            image = image_at(space, address)
            if image is not None and found(image):
                return


def _downward(space: AddressSpace, memory: GuestPhysicalMemory, start: int, end: int) -> Iterator[int]:
    """The beginning of every page from ``start`` down to ``end`` that is mapped to saved memory.

    Tables may map a thousand times as much as there is: what is mapped to holes is passed over whole.
    """

    def passed_over(_table: LostTable) -> None:
        """What a lost table would map is not scanned."""

    runs = list(space.mappings(end, min(start + 1, MAX_ADDRESS), lost=passed_over))
    for run in reversed(runs):
        for part in reversed(list(memory.runs(run.gpa, run.size))):
            if part.position is not None:
                low = run.gva + part.gpa - run.gpa
                first = -(-low // PAGE) * PAGE
                yield from range((low + part.size - 1) // PAGE * PAGE, first - 1, -PAGE)


def image_at(space: AddressSpace, base: int) -> DosImage | None:
    """The image whose headers stand at ``base``, None where there are none."""
    try:
        if space.read(base, 2) != DOS_SIGNATURE:
            return None
        offset = int.from_bytes(space.read(base + PE_OFFSET_AT, 4), "little")
        if not 0 < offset < PAGE or space.read(base + offset, 4) != PE_SIGNATURE:
            return None
        header = base + offset + 4
        _, _, timestamp, _, _, optional_size, _ = COFF.unpack(space.read(header, COFF.size))
        optional = space.read(header + COFF.size, optional_size)
    except (PageNotMapped, GuestMemoryError, InvalidArgumentError):
        return None
    directories = DIRECTORIES_AT.get(int.from_bytes(optional[:2], "little"))
    if directories is None or len(optional) < SIZE_OF_IMAGE_AT + 4:
        return None
    size = int.from_bytes(optional[SIZE_OF_IMAGE_AT : SIZE_OF_IMAGE_AT + 4], "little")
    count = int.from_bytes(optional[directories - 4 : directories], "little")  # NumberOfRvaAndSizes
    debug = optional[directories + DEBUG_DIRECTORY * DIRECTORY.size :] if count > DEBUG_DIRECTORY else b""
    name = _pdb_name(space, base, debug)
    return DosImage(name, base, size, timestamp)


def _pdb_name(space: AddressSpace, base: int, directory: bytes) -> str:
    """The name in the CodeView record of the debug directory; empty where there is none or it is paged out."""
    if len(directory) < DIRECTORY.size:
        return ""
    place, size = DIRECTORY.unpack_from(directory)
    for number in range(min(size // DEBUG_ENTRY.size, MAX_DEBUG_ENTRIES)):
        try:
            entry = DEBUG_ENTRY.unpack(space.read(base + place + number * DEBUG_ENTRY.size, DEBUG_ENTRY.size))
            kind, length, record = entry[4:7]
            if kind != CODEVIEW or not record:
                continue
            data = space.read(base + record, min(length, MAX_NAME))
        except (PageNotMapped, GuestMemoryError, InvalidArgumentError):
            return ""
        name_at = NAME_AT.get(data[:4])
        if name_at is not None:
            return data[name_at:].split(b"\0", 1)[0].decode("utf-8", "replace")
    return ""
