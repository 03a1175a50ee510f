"""Writes HyperVStorage files that Microsoft's reader accepts (format specification, section 9; rules cited by number).

Values that become file objects go to the file at once; what is kept until the end is one small record per key. The
file is written under a temporary name beside its place and renamed when it is complete: no half-written file passes
for a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...errors import InvalidArgumentError
from ...files.new_file import CompletesOnExit, NewFile
from ...files.opening import PathArgument
from ...integers import as_int
from . import layout
from .checksum import sealed
from .layout import KeyType, ObjectType, align
from .object_table import EMPTY_ENTRY

ALIGNMENT = layout.MIN_ALIGNMENT
OBJECT_TABLE_SIZE = 0x1000
OBJECT_TABLE_ENTRIES = (OBJECT_TABLE_SIZE - layout.OBJECT_TABLE_HEADER.size) // layout.OBJECT_ENTRY.size
USABLE_ENTRIES = OBJECT_TABLE_ENTRIES - 1  # the last one is the chain slot (rule 3)
REPLAY_LOG_SIZE = 0x100000
MAX_VALUE = 0xFFFFFFFF
_TYPES = {name: kind for kind, name in layout.KEY_TYPE_NAMES.items()}
_NUMBERS = {KeyType.INT: struct.Struct("<q"), KeyType.UINT: struct.Struct("<Q"), KeyType.DOUBLE: struct.Struct("<d")}


@dataclass
class _Key:
    """One key to be: ``data`` is what follows the name, without the entry's slack."""

    kind: int
    name: bytes
    pointer: bool
    data: bytes
    sequence: int
    children: list[_Key] = field(default_factory=list)
    names: dict[str, _Key] = field(default_factory=dict)


class StoreWriter(CompletesOnExit):
    """A HyperVStorage file being written; a context manager that completes it, or removes it after an error.

    Raises SourceError where the file exists (unless ``overwrite``) or cannot be written, InvalidArgumentError for
    what the format cannot express.
    """

    def __init__(self, path: PathArgument, *, overwrite: bool = False) -> None:
        self._root = _Key(KeyType.NODE, b"", False, b"", 0)
        self._objects: list[tuple[int, int, int]] = []
        self._end = layout.FIRST_OBJECT_TABLE + OBJECT_TABLE_SIZE
        self._file = NewFile(path, overwrite=overwrite)

    def set(self, path: str, type_name: str, value: int | float | bool | str | bytes) -> None:
        """Add a key with a value of type ``int``, ``uint``, ``double``, ``bool``, ``string`` or ``array``.

        Nodes above it are made as needed. Keys keep the order in which they are added (rule 7).
        """
        kind = _TYPES.get(type_name, KeyType.FREE)
        data = _encode(kind, value, path)
        if kind in (KeyType.STRING, KeyType.ARRAY):
            if len(data) >= layout.EXTERNAL_FROM:  # rule 9, for strings too
                self._add_external(path, kind, len(data), [(0, data)])
                return
            data = layout.LENGTH_PREFIX.pack(len(data)) + data
        self._add(path, kind, False, data)

    def set_array(self, path: str, size: int, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Add an array of ``size`` bytes (2048 and more) from (offset, bytes) pieces; what no piece covers is zero.

        Uncovered stretches become holes in the file where the file system has them.
        """
        self._add_external(
            path, KeyType.ARRAY, as_int(size, "a size"), ((as_int(at, "an offset"), data) for at, data in pieces)
        )

    def _add_external(self, path: str, kind: int, size: int, pieces: Iterable[tuple[int, bytes]]) -> None:
        if not layout.EXTERNAL_FROM <= size <= MAX_VALUE:
            raise InvalidArgumentError(f"{path}: a value of {size:#x} bytes cannot be a file object")
        offset = self._end
        for at, data in pieces:
            if at < 0 or at + len(data) > size:
                raise InvalidArgumentError(f"{path}: a piece leaves the value of {size:#x} bytes")
            self._file.write_at(offset + at, data)
        self._objects.append((ObjectType.FILE_OBJECT, offset, align(size, ALIGNMENT)))
        self._end = offset + align(size, ALIGNMENT)
        self._add(path, kind, True, layout.KEY_POINTER.pack(size, offset))

    def _add(self, path: str, kind: int, pointer: bool, data: bytes) -> None:
        *above, name = [part for part in path.split("/") if part] or [""]
        node = self._root
        for part in above:
            child = node.names.get(part)
            if child is None:
                child = self._append(node, part, KeyType.NODE, False, b"")
            elif child.kind != KeyType.NODE:
                raise InvalidArgumentError(f"{path}: {part!r} is a value, it has no keys below it")
            node = child
        if name in node.names:
            raise InvalidArgumentError(f"{path}: there is such a key already")
        self._append(node, name, kind, pointer, data)

    @staticmethod
    def _append(node: _Key, name: str, kind: int, pointer: bool, data: bytes) -> _Key:
        try:
            encoded = name.encode("utf-8", errors="surrogateescape") + b"\0"
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"{name!r} cannot be the name of a key: {error.reason}") from error
        if not 1 < len(encoded) <= 255 or b"\0" in encoded[:-1]:
            raise InvalidArgumentError(f"{name!r} cannot be the name of a key: 1 to 254 bytes, no NUL")
        key = _Key(kind, encoded, pointer, data, len(node.children) + 1)
        node.children.append(key)
        node.names[name] = key
        return key

    def _complete(self) -> None:
        key_tables = list(self._key_tables())
        if len(key_tables) > layout.MAX_KEY_TABLES:
            raise InvalidArgumentError(f"the keys need {len(key_tables)} tables, {layout.MAX_KEY_TABLES} are possible")
        for table in key_tables:
            self._objects.append((ObjectType.KEY_TABLE, self._end, len(table)))
            self._file.write_at(self._end, table)
            self._end += len(table)
        log_at, self._end = self._end, self._end + REPLAY_LOG_SIZE
        self._file.write_at(log_at, _empty_replay_log())
        self._put_object_tables()
        self._put_headers(log_at)
        self._file.truncate(self._end)
        self._file.close()

    def _discard(self) -> None:
        self._file.abort()

    def _key_tables(self) -> Iterator[bytes]:
        """The tables in order; parents come before their children, so that their place is known (rules 4 to 8)."""
        filler = _TableFiller()
        pending = [(self._root, 0, 0)]
        while pending:
            node, table, offset = pending.pop(0)
            for key in node.children:
                data = key.data
                if key.kind == KeyType.NODE:
                    data = layout.NODE_DATA.pack(0, len(key.children) + 1)
                place = filler.add(_key_entry(key, data, table, offset))
                if key.kind == KeyType.NODE:
                    pending.append((key, *place))
        return filler.finish()

    def _put_object_tables(self) -> None:
        pieces = [self._objects[at : at + USABLE_ENTRIES] for at in range(0, len(self._objects), USABLE_ENTRIES)] or [
            []
        ]
        places = [layout.FIRST_OBJECT_TABLE]
        for _ in pieces[1:]:
            places.append(self._end)
            self._end += OBJECT_TABLE_SIZE
        for index, (place, entries) in enumerate(zip(places, pieces, strict=True)):
            last = index + 1 == len(places)
            chain = (
                EMPTY_ENTRY if last else _object_entry(ObjectType.OBJECT_TABLE, places[index + 1], OBJECT_TABLE_SIZE)
            )
            body = b"".join(_object_entry(*entry) for entry in entries)
            body += EMPTY_ENTRY * (USABLE_ENTRIES - len(entries)) + chain
            head = layout.OBJECT_TABLE_HEADER.pack(layout.OBJECT_TABLE_SIGNATURE, OBJECT_TABLE_ENTRIES)
            self._file.write_at(place, (head + body).ljust(OBJECT_TABLE_SIZE, b"\0"))

    def _put_headers(self, log_at: int) -> None:
        for offset, sequence in zip(layout.HEADER_OFFSETS, (1, 0), strict=True):  # rule 1: never equal
            header = layout.HEADER.pack(
                layout.HEADER_SIGNATURE, 0, sequence, layout.FORMAT_VERSION, 0, 0, ALIGNMENT,
                log_at, REPLAY_LOG_SIZE, layout.REPLAY_HEADER_AREA,
            )  # fmt: skip
            self._file.write_at(offset, sealed(header, layout.HEADER_CHECKSUM_AT))


class _TableFiller:
    """Packs key entries into tables of the default size; no entry spans two."""

    def __init__(self) -> None:
        self._tables: list[list[bytes]] = []
        self._used = layout.KEY_TABLE_SIZE

    def add(self, entry: bytes) -> tuple[int, int]:
        """Append an entry; (table index, offset) of its place."""
        if self._used + len(entry) > layout.KEY_TABLE_SIZE:
            self._tables.append([])
            self._used = layout.KEY_TABLE_HEADER.size
        place = self._used
        self._tables[-1].append(entry)
        self._used += len(entry)
        return len(self._tables), place

    def finish(self) -> Iterator[bytes]:
        """The complete tables."""
        for index, entries in enumerate(self._tables or [[]], start=1):
            head = layout.KEY_TABLE_HEADER.pack(layout.KEY_TABLE_SIGNATURE, index, 1, 0)
            rest = layout.KEY_TABLE_SIZE - len(head) - sum(map(len, entries))
            if 0 < rest <= layout.KEY_ENTRY.size:  # rule 5: too little for a free entry, it belongs to the last one
                entries = [*entries[:-1], _stretched(entries[-1], rest)]
            elif rest:  # rule 6
                free = layout.KEY_ENTRY.pack(KeyType.FREE, 0, rest, 0, 0, 0, 0, 0)
                entries = [*entries, free.ljust(rest, b"\0")]
            yield sealed(head, layout.KEY_TABLE_CHECKSUM_AT) + b"".join(entries)


def _key_entry(key: _Key, data: bytes, table: int, offset: int) -> bytes:
    flags = layout.KEY_FLAG_POINTER if key.pointer else 0
    size = layout.KEY_ENTRY.size + len(key.name) + len(data)
    head = layout.KEY_ENTRY.pack(key.kind, flags, size, table, offset, 0, key.sequence, len(key.name))
    return sealed(head + key.name + data, layout.KEY_ENTRY_CHECKSUM_AT)


def _stretched(entry: bytes, slack: int) -> bytes:
    """The entry with ``slack`` bytes behind it, which its size counts and its checksum does not cover (rule 8)."""
    size = len(entry) + slack
    longer = entry[:2] + size.to_bytes(4, "little") + entry[6:]
    return sealed(longer, layout.KEY_ENTRY_CHECKSUM_AT) + bytes(slack)


def _object_entry(kind: int, offset: int, size: int) -> bytes:
    entry = layout.OBJECT_ENTRY.pack(kind, 0, offset, size, layout.OBJECT_FLAG_REQUIRED)  # rule 14
    return sealed(entry, layout.OBJECT_ENTRY_CHECKSUM_AT)


def _empty_replay_log() -> bytes:
    """The header of a clean log (rule 2)."""
    maximum = (layout.REPLAY_HEADER_AREA - layout.REPLAY_HEADER.size) // layout.REPLAY_ENTRY.size
    header = layout.REPLAY_HEADER.pack(layout.REPLAY_SIGNATURE, 0, 0, 0, maximum, 0, 0, 0, 0)
    return sealed(header, layout.REPLAY_HEADER_CHECKSUM_AT)


def _encode(kind: int, value: int | float | bool | str | bytes, path: str) -> bytes:
    try:
        if kind == KeyType.BOOL and not isinstance(value, (str, bytes, float)) and value in (0, 1):
            return int(value).to_bytes(4, "little")
        if kind in (KeyType.INT, KeyType.UINT):
            return _NUMBERS[KeyType(kind)].pack(as_int(value, path))
        if kind == KeyType.DOUBLE and not isinstance(value, (str, bytes)):
            return _NUMBERS[KeyType.DOUBLE].pack(value)
        if kind == KeyType.STRING and isinstance(value, str):
            return value.encode("utf-16-le", errors="surrogatepass")  # without NUL, as Windows writes them
        if kind == KeyType.ARRAY and isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
    except struct.error as error:
        raise InvalidArgumentError(f"{path}: {value!r} does not fit its type") from error
    raise InvalidArgumentError(f"{path}: {type(value).__name__} is not a value of this type")
