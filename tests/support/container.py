"""HyperVStorage structures byte by byte, written from the specification alone and not from the package's own writer.

Every function takes the correct value by default and whatever a test wants instead, so that each faulty file has a valid
counterpart that differs in one thing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FREE, INT, UINT, DOUBLE, STRING, ARRAY, BOOL, NODE = 1, 3, 4, 5, 6, 7, 8, 9
OBJECT_TABLE, KEY_TABLE, FILE_OBJECT, FREE_OBJECT = 1, 2, 3, 4
PAGE = 0x1000


def crc_with(raw: bytes, at: int, crc: int | None = None, covered: int | None = None) -> bytes:
    """``raw`` with its CRC-32 (of the first ``covered`` bytes) at ``at``."""
    zeroed = raw[:at] + bytes(4) + raw[at + 4 :]
    value = zlib.crc32(zeroed[:covered]) if crc is None else crc
    return raw[:at] + struct.pack("<I", value) + raw[at + 4 :]


def header(
    sequence: int,
    log_at: int,
    *,
    log_size: int = 0x100000,
    version: int = 0x0400,
    alignment: int = PAGE,
    log_header: int = PAGE,
    signature: int = 0x01282014,
    crc: int | None = None,
) -> bytes:
    """A header copy (2.2)."""
    raw = struct.pack("<IIHIIIIQQI", signature, 0, sequence, version, 0, 0, alignment, log_at, log_size, log_header)
    assert len(raw) == 46
    return crc_with(raw, 4, crc)


def object_entry(kind: int, offset: int, size: int, flags: int = 1, crc: int | None = None) -> bytes:
    """An object table entry (2.5)."""
    return crc_with(struct.pack("<BIQIB", kind, 0, offset, size, flags), 1, crc)


def object_table(
    entries: Sequence[bytes], *, size: int = PAGE, chain: bytes | None = None, signature: int = 0x01110001,
    count: int | None = None,
) -> bytes:  # fmt: skip
    """An object table of ``size`` bytes; the last slot is ``chain`` or empty."""
    slots = (size - 8) // 18
    empty = object_entry(0, 0, 0, 0)
    body = [*entries, *[empty] * (slots - 1 - len(entries)), chain or empty]
    assert len(body) == slots
    return (struct.pack("<II", signature, slots if count is None else count) + b"".join(body)).ljust(size, b"\0")


def key_entry(
    kind: int,
    name: str | bytes,
    data: bytes = b"",
    *,
    parent: tuple[int, int] = (0, 0),
    sequence: int = 1,
    flags: int = 0,
    slack: bytes = b"",
    size: int | None = None,
    crc: int | None = None,
    nul: bool = True,
) -> bytes:
    """A key table entry (2.7); ``data`` is what stands after the name, its length prefix included."""
    raw_name = name.encode() if isinstance(name, str) else name
    raw_name += b"\0" if nul else b""
    length = 21 + len(raw_name) + len(data) + len(slack) if size is None else size
    raw = struct.pack("<BBIHIIIB", kind, flags, length, *parent, 0, sequence, len(raw_name)) + raw_name + data
    return crc_with(raw, 12, crc) + slack


def prefixed(data: bytes) -> bytes:
    """Data of an inline string or array."""
    return struct.pack("<I", len(data)) + data


def pointer(size: int, offset: int) -> bytes:
    """Data of a value that lies in a file object."""
    return struct.pack("<IQ", size, offset)


def node_data(following: int = 1) -> bytes:
    """Data of a node."""
    return struct.pack("<QI", 0, following)


def key_table(
    index: int,
    entries: Sequence[bytes],
    *,
    sequence: int = 1,
    size: int = PAGE,
    crc: int | None = None,
    signature: int = 2,
    free_crc: int = 0,
) -> bytes:
    """A key table; what is left becomes one free entry with garbage in it, as Windows leaves it."""
    head = crc_with(struct.pack("<HHHI", signature, index, sequence, 0), 6, crc)
    body = b"".join(entries)
    rest = size - len(head) - len(body)
    if rest:
        assert rest > 21, "give the last entry slack instead"
        body += struct.pack("<BBIHIIIB", FREE, 0xFD, rest, 7, 0xFDFDFDFD, free_crc, 0xFDFDFDFD, 0).ljust(rest, b"\xfd")
    return head + body


def replay_log(
    writes: Sequence[tuple[int, bytes]] = (),
    *,
    count: int | None = None,
    maximum: int = 145,
    signature: int = 0x01110003,
    crc: int | None = None,
    bad_entry: int | None = None,
    bad_payload: int | None = None,
) -> bytes:
    """A replay log (2.11) with these (destination, payload) writes; ``bad_*`` spoil one checksum."""
    head = struct.pack("<IIIBIBQII", signature, 0, len(writes) if count is None else count, 0, maximum, 0, 0, 0, 0)
    assert len(head) == 34
    entries, payloads, at = b"", b"", PAGE
    for number, (destination, payload) in enumerate(writes):
        payload_crc = zlib.crc32(payload) ^ (1 if number == bad_payload else 0)
        raw = struct.pack("<QIQII", destination, len(payload), at, 0, payload_crc)
        entries += crc_with(raw, 20, 0x12345678 if number == bad_entry else None)
        payloads += payload
        at += len(payload)
    return (crc_with(head, 4, crc) + entries).ljust(PAGE, b"\0") + payloads


@dataclass
class Container:
    """A HyperVStorage file: key tables by place, file objects behind them, everything else around.

    ``build`` puts header copies at 0 and 0x1000, the object table at 0x2000, then the key tables and the file objects in
    the order given, and the replay log at the end.
    """

    key_tables: list[bytes] = field(default_factory=list)
    file_objects: list[bytes] = field(default_factory=list)
    headers: tuple[bytes, bytes] | None = None
    object_entries: list[bytes] | None = None
    first_table: bytes | None = None
    log: bytes | None = None
    tables_per_chain: int = 226

    def places(self) -> tuple[list[int], list[int], int]:
        """Offsets of the key tables, of the file objects, and of the replay log."""
        at = 0x3000
        tables = []
        for table in self.key_tables:
            tables.append(at)
            at += len(table)
        objects = []
        for content in self.file_objects:
            objects.append(at)
            at += -(-len(content) // PAGE) * PAGE
        return tables, objects, at

    def default_entries(self) -> list[bytes]:
        """The object table entries of everything, one free entry among them."""
        tables, objects, _ = self.places()
        entries = [object_entry(KEY_TABLE, at, len(raw)) for at, raw in zip(tables, self.key_tables, strict=True)]
        entries.append(object_entry(FREE_OBJECT, 0x7000000, PAGE))
        for at, raw in zip(objects, self.file_objects, strict=True):
            entries.append(object_entry(FILE_OBJECT, at, -(-len(raw) // PAGE) * PAGE, flags=0))
        return entries

    def build(self) -> bytes:
        """The file."""
        tables, objects, log_at = self.places()
        copies = self.headers or (header(2, log_at), header(1, log_at))
        entries = self.default_entries() if self.object_entries is None else self.object_entries
        content = bytearray(log_at)
        content[0 : len(copies[0])] = copies[0]
        content[0x1000 : 0x1000 + len(copies[1])] = copies[1]
        first = object_table(entries) if self.first_table is None else self.first_table
        content[0x2000:0x3000] = first
        for at, raw in [*zip(tables, self.key_tables, strict=True), *zip(objects, self.file_objects, strict=True)]:
            content[at : at + len(raw)] = raw
        return bytes(content) + (replay_log() if self.log is None else self.log)

    def write(self, path: Path) -> Path:
        """The file on disk."""
        path.write_bytes(self.build())
        return path


def small_tree() -> list[bytes]:
    """Entries of a table with index 1: a value of each type and a node with one child; a valid store on its own."""
    entries = [
        key_entry(INT, "int", struct.pack("<q", -5), sequence=1),
        key_entry(UINT, "uint", struct.pack("<Q", 1 << 63), sequence=2, slack=b"\xfd" * 12),
        key_entry(DOUBLE, "double", struct.pack("<d", 1.5), sequence=3),
        key_entry(STRING, "string", prefixed("häh".encode("utf-16-le")), sequence=4, slack=b"\0" * 7),
        key_entry(STRING, "terminated", prefixed("a\0".encode("utf-16-le")), sequence=5),
        key_entry(ARRAY, "array", prefixed(b"\1\2\3"), sequence=6),
        key_entry(BOOL, "bool", struct.pack("<i", 1), sequence=7),
    ]
    place = 10 + sum(map(len, entries))
    entries.append(key_entry(NODE, "node", node_data(2), sequence=8))
    entries.append(key_entry(INT, "child", struct.pack("<q", 7), parent=(1, place)))
    return entries
