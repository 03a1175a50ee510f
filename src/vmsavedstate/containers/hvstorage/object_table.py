"""Object tables: where the key tables and file objects of a file lie (format specification, 2.5)."""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import gt, itemgetter

from ...errors import CorruptFileError
from ...files.source import Source
from ...findings import FindingLog
from . import layout
from .checksum import checksum, sealed
from .layout import ObjectType
from .numbered import Extents, scanners

MAX_ENTRIES = 1 << 24  # file objects of 16 TiB of guest memory
EXTENTS_FROM = 1 << 15  # file objects from which on they are kept in arrays
EMPTY, FILE_OBJECT = int(ObjectType.EMPTY), int(ObjectType.FILE_OBJECT)
# The checksum of an entry begins with its type and the checksum field as zeros: 256 values.
_PREFIX_CHECKSUMS = [zlib.crc32(bytes((kind, 0, 0, 0, 0))) for kind in range(256)]
EMPTY_ENTRY = sealed(bytes(layout.OBJECT_ENTRY.size), layout.OBJECT_ENTRY_CHECKSUM_AT)


@dataclass
class ObjectDirectory:
    """Everything the chained object tables name; offsets and (aligned) sizes in bytes, in the order of the tables."""

    key_tables: list[tuple[int, int]] = field(default_factory=list)
    file_objects: Mapping[int, int] = field(default_factory=dict)
    tables: dict[int, int] = field(default_factory=dict)
    entries: int = 0

    @property
    def last_file_object(self) -> int:
        """The highest offset of one, 0 without any."""
        objects = self.file_objects
        if isinstance(objects, Extents):
            return int(objects.offsets[-1])
        return max(objects, default=0)


class ObjectTableReader:
    """Follows the chain of object tables, checks every entry, and lists what they name."""

    def __init__(self, source: Source, alignment: int, log: FindingLog) -> None:
        self.source = source
        self.alignment = alignment
        self.log = log
        self.directory = ObjectDirectory()
        self._objects = (array("Q"), array("I"), array("Q"))  # offset and size of each file object, place of its entry
        _, self._scan = scanners()
        self._bytes = 0
        self._loop_reported = False

    def read(self) -> ObjectDirectory:
        """The directory. Raises CorruptFileError where the first table cannot be read at all."""
        at = layout.FIRST_OBJECT_TABLE
        if at + layout.OBJECT_TABLE_HEADER.size > self.source.size:
            raise CorruptFileError(
                "the file ends before its first object table",
                file=self.source.path,
                offset=self.source.size,
                remedy="it is truncated; use an intact copy",
            )
        _, count = self._header(at)
        wanted = layout.OBJECT_TABLE_HEADER.size + count * layout.OBJECT_ENTRY.size
        size = min(layout.align(wanted, self.alignment), self.source.size - at)
        pending: deque[tuple[int, int, int | None]] = deque([(at, size, None)])
        while pending:
            pending.extend(self._read_table(*pending.popleft()))
        self._take_objects()
        self._report_overlaps()
        return self.directory

    def _header(self, at: int) -> tuple[int, int]:
        signature, count = layout.OBJECT_TABLE_HEADER.unpack(self.source.read(at, layout.OBJECT_TABLE_HEADER.size))
        return signature, count

    def _read_table(self, at: int, size: int, named_at: int | None) -> list[tuple[int, int, int | None]]:
        """Take over the entries of one table; the tables it chains to."""
        damage, path = self.log.damage, self.source.path
        first = named_at is None
        where = at if first else named_at
        if at in self.directory.tables:
            if not self._loop_reported:
                damage("hvs.object-table.loop", path, where, "object tables form a loop, the chain ends here", found=at)
            self._loop_reported = True
            return []
        if at + layout.OBJECT_TABLE_HEADER.size > self.source.size:
            damage("hvs.object-table.outside", path, where, "chained object table lies outside of the file", found=at)
            return []
        signature, count = self._header(at)
        if signature != layout.OBJECT_TABLE_SIGNATURE:
            if first:
                raise CorruptFileError(
                    f"the first object table has the signature {signature:#010x} instead of "
                    f"{layout.OBJECT_TABLE_SIGNATURE:#010x}",
                    file=path,
                    offset=at,
                    remedy="the file is damaged; try another copy of it",
                )
            damage(
                "hvs.object-table.signature",
                path,
                at,
                "chained object table",
                found=signature,
                expected=f"{layout.OBJECT_TABLE_SIGNATURE:#010x}",
            )
            return []
        count = self._bounded_count(at, size, count)
        self.directory.tables[at] = size
        self._bytes += size
        if self._bytes > self.source.size or self.directory.entries + count > MAX_ENTRIES:
            damage(
                "hvs.object-table.total",
                path,
                at,
                "object tables add up to more than the file can hold, the chain ends here",
            )
            return []
        raw = self.source.read(at + layout.OBJECT_TABLE_HEADER.size, count * layout.OBJECT_ENTRY.size)
        return self._take_entries(raw, at + layout.OBJECT_TABLE_HEADER.size)

    def _bounded_count(self, at: int, size: int, count: int) -> int:
        """The number of entries to read; a count that does not fill its table is a finding (section 9, rule 3)."""
        end = min(at + min(size, layout.MAX_TABLE_BYTES), self.source.size)
        room = (end - at - layout.OBJECT_TABLE_HEADER.size) // layout.OBJECT_ENTRY.size
        capacity = (size - layout.OBJECT_TABLE_HEADER.size) // layout.OBJECT_ENTRY.size
        if at == layout.FIRST_OBJECT_TABLE:  # its size stands nowhere: it fills the pages that its entries need
            pages = layout.align(
                layout.OBJECT_TABLE_HEADER.size + count * layout.OBJECT_ENTRY.size, layout.MIN_ALIGNMENT
            )
            capacity = (pages - layout.OBJECT_TABLE_HEADER.size) // layout.OBJECT_ENTRY.size
        filled = count == capacity
        if count > room:
            self.log.damage(
                "hvs.object-table.count",
                self.source.path,
                at + 4,
                "object table reaches behind its end",
                found=count,
                expected=room,
            )
        elif not filled:
            self.log.damage(
                "hvs.object-table.fill",
                self.source.path,
                at + 4,
                "object table is not filled to its size",
                found=count,
                expected=capacity,
            )
        return max(0, min(count, room))

    def _take_entries(self, raw: bytes, base: int) -> list[tuple[int, int, int | None]]:
        step = layout.OBJECT_ENTRY.size
        chained: list[tuple[int, int, int | None]] = []
        bad_run: list[int] = []
        self.directory.entries += len(raw) // step
        crc32, prefixes = zlib.crc32, _PREFIX_CHECKSUMS
        sound_offsets, sound_sizes, others = self._scan(raw)
        offsets, sizes, places = self._objects
        offsets.frombytes(sound_offsets)
        sizes.frombytes(sound_sizes)
        places.extend(_other_places(base, len(raw) // step, others))
        for at in others:
            kind, stored, offset, size, _flags = layout.OBJECT_ENTRY.unpack_from(raw, at)
            if crc32(raw[at + 5 : at + step], prefixes[kind]) != stored:
                bad_run.append(base + at)
            if kind == EMPTY:
                continue
            if kind == FILE_OBJECT:
                offsets.append(offset)
                sizes.append(size)
                places.append(base + at)
            elif kind == ObjectType.KEY_TABLE:
                self.directory.key_tables.append((offset, size))
            elif kind == ObjectType.OBJECT_TABLE:
                chained.append((offset, size, base + at))
            elif kind != ObjectType.FREE:
                self.log.note(
                    "hvs.object.type", self.source.path, base + at, "object of unknown type, ignored", found=kind
                )
        self._report_bad(bad_run)
        return chained

    def _take_objects(self) -> None:
        """All file objects by their offset; of two at one offset the second counts."""
        offsets, sizes, places = self._objects
        if len(offsets) < EXTENTS_FROM:
            objects: dict[int, int] = {}
            for offset, size, place in sorted(zip(offsets, sizes, places, strict=True), key=itemgetter(2)):
                if offset in objects:
                    self._report_same(offset, place)
                objects[offset] = size
            self.directory.file_objects = objects
            return
        import numpy as np

        starts, entries = (np.frombuffer(self._objects[column], dtype=np.uint64) for column in (0, 2))
        rooms = np.frombuffer(self._objects[1], dtype=np.uint32)
        order = np.lexsort((entries, starts))
        ordered = starts[order]
        again = np.concatenate((ordered[1:] == ordered[:-1], [False]))  # all but the last of those at one offset
        for first in np.flatnonzero(again).tolist():
            self._report_same(int(ordered[first]), int(entries[order[first + 1]]))
        self.directory.file_objects = Extents(ordered[~again], rooms[order][~again])

    def _report_same(self, offset: int, place: int) -> None:
        message = "two entries name the same file object"
        self.log.damage("hvs.object.same", self.source.path, place, message, found=offset)

    def _report_bad(self, places: list[int]) -> None:
        """One finding per run of neighbouring entries, so that a wiped table does not give thousands."""
        start = 0
        for index, place in enumerate(places):
            last = index + 1 == len(places) or places[index + 1] != place + layout.OBJECT_ENTRY.size
            if last:
                number = index + 1 - start
                what = "object table entry" if number == 1 else f"{number} object table entries from here on"
                values = self._checksums(places[start]) if number == 1 else {}
                self.log.damage(
                    "hvs.object.checksum", self.source.path, places[start], f"{what}: wrong checksum", **values
                )
                start = index + 1

    def _checksums(self, at: int) -> dict[str, int]:
        raw = self.source.read(at, layout.OBJECT_ENTRY.size)
        stored = layout.OBJECT_ENTRY.unpack(raw)[1]
        return {"found": stored, "expected": checksum(raw, layout.OBJECT_ENTRY_CHECKSUM_AT)}

    def _report_overlaps(self) -> None:
        objects = self.directory.file_objects
        if isinstance(objects, Extents) and self._is_sound(objects):
            return
        spans = sorted(
            [*self.directory.file_objects.items(), *self.directory.key_tables, *self.directory.tables.items()]
        )
        ends = [start + size for start, size in spans]
        starts = [start for start, _ in spans]
        if any(map(gt, ends, starts[1:])):  # in C for the sound case
            self._list_overlaps(spans)
        if starts and starts[0] < layout.FIRST_OBJECT_TABLE:
            self.log.damage("hvs.object.over-header", self.source.path, starts[0], "object overlaps the file headers")

    def _is_sound(self, objects: Extents) -> bool:
        """Whether no two objects overlap, for very many of them."""
        import numpy as np

        others = [*self.directory.key_tables, *self.directory.tables.items()]
        starts = np.concatenate((objects.offsets, np.array([start for start, _ in others], dtype=np.uint64)))
        sizes = np.concatenate(
            (objects.sizes.astype(np.uint64), np.array([size for _, size in others], dtype=np.uint64))
        )
        order = np.argsort(starts)
        starts, ends = starts[order], (starts + sizes)[order]
        return bool(
            (ends[:-1] <= starts[1:]).all() and (ends >= starts).all() and starts[0] >= layout.FIRST_OBJECT_TABLE
        )

    def _list_overlaps(self, spans: list[tuple[int, int]]) -> None:
        """One finding per object that reaches over others: a single wrong size may cover a whole file."""
        place, end, covered = 0, 0, 0
        for start, size in spans:
            covered += start < end
            if start + size > end:
                self._report_overlap(place, end, covered)
                place, end, covered = start, start + size, 0
        self._report_overlap(place, end, covered)

    def _report_overlap(self, place: int, end: int, covered: int) -> None:
        if not covered:
            return
        others = "the object behind it" if covered == 1 else f"{covered} objects behind it"
        self.log.damage("hvs.object.overlap", self.source.path, place, f"object up to {end:#x} overlaps {others}")


def _other_places(base: int, count: int, others: list[int]) -> Iterator[int]:
    """The places of the entries of a table that are not among ``others``, which ascend."""
    step = layout.OBJECT_ENTRY.size
    at = 0
    for other in [*others, count * step]:
        yield from range(base + at, base + other, step)
        at = other + step
