"""The tree of named, typed values that both containers of Hyper-V hold.

``hvstorage`` and ``legacy`` build it; formats and people read it. A value is an extent of a file and is read when it is
asked for, never before.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from ..errors import CorruptFileError, InvalidArgumentError, KeyNotFoundError
from ..files.source import Source
from ..findings import Finding, FindingLog
from ..integers import as_int
from ..remedies import LIST_KEYS

KeyValue = int | float | str | bytes | bool | None

PREVIEW = 16  # bytes of an array that a list shows
LONG_TEXT = 64 << 10  # bytes of a text that a list shows
WHOLE = 16 << 20  # bytes of a single value that JSON has
SHOWN_PATH = 400  # characters of a path in messages and tables
_NUMBERED = re.compile(r"(.+)\[(\d{1,9})\]", re.DOTALL)
_FIXED = {name: struct.Struct(code) for name, code in (("int", "<q"), ("uint", "<Q"), ("double", "<d"), ("bool", "<I"))}


class Numbered(Protocol):
    """Keys below one node whose names are a prefix and a number, made when asked for."""

    prefix: str
    again: tuple[int, ...]

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int) -> KeyEntry:
        """The key of a number. Raises KeyError."""
        ...

    def named(self, name: str) -> KeyEntry | None:
        """The key of a name, None where there is none."""
        ...

    def entries(self) -> Iterator[KeyEntry]:
        """All of them, ascending by number."""
        ...


class KeyEntry:
    """One key: a node with children, or a leaf with a value.

    Attributes:
        name: the last part of the path.
        type: ``int``, ``uint``, ``double``, ``string``, ``array``, ``bool``, ``node``, or ``unknown(N)``.
        parent: the node above, None below the root.
        source: the file that holds the value.
        offset: byte offset of the key's own record in the file.
        value_offset, size: extent of the value in bytes (for strings and arrays without a length prefix).
        external: True when the value stands outside of the key table.
    """

    __slots__ = (
        "_children",
        "_numbered",
        "external",
        "log",
        "name",
        "offset",
        "parent",
        "sequence",
        "size",
        "source",
        "type",
        "value_offset",
    )

    def __init__(
        self,
        name: str,
        type_name: str,
        source: Source,
        log: FindingLog,
        offset: int,
        value_offset: int,
        size: int,
        external: bool = False,
        sequence: int = 0,
    ) -> None:
        self.name = name
        self.type = type_name
        self.source = source
        self.log = log
        self.offset = offset
        self.value_offset = value_offset
        self.size = size
        self.external = external
        self.sequence = sequence
        self.parent: KeyEntry | None = None
        self._children: list[KeyEntry] | None = None
        self._numbered: tuple[Numbered, ...] = ()

    def __repr__(self) -> str:
        """Path, type and size, for people at a prompt."""
        return f"<{type(self).__name__} {self.shown} {self.type} {self.size} bytes>"

    @property
    def children(self) -> tuple[KeyEntry, ...]:
        """The keys below this one, in insertion order; siblings may share a name.

        Numbered keys that are kept in arrays (:attr:`numbered`) come last.
        """
        return (*(self._children or ()), *(key for keys in self._numbered for key in keys.entries()))

    @property
    def singles(self) -> Sequence[KeyEntry]:
        """The keys below this one that are not kept in arrays."""
        return self._children or ()

    @property
    def numbered(self) -> tuple[Numbered, ...]:
        """The numbered keys below this one that are kept in arrays: blocks of memory of a large guest."""
        return self._numbered

    def set_numbered(self, keys: tuple[Numbered, ...]) -> None:
        """Hang numbered keys below this one; for the containers that build a tree."""
        self._numbered = keys

    @property
    def path(self) -> str:
        """Absolute path with ``/``; several siblings of one name have one path."""
        parts = []
        entry: KeyEntry | None = self
        while entry is not None:
            parts.append(entry.name)
            entry = entry.parent
        return "/" + "/".join(reversed(parts))

    @property
    def shown(self) -> str:
        """The path for messages: the middle of a very long one is left out."""
        path = self.path
        return path if len(path) <= SHOWN_PATH else f"{path[: SHOWN_PATH // 2]}...{path[-SHOWN_PATH // 2 :]}"

    @property
    def value(self) -> KeyValue:
        """The value, read now: int, float, str, bytes (arrays), bool; None for nodes and unknown types.

        Raises CorruptFileError where the value's extent lies outside of the file or cannot be of its type.
        """
        if self.type == "array":
            return self.read()
        if self.type == "string":
            return _decode_string(self, self.read())
        fixed = _FIXED.get(self.type)
        if fixed is None:
            return None
        if self.size != fixed.size:
            raise CorruptFileError(
                f"{self.shown} of type {self.type} has {self.size:#x} bytes instead of {fixed.size:#x}",
                file=self.source.path,
                offset=self.offset,
            )
        number = fixed.unpack(self.read())[0]
        assert isinstance(number, (int, float))
        if self.type != "bool":
            return number
        if number not in (0, 1):
            self.log.note(
                "key.bool",
                self.source.path,
                self.value_offset,
                f"{self.shown} is a bool",
                found=number,
                expected="0, 1",
            )
        return bool(number)

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """The value's bytes from ``start`` on, ``size`` of them or all.

        Raises CorruptFileError where the extent lies outside of the file.
        """
        start = as_int(start, "start")
        size = max(0, self.size - start) if size is None else as_int(size, "a size")
        if start < 0 or size < 0 or start + size > self.size:
            raise InvalidArgumentError(f"{self.shown} has {self.size:#x} bytes, not {start:#x} to {start + size:#x}")
        self.check_extent()
        return self.source.read(self.value_offset + start, size)

    def text_start(self, limit: int) -> str:
        """The first ``limit`` bytes of a string as text. Raises CorruptFileError."""
        return _decode_string(self, self.read(0, min(limit, self.size)))

    def check_extent(self) -> None:
        """Raise CorruptFileError unless the value's extent lies inside the file."""
        if self.value_offset + self.size > self.source.size:
            raise CorruptFileError(
                f"the value of {self.shown} ({self.size:#x} bytes at {self.value_offset:#x}) lies outside of the file "
                f"({self.source.size:#x} bytes)",
                file=self.source.path,
                offset=self.offset,
                remedy="the file is truncated or damaged; the other keys can be read",
            )


def _decode_string(entry: KeyEntry, raw: bytes) -> str:
    """UTF-16LE without its one trailing NUL, if it has one (format specification, 2.8)."""
    if len(raw) % 2:
        entry.log.damage(
            "key.string-size",
            entry.source.path,
            entry.value_offset,
            f"{entry.shown} is a string of odd size",
            found=len(raw),
        )
        raw = raw[:-1]
    if raw[-2:] == b"\0\0":
        raw = raw[:-2]
    return raw.decode("utf-16-le", errors="surrogatepass")


class KeyTree:
    """A tree of :class:`KeyEntry` in one or several open files; a context manager that closes them.

    Attributes:
        sources: the files.
        roots: the keys directly below ``/``.
        orphans: keys whose parent is lost or unreachable; each is among the findings.
    """

    def __init__(self, sources: Sequence[Source], log: FindingLog) -> None:
        self.sources = tuple(sources)
        self.log = log
        self.roots: list[KeyEntry] = []
        self.orphans: list[KeyEntry] = []
        self._names: dict[int, dict[str, KeyEntry]] = {}
        self._folded_names: dict[int, str] = {}
        self._places: dict[int, dict[int, int]] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is odd or broken, as far as it has been read; empty for a sound file."""
        return tuple(self.log)

    def close(self) -> None:
        """Close the files."""
        for source in self.sources:
            source.close()

    def __enter__(self) -> KeyTree:
        """The tree itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()

    def __getitem__(self, path: str) -> KeyEntry:
        """The key at ``path``; of same-named siblings the first in insertion order.

        An exact match wins; else a match that ignores case is taken and noted. Raises KeyNotFoundError.
        """
        entry = self.find(path)
        if entry is None:
            raise KeyNotFoundError(f"there is no key {path!r}", remedy=LIST_KEYS)
        return entry

    def __contains__(self, path: object) -> bool:
        """Whether there is a key at ``path``."""
        return isinstance(path, str) and self.find(path) is not None

    def find(self, path: str) -> KeyEntry | None:
        """Like ``tree[path]``, but None where there is no such key."""
        parts = [part for part in path.split("/") if part]
        found = self._descend(parts, fold=False)
        if found is None:
            found = self._descend(parts, fold=True)
            if found is not None:
                self.log.note(
                    "key.case",
                    found.source.path,
                    found.offset,
                    "key found by ignoring case",
                    found=found.path,
                    expected=path,
                )
        return found

    def find_all(self, path: str) -> list[KeyEntry]:
        """Every key at ``path``; a part may be ``name[2]`` to mean the second of same-named siblings."""
        found: list[KeyEntry | None] = [None]
        for part in [part for part in path.split("/") if part]:
            found = [child for entry in found for child in self._matches(entry, part)]
        return [entry for entry in found if entry is not None]

    def _matches(self, entry: KeyEntry | None, part: str) -> list[KeyEntry]:
        below = self.roots if entry is None else (entry._children or [])
        exact = [child for child in below if child.name == part]
        if not exact and entry is not None:
            exact = [key for key in (keys.named(part) for keys in entry.numbered) if key is not None]
        numbered = _NUMBERED.fullmatch(part)
        if exact or numbered is None:
            return exact
        same = [child for child in below if child.name == numbered[1]]
        number = int(numbered[2])
        return same[number - 1 : number] if number else []

    def unique_path(self, entry: KeyEntry) -> str:
        """The path of ``entry``, with ``[n]`` behind every part that has same-named siblings: see :meth:`find_all`."""
        parts: list[str] = []
        at: KeyEntry | None = entry
        while at is not None:
            places = self._places_below(at.parent)
            number = places.get(id(at))
            parts.append(at.name if number is None else f"{at.name}[{number}]")
            at = at.parent
        return "/" + "/".join(reversed(parts))

    def to_dict(self, entry: KeyEntry, *, whole: bool = False) -> dict[str, Any]:
        """A key as JSON has it: ``value`` is null for nodes, hex text for arrays (the first bytes; with ``whole`` more).

        A text above 64 KiB, or with ``whole`` a value above 16 MiB, is cut: ``truncated`` is true then.
        """
        return self._described(entry, entry.path, self.unique_path(entry), whole)

    def list_of_dicts(self, entries: Iterable[KeyEntry] | None = None) -> Iterator[dict[str, Any]]:
        """:meth:`to_dict` of keys and all below them, or of the whole tree, at a cost linear in the keys."""
        for entry, path, unique in self.walk_paths(entries):
            yield self._described(entry, path, unique, False)

    def _described(self, entry: KeyEntry, path: str, unique: str, whole: bool) -> dict[str, Any]:
        content: dict[str, Any] = {
            "path": path,
            "unique_path": unique,
            "type": entry.type,
            "size": entry.size,
            "value": None,
        }
        try:
            if entry.type == "array":
                content["value"] = entry.read(0, min(WHOLE if whole else PREVIEW, entry.size)).hex()
                if whole and entry.size > WHOLE:
                    content["truncated"] = True
            elif entry.type == "string" and entry.size > (WHOLE if whole else LONG_TEXT):
                content["value"] = entry.text_start(WHOLE if whole else LONG_TEXT)
                content["truncated"] = True
            else:
                value = entry.value
                content["value"] = str(value) if isinstance(value, float) and not math.isfinite(value) else value
        except CorruptFileError as error:
            content["error"] = error.message
        return content

    def _places_below(self, entry: KeyEntry | None) -> dict[int, int]:
        """Number among its same-named siblings of every child that has such, by identity."""
        key = 0 if entry is None else id(entry)
        places = self._places.get(key)
        if places is None:
            places = self._places[key] = {}
            below = self.roots if entry is None else (entry._children or [])
            if len(self._index(entry)) != len(below):
                named: dict[str, list[KeyEntry]] = {}
                for child in below:
                    named.setdefault(child.name, []).append(child)
                for same in named.values():
                    if len(same) > 1:
                        places.update((id(child), number) for number, child in enumerate(same, start=1))
        return places

    def _descend(self, parts: list[str], *, fold: bool) -> KeyEntry | None:
        entry: KeyEntry | None = None
        for number, part in enumerate(parts, start=1):
            above = entry
            entry = self._folded(above, part) if fold else self._index(above).get(part)
            if entry is None and above is not None:
                entry = _numbered_child(above, part, fold)
            if entry is None:
                return None
            if number < len(parts) and entry.type != "node":  # a value and a node may share a name
                entry = next((child for child in self._matches(above, entry.name) if child.type == "node"), None)
                if entry is None:
                    return None
        return entry

    def _folded(self, entry: KeyEntry | None, name: str) -> KeyEntry | None:
        """The child whose name differs in case alone."""
        key, below = 0 if entry is None else id(entry), self.roots if entry is None else (entry._children or [])
        wanted = name.casefold()
        # Most look-ups are for keys that are optional, below a node that may have 65,536 children: one search in one
        # text of all names says that there is none, a hundred times faster than looking at each.
        names = self._folded_names.get(key)
        if names is None:
            names = self._folded_names[key] = "\0".join(["", *(child.name for child in below), ""]).casefold()
        if f"\0{wanted}\0" not in names:
            return None
        return next((child for child in below if child.name.casefold() == wanted), None)

    def names_below(self, path: str) -> Mapping[str, KeyEntry]:
        """The keys directly below ``path`` by name, of same-named ones the first; empty where there is no such node.

        Without those that are kept in arrays (``tree[path].numbered``).
        """
        entry = self.find(path)
        return {} if entry is None else self._index(entry)

    def _index(self, entry: KeyEntry | None) -> dict[str, KeyEntry]:
        key = 0 if entry is None else id(entry)
        index = self._names.get(key)
        if index is None:
            below = self.roots if entry is None else (entry._children or [])
            index = self._names[key] = {child.name: child for child in reversed(below)}
        return index

    def walk_paths(self, entries: Iterable[KeyEntry] | None = None) -> Iterator[tuple[KeyEntry, str, str]]:
        """(key, path, unique path) of ``entries`` and all below them, or of the whole tree, in the order of :meth:`walk`.

        A path is made from that of the node above, so the cost is that of the text.
        """
        seen: set[int] = set()
        for top in [self.roots, self.orphans] if entries is None else [list(entries)]:
            # Each key with the paths of what is above it; its own are made when its turn comes.
            stack = [(entry, *self._paths_above(entry)) for entry in reversed(top)]
            while stack:
                entry, path, unique = stack.pop()
                if id(entry) in seen:
                    continue
                seen.add(id(entry))
                number = self._places_below(entry.parent).get(id(entry))
                path = f"{path}/{entry.name}"
                unique = f"{unique}/{entry.name}" + ("" if number is None else f"[{number}]")
                yield entry, path, unique
                for keys in entry.numbered:
                    yield from ((key, f"{path}/{key.name}", f"{unique}/{key.name}") for key in keys.entries())
                stack.extend((child, path, unique) for child in reversed(entry._children or ()))

    def _paths_above(self, entry: KeyEntry) -> tuple[str, str]:
        return ("", "") if entry.parent is None else (entry.parent.path, self.unique_path(entry.parent))

    def walk(self) -> Iterator[KeyEntry]:
        """Every key, parents before children, siblings in insertion order; last those whose parent is lost."""
        seen: set[int] = set()
        for top in (self.roots, self.orphans):
            stack = list(reversed(top))
            while stack:
                entry = stack.pop()
                if id(entry) in seen:  # orphans may form a ring
                    continue
                seen.add(id(entry))
                yield entry
                for keys in entry.numbered:
                    yield from keys.entries()
                stack.extend(reversed(entry._children or ()))


def _numbered_child(entry: KeyEntry, name: str, fold: bool) -> KeyEntry | None:
    """The numbered key of a name, or of one that differs in case alone."""
    for keys in entry.numbered:
        wanted = name
        if fold and name[: len(keys.prefix)].casefold() == keys.prefix.casefold():
            wanted = keys.prefix + name[len(keys.prefix) :]
        found = keys.named(wanted)
        if found is not None:
            return found
    return None


def add_child(parent: KeyEntry, child: KeyEntry) -> None:
    """Hang ``child`` below ``parent``; for the containers that build a tree."""
    child.parent = parent
    if parent._children is None:
        parent._children = [child]
    else:
        parent._children.append(child)


def set_children(parent: KeyEntry, children: list[KeyEntry]) -> None:
    """Hang all of ``children`` below ``parent``, in this order."""
    for child in children:
        child.parent = parent
    parent._children = children
