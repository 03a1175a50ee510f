"""An independent check of every rule a writer must obey (format specification, section 9), on the bytes of a file.

Written from the specification; it uses nothing of the package. Each breach is named by its rule.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import Any

BLOCK = 0x100000


def _crc(raw: bytes, at: int) -> int:
    return zlib.crc32(raw[:at] + bytes(4) + raw[at + 4 :])


class StructureCheck:
    """Walks one file; ``problems`` lists what breaks a rule, ``values`` what it holds: path -> (type, bytes)."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.problems: list[str] = []
        self.values: dict[str, tuple[int, bytes]] = {}
        self._objects: dict[int, int] = {}
        self._key_tables: list[tuple[int, int]] = []
        self._entries: dict[tuple[int, int], dict[str, Any]] = {}
        self._headers()
        self._object_tables()
        self._key_entries()
        self._tree()

    def _rule(self, number: int, holds: bool, text: str) -> None:
        if not holds:
            self.problems.append(f"rule {number}: {text}")

    def _headers(self) -> None:
        copies = []
        for at in (0, 0x1000):
            raw = self.raw[at : at + 46]
            fields = struct.unpack("<IIHIIIIQQI", raw)
            self._rule(1, fields[0] == 0x01282014 and fields[1] == _crc(raw, 4), f"header at {at:#x}")
            copies.append(fields)
            self._rule(1, not any(self.raw[at + 46 : at + 0x1000]), f"rest of the header page at {at:#x}")
        self._rule(1, copies[0][2] != copies[1][2], "the copies have one sequence")
        newest = max(copies, key=lambda copy: copy[2])
        self._rule(1, newest[3] == 0x0400 and newest[6] == 0x1000, "format version and alignment")
        at, area = newest[7], newest[9]
        raw = self.raw[at : at + 34]
        self._rule(2, len(raw) == 34, "the replay log lies in the file")
        signature, crc, count, _, maximum, *rest = struct.unpack("<IIIBIBQII", raw)
        sound = signature == 0x01110003 and crc == _crc(raw, 4) and count == 0 and maximum == (area - 34) // 28 == 145
        self._rule(2, sound and not any(rest), "an empty, valid replay log")
        self._rule(2, at % 0x1000 == 0, "the log is aligned")

    def _object_tables(self) -> None:
        at, size, seen = 0x2000, 0x1000, set()
        spans = [(0, 0x2000)]
        while at:
            self._rule(3, at not in seen, "loop of object tables")
            seen.add(at)
            spans.append((at, size))
            signature, count = struct.unpack_from("<II", self.raw, at)
            self._rule(3, signature == 0x01110001 and count == (size - 8) // 18, f"object table at {at:#x}")
            following = (0, 0)
            for slot in range(count):
                raw = self.raw[at + 8 + 18 * slot : at + 26 + 18 * slot]
                kind, crc, offset, length, flags = struct.unpack("<BIQIB", raw)
                self._rule(3, crc == _crc(raw, 1), f"checksum of slot {slot} of the table at {at:#x}")
                self._rule(14, flags == (1 if kind else 0), f"flag of slot {slot}")
                self._rule(3, (kind == 1) <= (slot == count - 1), "a chain stands in the last slot only")
                self._rule(9, offset % 0x1000 == 0 and length % 0x1000 == 0, f"alignment of slot {slot}")
                if kind:
                    self._rule(9, offset + length <= len(self.raw) or kind == 3, f"slot {slot} lies in the file")
                if kind == 1:
                    following = (offset, length)
                elif kind == 2:
                    self._key_tables.append((offset, length))
                elif kind == 3:
                    self._objects[offset] = length
                else:
                    self._rule(3, raw[5:] == bytes(13), f"slot {slot} is empty or of a kind nobody writes: {kind}")
            at, size = following
        spans += [*self._key_tables, *self._objects.items()]
        spans.sort()
        for (first, length), (second, _) in pairwise(spans):
            self._rule(9, first + length <= second, f"objects at {first:#x} and {second:#x} overlap")

    def _key_entries(self) -> None:
        indexes = []
        for at, size in self._key_tables:
            signature, index, _, crc = struct.unpack_from("<HHHI", self.raw, at)
            self._rule(4, signature == 2, f"key table at {at:#x}")
            self._rule(8, crc == _crc(self.raw[at : at + 10], 6), f"header checksum of key table {index}")
            indexes.append(index)
            offset = 10
            while offset + 21 < size:
                offset = self._key_entry(at, index, offset)
            self._rule(5, offset == size, f"key table {index} is filled exactly")
        self._rule(4, sorted(indexes) == list(range(1, len(indexes) + 1)), f"indexes from 1: {indexes[:5]}")

    def _key_entry(self, table_at: int, index: int, offset: int) -> int:
        at = table_at + offset
        kind, flags, size, parent_table, parent_offset, crc, sequence, name_size = struct.unpack_from(
            "<BBIHIIIB", self.raw, at
        )
        if kind == 1:
            self._rule(6, crc == 0 and name_size == 0 and size > 21, f"free entry at {at:#x}")
            return offset + int(size)
        body = self.raw[at + 21 : at + size]
        name, data = body[:name_size], body[name_size:]
        external = bool(flags & 1)
        if external or kind == 9:
            length = 12
        elif kind in (6, 7):
            length = 4 + struct.unpack_from("<I", data)[0]
        else:
            length = {3: 8, 4: 8, 5: 8, 8: 4}[kind]
        meaningful = self.raw[at : at + 21] + name + data[:length]
        self._rule(8, crc == _crc(meaningful, 12), f"checksum of {name!r}")
        self._rule(5, len(data) - length <= 21, f"slack of {name!r}")
        self._rule(7, name.endswith(b"\0") and sequence > 0, f"name and sequence of {name!r}")
        value = data[:length]
        if external:
            count, where = struct.unpack("<IQ", value)
            self._rule(9, count >= 2048, f"{name!r} of {count} bytes should be inline")
            self._rule(9, self._objects.get(where, -1) == -(-count // 0x1000) * 0x1000, f"object of {name!r}")
            value = self.raw[where : where + count].ljust(count, b"\0")
        elif kind in (6, 7):
            value = value[4:]
            self._rule(9, len(value) < 2048, f"{name!r} of {len(value)} bytes should be a file object")
        self._entries[index, offset] = {
            "name": name[:-1].decode(), "kind": kind, "parent": (parent_table, parent_offset), "value": value,
            "sequence": sequence,
        }  # fmt: skip
        return offset + int(size)

    def _tree(self) -> None:
        children: dict[tuple[int, int], list[int]] = {}
        for place, entry in self._entries.items():
            parent = entry["parent"]
            children.setdefault(parent, []).append(entry["sequence"])
            above = self._entries.get(parent)
            self._rule(4, parent == (0, 0) or (above is not None and above["kind"] == 9), f"parent of {entry['name']}")
            path, at = "", place
            while at != (0, 0):
                path = f"/{self._entries[at]['name']}{path}"
                at = self._entries[at]["parent"]
            self.values[path] = (entry["kind"], entry["value"])
        for place, entry in self._entries.items():
            sequences = children.get(place, [])
            self._rule(7, sorted(sequences) == list(range(1, len(sequences) + 1)), f"sequences below {entry['name']}")
            if entry["kind"] == 9:
                following = struct.unpack("<QI", entry["value"])[1]
                self._rule(7, following == len(sequences) + 1, f"NextInsertionSequence of {entry['name']}")

    def check_saved_state(self) -> list[str]:
        """The rules 10 to 13 as well; all problems."""
        values = self.values
        versions = [values[path] for path in ("/savedstate/VmVersion", "/configuration/properties/version")]
        self._rule(10, versions[0][0] == 3 and versions[0] == versions[1], "VmVersion and properties/version")
        metadata, number = [], 0
        while f"/savedstate/RamMemoryBlock{number}" in values:
            metadata.append(values[f"/savedstate/RamMemoryBlock{number}"][1])
            number += 1
        self._rule(
            11, bool(metadata) and all(len(item) == 48 and item[:4] == b"\3\0\0\0" for item in metadata), "metadata"
        )
        last = max(sum(struct.unpack_from("<QQ", item, 8)) for item in metadata)
        blocks = [path for path in values if path.startswith("/savedstate/RamBlock")]
        self._rule(11, len(blocks) == -(-last // 256), f"{len(blocks)} blocks for {last} pages")
        for number in range(len(blocks)):
            content = values[f"/savedstate/RamBlock{number}"][1]
            self._rule(
                11, len(content) == BLOCK or (len(content) < BLOCK and content.endswith(b"\xff" * 4)), f"block {number}"
            )
        self._blob(values["/savedstate/savedVM/partition_state"][1])
        return self.problems

    def _blob(self, blob: bytes) -> None:
        descriptor, head, total = struct.unpack_from("<QQQ", blob)
        self._rule(12, (descriptor, head, total) == (24, 24, len(blob)), "descriptor")
        self._rule(12, not any(blob[24:40]), "sixteen zero bytes")
        chunks, at = [], 40
        while at < len(blob):
            number, size = struct.unpack_from("<II", blob, at)
            self._rule(13, not any(blob[at + 8 : at + 16]), "chunk header padding")
            chunks.append((number, size))
            at += 16 + size
        self._rule(13, at == len(blob), "no padding between chunks")
        self._rule(12, chunks[0] == (0, 4064) and chunks[-1] == (0xF0000000, 0), "Prolog first, Epilog last")
        numbers = [number for number, _ in chunks]
        self._rule(
            13, 0x20008000 in numbers and numbers.count(0x3001A000) >= numbers.count(0x30001000) > 0, "VTL chunks"
        )
