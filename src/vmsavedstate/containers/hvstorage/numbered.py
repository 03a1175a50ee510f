"""Keys that are numbered, such as the million RamBlock keys of a guest of 1 TiB: kept in arrays, made when asked for."""

from __future__ import annotations

import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import codec
from ...files.source import Source
from ...findings import FindingLog
from ..keytree import KeyEntry
from . import layout

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ScanKeys = Callable[[bytes, int, int], tuple[list[Any], list[int], int]]
ScanObjects = Callable[[bytes], tuple[bytes, bytes, list[int]]]
COLUMNS = "QQQIIB"
_NAME = re.compile(rb"([\x00-\x7f]*[\x00-/:-\x7f])(0|[1-9][0-9]{0,14})", re.DOTALL)


class _Columns(NamedTuple):
    """One value for each key: number, offset of its entry, offset and size of its value, sequence, whether external."""

    numbers: array[int]
    entries: array[int]
    offsets: array[int]
    sizes: array[int]
    sequences: array[int]
    external: array[int]


class NumberedKeys(Mapping[int, KeyEntry]):
    """The arrays below one node whose names are a prefix and a number, by their number: the first of each, in order.

    Attributes:
        prefix: the names without their numbers.
        again: the numbers of keys that are there a second time.
        source: the file.
    """

    def __init__(self, prefix: str, source: Source, log: FindingLog) -> None:
        self.prefix = prefix
        self.again: tuple[int, ...] = ()
        self.source = source
        self._log = log
        self.parent: KeyEntry | None = None
        self._columns = _Columns(*(array(code) for code in COLUMNS))

    def extend(self, columns: Sequence[bytes]) -> None:
        """Add keys: the columns as bytes."""
        for column, more in zip(self._columns, columns, strict=True):
            column.frombytes(more)

    def finish(self, parent: KeyEntry | None) -> None:
        """All are there: bring them into the order of their numbers, and of their sequences where a number is twice."""
        import numpy as np

        self.parent = parent
        numbers = np.frombuffer(self._columns.numbers, dtype=np.uint64)
        if len(numbers) < 2 or bool((numbers[1:] > numbers[:-1]).all()):
            return
        order = np.lexsort((np.frombuffer(self._columns.sequences, dtype=np.uint32), numbers))
        ordered = numbers[order]
        second = np.concatenate(([False], ordered[1:] == ordered[:-1]))
        self.again = tuple(ordered[second].tolist())
        kept = order[~second]
        self._columns = _Columns(
            *(
                array(column.typecode, np.frombuffer(column, dtype=column.typecode)[kept].tobytes())
                for column in self._columns
            )
        )

    def __len__(self) -> int:
        """How many different numbers there are."""
        return len(self._columns.numbers)

    def __iter__(self) -> Iterator[int]:
        """The numbers, ascending."""
        return iter(self._columns.numbers)

    def __getitem__(self, number: int) -> KeyEntry:
        """The key of a number, made now. Raises KeyError."""
        numbers = self._columns.numbers
        index = bisect_left(numbers, number)
        if index == len(numbers) or numbers[index] != number:
            raise KeyError(number)
        return self._entry(index)

    def _entry(self, index: int) -> KeyEntry:
        number, at, offset, size, sequence, external = (column[index] for column in self._columns)
        key = KeyEntry(
            f"{self.prefix}{number}", "array", self.source, self._log, at, offset, size, bool(external), sequence
        )
        key.parent = self.parent
        return key

    def named(self, name: str) -> KeyEntry | None:
        """The key of a name, None where there is none."""
        digits = name[len(self.prefix) :]
        if not name.startswith(self.prefix) or not (digits.isascii() and digits.isdecimal()):
            return None
        return self.get(int(digits)) if digits == str(int(digits)) and len(digits) < 19 else None

    def entries(self) -> Iterator[KeyEntry]:
        """All keys, ascending by number."""
        return map(self._entry, range(len(self)))

    def numbers(self) -> Sequence[int]:
        """The numbers, ascending."""
        return self._columns.numbers

    def suspects(self, objects: Mapping[int, int] | None) -> list[KeyEntry]:
        """The keys whose value is not where it should be: inside of the file, and of one of its file objects, if known."""
        import numpy as np

        offsets, sizes, external = self.extents()
        ends = offsets + sizes
        sound = (ends <= np.uint64(self.source.size)) & (ends >= offsets)
        if isinstance(objects, Extents):
            sound &= objects.hold(offsets, sizes)
        elif objects is not None:
            rooms = np.array([objects.get(at, -1) for at in offsets.tolist()], dtype=np.int64)
            sound &= sizes <= rooms
        return [self._entry(index) for index in np.flatnonzero(external & ~sound).tolist()]

    def extents(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
        """Offset and size of each value, in bytes, and whether it is outside of the key tables."""
        import numpy as np

        _, _, offsets, sizes, _, external = (np.frombuffer(column, dtype=column.typecode) for column in self._columns)
        return offsets, sizes, external.astype(np.bool_)


class Extents(Mapping[int, int]):
    """Offsets and sizes of file objects in arrays, for files of a hundred thousand and more."""

    def __init__(self, offsets: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint32]) -> None:
        self.offsets = offsets  # ascending
        self.sizes = sizes

    def __len__(self) -> int:
        """How many there are."""
        return len(self.offsets)

    def __iter__(self) -> Iterator[int]:
        """The offsets, ascending."""
        return iter(self.offsets.tolist())

    def __getitem__(self, offset: int) -> int:
        """The size of the object at an offset. Raises KeyError."""
        import numpy as np

        index = int(np.searchsorted(self.offsets, np.uint64(offset))) if 0 <= offset < 1 << 64 else len(self)
        if index == len(self) or int(self.offsets[index]) != offset:
            raise KeyError(offset)
        return int(self.sizes[index])

    def hold(self, offsets: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Which values begin at an object and fit into it."""
        import numpy as np

        index = np.minimum(np.searchsorted(self.offsets, offsets), len(self) - 1)
        found: npt.NDArray[np.bool_] = (self.offsets[index] == offsets) & (sizes <= self.sizes[index])
        return found


def scan_keys(data: bytes, start: int, base: int) -> tuple[list[Any], list[int], int]:
    """Take the sound numbered arrays out of a key table (format specification, 2.7), as the extension does.

    Arguments: the table, where its entries begin, and its offset in the file. Returns groups of
    (place of the parent, prefix of the names, columns as bytes), the places of all other entries, and where entries end.
    """
    groups: dict[tuple[int, bytes], _Columns] = {}
    others: list[int] = []
    at, end = start, len(data)
    while at + layout.KEY_ENTRY.size < end:
        size = int.from_bytes(data[at + 2 : at + 6], "little")
        if size < layout.KEY_ENTRY.size or at + size > end:
            others.append(at)  # it is reported, and the rest of the table is lost
            break
        found = _numbered(data, at, size)
        if found is None:
            others.append(at)
        else:
            place, prefix, number, value_at, value_size, sequence, external = found
            columns = groups.setdefault((place, prefix), _Columns(*(array(code) for code in COLUMNS)))
            row = (number, base + at, value_at if external else base + value_at, value_size, sequence, external)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        at += size
    return [(*key, [column.tobytes() for column in columns]) for key, columns in groups.items()], others, at


def _numbered(data: bytes, at: int, size: int) -> tuple[int, bytes, int, int, int, int, int] | None:
    """What a sound array with a number in its name says; None for every other entry."""
    kind, flags, _, parent_table, parent_offset, stored, sequence, name_size = layout.KEY_ENTRY.unpack_from(data, at)
    place = at + layout.KEY_ENTRY.size + name_size
    if kind != layout.KeyType.ARRAY or name_size < 2 or place + 4 > at + size or data[place - 1]:
        return None
    name = _NAME.fullmatch(data, at + layout.KEY_ENTRY.size, place - 1)
    value_size = int.from_bytes(data[place : place + 4], "little")
    external = flags & layout.KEY_FLAG_POINTER
    end = place + (layout.KEY_POINTER.size if external else 4 + value_size)
    if name is None or end > at + size:
        return None
    if zlib.crc32(data[at + 16 : end], zlib.crc32(b"\0\0\0\0", zlib.crc32(data[at : at + 12]))) != stored:
        return None
    value_at = int.from_bytes(data[place + 4 : place + 12], "little") if external else place + 4
    return parent_table << 32 | parent_offset, name[1], int(name[2]), value_at, value_size, sequence, external


def scan_objects(data: bytes) -> tuple[bytes, bytes, list[int]]:
    """Take the sound file objects out of the entries of an object table (2.5), as the extension does.

    Returns their offsets and sizes as bytes, and the places of all other entries.
    """
    offsets, sizes, others = array("Q"), array("I"), []
    start = zlib.crc32(bytes((layout.ObjectType.FILE_OBJECT, 0, 0, 0, 0)))
    step = layout.OBJECT_ENTRY.size
    for at, (kind, stored, offset, size, _) in zip(
        range(0, len(data), step), layout.OBJECT_ENTRY.iter_unpack(data), strict=True
    ):
        if kind == layout.ObjectType.FILE_OBJECT and zlib.crc32(data[at + 5 : at + step], start) == stored:
            offsets.append(offset)
            sizes.append(size)
        else:
            others.append(at)
    return offsets.tobytes(), sizes.tobytes(), others


def scanners() -> tuple[ScanKeys, ScanObjects]:
    """Both functions: those of the extension, where it is in use."""
    extension = codec.extension()
    return (scan_keys, scan_objects) if extension is None else (extension.scan_keys, extension.scan_objects)
