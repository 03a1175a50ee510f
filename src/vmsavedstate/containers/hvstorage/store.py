"""A HyperVStorage file as a tree of keys: ``.vmrs``, ``.vmcx`` (format specification, section 2)."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter, itemgetter

from ...errors import FormatError
from ...files.objects import FileArgument, open_evidence
from ...files.ranges import Coverage
from ...files.source import Source
from ...findings import FindingLog
from ..collector import paused_collector
from ..keytree import KeyEntry, KeyTree, set_children
from . import layout
from .header import Header, has_signature, read_header
from .key_table import KeyRecords, KeyTable, find_table, scan_numbered, scan_table
from .numbered import scanners
from .object_table import ObjectDirectory, ObjectTableReader
from .replay import pending_patches
from .sequence import is_newer

by_sequence = attrgetter("sequence")  # order of siblings; equal ones stay as they are stored
MAX_DEPTH = 256  # levels of nodes; 41 are known to be legal
NUMBERED_FROM = 1 << 20  # bytes of key tables from which on numbered keys are kept in arrays
NUMBERED = 1024  # fewer keys of one kind than this are kept as all others


class Store(KeyTree):
    """An open HyperVStorage file.

    ``store[path]`` is a key, ``store.walk()`` yields all of them, ``store.findings`` says what is odd or broken.
    Opening reads and checks every table; values are read when asked for. The file is never written.

    Attributes:
        source: the file.
        header: the header in force.
        objects: what the object tables name.
    """

    _objects_known = True  # whether the object tables can be read, so that a value that is none of them is damage

    def __init__(self, source: Source, log: FindingLog) -> None:
        super().__init__((source,), log)
        self.source = source
        self.header: Header = read_header(source, log)
        source.overlay(pending_patches(source, self.header, log))
        self.objects: ObjectDirectory = ObjectTableReader(source, _alignment(self.header), log).read()
        self._report_truncation()
        records = KeyRecords()
        tables = self._key_tables()
        if sum(table.size for table in tables) < NUMBERED_FROM:
            for table in tables:
                scan_table(table, source, log, records)
        else:
            scan, _ = scanners()
            for table in tables:
                scan_numbered(table, source, log, records, scan)
            self._take_numbered(records)
        for keys in records.children.values():
            self._check_pointers(keys)
        self._grow(records)

    @classmethod
    def open(cls, path: FileArgument, *, strict: bool = False) -> Store:
        """Open a ``.vmrs`` or ``.vmcx`` file, by path or as a seekable binary file object.

        Raises SourceError, FormatError (not HyperVStorage), CorruptFileError; with ``strict`` the latter also for
        everything that is otherwise a finding, except harmless notes.
        """
        source = open_evidence(path)
        try:
            if not has_signature(source):
                raise FormatError(
                    "this is not a HyperVStorage file (.vmrs, .vmcx)",
                    file=source.path,
                    offset=0,
                    remedy="name a file that Hyper-V wrote",
                )
            log = FindingLog(strict=strict)
            with paused_collector(), log.attached():
                return cls(source, log)
        except BaseException:
            source.close()
            raise

    def __enter__(self) -> Store:
        """The store itself."""
        return self

    def _report_truncation(self) -> None:
        """Objects that reach far behind the end say more than each of their faults: the file is a part of itself."""
        last = self.objects.last_file_object
        if max([last, *self.objects.tables, *(start for start, _ in self.objects.key_tables)]) < self.source.size:
            return
        spans = [*self.objects.key_tables, *self.objects.file_objects.items(), *self.objects.tables.items()]
        behind = [start for start, _ in spans if start >= self.source.size]
        if behind:
            self.log.loss(
                "hvs.truncated", self.source.path, self.source.size,
                f"the file is truncated: {len(behind)} of its {len(spans)} objects lie behind its end",
                found=self.source.size, expected=f"{max(start + size for start, size in spans):#x}",
            )  # fmt: skip

    def _key_tables(self) -> list[KeyTable]:
        """All readable key tables; of two with one index the newer (section 2.6). No byte of the file counts twice."""
        tables: dict[int, KeyTable] = {}
        listed = self.objects.key_tables
        if len(listed) > layout.MAX_KEY_TABLES:
            at = listed[layout.MAX_KEY_TABLES][0]
            self.log.damage("hvs.key-table.count", self.source.path, at, "too many key tables", found=len(listed))
        covered = Coverage()
        # The small ones first: a wrong, large size must not hide the tables behind it.
        for offset, size in sorted(listed[: layout.MAX_KEY_TABLES], key=itemgetter(1)):
            table = find_table(self.source, offset, size, self.log)
            if table is None:
                continue
            free = covered.add(offset, offset + table.size)
            if free != [(offset, offset + table.size)]:
                self.log.damage(
                    "hvs.key-table.overlap",
                    self.source.path,
                    offset,
                    "key table overlaps another one",
                    found=table.size,
                )
                if not free or free[0][0] != offset:
                    continue
                table = replace(table, size=free[0][1] - offset)
            other = tables.get(table.index)
            if other is not None:
                self.log.damage(
                    "hvs.key-table.same-index",
                    self.source.path,
                    offset,
                    f"two key tables have one index, the other is at {other.offset:#x}",
                    found=table.index,
                )
                if not is_newer(table.sequence, other.sequence):
                    continue
            tables[table.index] = table
        return list(tables.values())

    def _grow(self, records: KeyRecords) -> None:
        """Make the tree. Parents may stand behind their children, so all keys are there first (section 2.9)."""
        for place, keys in records.children.items():
            parent = records.nodes.get(place)
            if place == 0:
                self.roots = sorted(keys, key=by_sequence)
            elif parent is not None:
                set_children(parent, sorted(keys, key=by_sequence))
            else:
                for key in keys:
                    self.log.damage(
                        "hvs.key.parent",
                        self.source.path,
                        key.offset + 6,
                        f"parent of key {key.name!r} is not a node of this file",
                        found=f"table {place >> 32:#x}, offset {place & 0xFFFFFFFF:#x}",
                    )
                self.orphans.extend(keys)
        self._cut_loops(list(records.nodes.values()))

    def _take_numbered(self, records: KeyRecords) -> None:
        """Keep large groups of numbered keys in arrays, below their node; all others become keys as the rest."""
        for (place, prefix), keys in list(records.numbered.items()):
            parent = records.nodes.get(place)
            if parent is None or len(keys) < NUMBERED:
                records.children.setdefault(place, []).extend(keys.entries())
                del records.numbered[place, prefix]
                continue
            keys.finish(parent)
            parent.set_numbered((*parent.numbered, keys))
            self._check_pointers(keys.suspects(self.objects.file_objects if self._objects_known else None))

    def _check_pointers(self, keys: list[KeyEntry]) -> None:
        """External values must lie in the file, and in a file object of the object tables (section 2.10)."""
        objects, limit = self.objects.file_objects, self.source.size
        for key in keys:
            if not key.external:
                continue
            at, size = key.value_offset, key.size
            room = objects.get(at)
            if at + size <= limit and (not self._objects_known or (room is not None and size <= room)):
                continue
            name, place = f"key {key.name!r}", (self.source.path, key.offset)
            if at + size > limit:  # reading this key fails; its neighbours stay usable (section 11)
                message = f"{name}: value of {size:#x} bytes lies outside of the file of {limit:#x} bytes"
                self.log.loss("hvs.key.outside", *place, message, found=at)
            elif room is None:
                message = f"{name}: value is not a file object of the object tables"
                self.log.damage("hvs.key.no-object", *place, message, found=at)
            else:
                message = f"{name}: value of {size:#x} bytes is larger than its file object of {room:#x}"
                self.log.damage("hvs.key.beyond-object", *place, message, found=at)

    def _cut_loops(self, nodes: list[KeyEntry]) -> None:
        """Nodes that the root does not reach, or only too deep, become orphans so that nothing recurses for ever."""
        reached: set[int] = set()
        level, depth = [entry for entry in (*self.roots, *self.orphans) if entry.type == "node"], 0
        while level and depth < MAX_DEPTH:
            reached.update(map(id, level))
            level = [child for entry in level for child in entry._children or () if child.type == "node"]
            depth += 1
        lost = [node for node in nodes if id(node) not in reached]
        reason = "nested too deep" if level else "its parents form a ring"
        for node in lost:
            self.log.damage(
                "hvs.key.unreachable", self.source.path, node.offset, f"key {node.name!r} cannot be reached: {reason}"
            )
        cut = set(map(id, lost))
        for above in {id(node.parent): node.parent for node in lost if node.parent is not None}.values():
            set_children(above, [child for child in above.children if id(child) not in cut])
        for node in lost:
            node.parent = None
        self.orphans.extend(lost)


def _alignment(header: Header) -> int:
    """The alignment to reckon with; an illegal one (already a finding) counts as the default."""
    legal = layout.MIN_ALIGNMENT <= header.alignment <= layout.MAX_ALIGNMENT
    return header.alignment if legal else layout.MIN_ALIGNMENT
