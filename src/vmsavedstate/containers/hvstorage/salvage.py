"""A damaged HyperVStorage file as far as it goes: key tables are looked for where nothing names them any more.

A file that was cut short or overwritten in part has lost the tables that say where others are. Key tables begin with a
checksummed header at a multiple of 4 KiB, and a replay log keeps copies of the last ones that were written, so they can be
found by reading the whole file. A copy of such a file may also be in the memory of the guest: what lies inside of a value
that other tables name does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import CorruptFileError, FormatError
from ...files.ranges import Coverage
from ...files.source import Source
from ...findings import FindingLog
from ..keytree import KeyTree
from . import layout
from .checksum import checksum
from .header import Header, read_header
from .key_table import KeyRecords, KeyTable, find_table, scan_table
from .object_table import ObjectDirectory, ObjectTableReader
from .replay import pending_patches
from .sequence import is_newer
from .store import Store

STEP = 1 << 20  # bytes read at a time
HEAD = 0x3000  # both header copies and the begin of the first object table
SEARCHED = 4 << 30  # bytes in which a first key table is looked for, to tell what kind of file it is
LARGE = layout.EXTERNAL_FROM  # values of this size are not in a key table, so a table inside of one is no table
ROUNDS = 3


def has_lost_header(source: Source) -> bool:
    """Whether this is a HyperVStorage file without its header copies: their place is zeros or the first object table
    follows.

    Zeros alone say nothing, so a key table is looked for in the first 4 GiB.
    """
    if has_first_table(source):
        return True
    return (
        source.size >= HEAD and not any(source.read(0, HEAD)) and next(_key_tables(source, SEARCHED), None) is not None
    )


def has_first_table(source: Source) -> bool:
    """Whether the first object table begins where it should."""
    at, size = layout.FIRST_OBJECT_TABLE, layout.OBJECT_TABLE_HEADER.size
    if at + size > source.size:
        return False
    signature, _ = layout.OBJECT_TABLE_HEADER.unpack(source.read(at, size))
    return bool(signature == layout.OBJECT_TABLE_SIGNATURE)


class Salvage(NamedTuple):
    """What is left of the objects of a file: how many the object tables name, and how many are wholly in the file.

    ``scanned`` is the number of key tables that were found by reading the file, not by an object table.
    """

    objects: int
    present: int
    scanned: int


class SalvagedStore(Store):
    """The keys that are left of a damaged file. Attributes as :class:`.Store`, and ``salvage``."""

    salvage: Salvage

    def __init__(self, source: Source, log: FindingLog) -> None:
        KeyTree.__init__(self, (source,), log)
        self.source = source
        self.header: Header = self._header_or_none()
        self.objects: ObjectDirectory = self._objects_or_none()
        found = list(_key_tables(source))
        records = KeyRecords()
        chosen: list[KeyTable] = []
        for _ in range(ROUNDS):
            records = KeyRecords()
            chosen = self._chosen(found)
            for table in chosen:
                scan_table(table, source, log, records)
            inside = _inside_values(found, records)
            if not inside:
                break
            found = [table for table in found if table.offset not in inside]
        for keys in records.children.values():
            self._check_pointers(keys)
        self._grow(records)
        self.salvage = self._account(chosen)

    def _header_or_none(self) -> Header:
        try:
            header = read_header(self.source, self.log)
        except (CorruptFileError, FormatError) as error:
            self.log.damage("hvs.header.lost", self.source.path, 0, f"the header cannot be used: {error.message}")
            return Header(0, 0, layout.FORMAT_VERSION, 0, 0, layout.MIN_ALIGNMENT, 0, 0, 0)
        self.source.overlay(pending_patches(self.source, header, self.log))
        return header

    def _objects_or_none(self) -> ObjectDirectory:
        try:
            return ObjectTableReader(self.source, layout.MIN_ALIGNMENT, self.log).read()
        except CorruptFileError as error:
            self.log.damage(
                "hvs.object-table.lost", self.source.path, error.offset, f"no object can be listed: {error.message}"
            )
            self._objects_known = False
            return ObjectDirectory()

    def _chosen(self, found: list[KeyTable]) -> list[KeyTable]:
        """Of each index the table that an object table names and whose checksum is right, else the newest one found."""
        sound = {table.offset: table for table in found}
        tables: dict[int, KeyTable] = {}
        named: set[int] = set()
        for offset, size in self.objects.key_tables[: layout.MAX_KEY_TABLES]:
            if offset in sound:
                table = find_table(self.source, offset, size, self.log)
                if table is not None and (
                    table.index not in tables or is_newer(table.sequence, tables[table.index].sequence)
                ):
                    tables[table.index] = table
                    named.add(table.index)
        for table in found:
            other = tables.get(table.index)
            if other is None or (table.index not in named and is_newer(table.sequence, other.sequence)):
                tables[table.index] = table
        return list(tables.values())

    def _account(self, chosen: list[KeyTable]) -> Salvage:
        listed = {offset for offset, _ in self.objects.key_tables}
        spans = [*self.objects.key_tables, *self.objects.file_objects.items(), *self.objects.tables.items()]
        present = sum(offset + size <= self.source.size for offset, size in spans)
        return Salvage(len(spans), present, sum(table.offset not in listed for table in chosen))


def _key_tables(source: Source, limit: int | None = None) -> Iterator[KeyTable]:
    """Every page of the file that begins with the header of a key table, with the right checksum."""
    signature = layout.KEY_TABLE_SIGNATURE.to_bytes(2, "little")
    header, page = layout.KEY_TABLE_HEADER, layout.MIN_ALIGNMENT
    end = source.size if limit is None else min(limit, source.size)
    for start in range(0, end, STEP):
        data = source.read(start, min(STEP, source.size - start))
        for at in range(0, len(data) - header.size + 1, page):
            if data[at : at + 2] != signature:
                continue
            raw = data[at : at + header.size]
            _, index, sequence, stored = header.unpack(raw)
            if index and checksum(raw, layout.KEY_TABLE_CHECKSUM_AT) == stored:
                size = min(layout.KEY_TABLE_SIZE, source.size - start - at)
                yield KeyTable(start + at, size, index, sequence)


def _inside_values(found: list[KeyTable], records: KeyRecords) -> set[int]:
    """The places of tables that lie inside of a large value of a key."""
    values = Coverage()
    for keys in records.children.values():
        for key in keys:
            if key.external and key.size >= LARGE:
                values.add(key.value_offset, key.value_offset + key.size)
    return {table.offset for table in found if values.covers(table.offset, table.offset + 1)}
