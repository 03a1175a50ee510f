"""Whole saved states from parts: a key tree with any partition state, metadata and blocks, faulty ones included."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.partition import metadata, simple_blob
from vmsavedstate import StoreWriter

BLOCK = 0x100000


def write_state(
    path: Path,
    *,
    blob: bytes | None = b"",
    ranges: Sequence[bytes] | None = None,
    blocks: Mapping[int, bytes] | None = None,
    version: int | None = 0x0A00,
    properties: int | None = 0x0A00,
    extra: Sequence[tuple[str, str, Any]] = (),
) -> Path:
    """A ``.vmrs`` with one processor and one block of memory, unless told otherwise; None leaves a key out."""
    with StoreWriter(path, overwrite=True) as writer:
        if properties is not None:
            writer.set("/configuration/properties/version", "int", properties)
        if version is not None:
            writer.set("/savedstate/VmVersion", "int", version)
        if blob is not None:
            writer.set("/savedstate/savedVM/partition_state", "array", blob or simple_blob())
        for number, value in enumerate([metadata(256)] if ranges is None else ranges):
            writer.set(f"/savedstate/RamMemoryBlock{number}", "array", value)
        for number, content in ({0: bytes(BLOCK)} if blocks is None else blocks).items():
            writer.set(f"/savedstate/RamBlock{number}", "array", content)
        for key, kind, value in extra:
            writer.set(key, kind, value)
    return path


def numbered_pages(first: int, count: int = 256) -> bytes:
    """A plain block whose every page is filled with its own 8-byte number: no two pages are alike."""
    return b"".join(struct.pack("<Q", 0xA5A5_0000_0000 + first + page) * 512 for page in range(count)).ljust(
        BLOCK, b"\0"
    )


def legacy_file(values: Mapping[str, tuple[int, bytes]], *, version: int = 0x0500) -> bytes:
    """A ``.bin`` or ``.vsv`` (section 8): name -> (type, content); up to 8 bytes stand in the index entry."""
    content = bytearray(0x1000)
    names = b""
    entries = []
    for name, (kind, data) in values.items():
        raw_name = name.encode() + b"\0"
        if len(data) <= 8:
            allocated, place = 0, int.from_bytes(data.ljust(8, b"\0"), "little")
        else:
            large = len(data) >= 0x1000
            allocated = -(-len(data) // 0x1000) * 0x1000 if large else len(data)
            place = len(content)
            content += data.ljust(allocated, b"\0")
        entries.append(struct.pack("<IHBBIIQ", len(names), len(raw_name), 1, kind, allocated, len(data), place))
        names += raw_name
    content += bytes(-len(content) % 0x1000)
    capacity = 0x400
    index_at = len(content)
    names_at = index_at + capacity * 24
    content += b"".join(entries).ljust(capacity * 24, b"\0") + names.ljust(0x4000, b"\0")
    head = struct.pack("<IIIIQQII", 0x02182003, version, 1, capacity, index_at, names_at, 0x4000, len(names))
    content[: len(head)] = head
    return bytes(content)


def legacy_pair(folder: Path, *, blocks: int = 1, pages: int | None = None, name: str = "vm") -> tuple[Path, Path]:
    """A matching ``.bin`` and ``.vsv``."""
    memory = {f"RamBlock/{number}/": (1, numbered_pages(256 * number)) for number in range(blocks)}
    state = {
        "/savedVM/partition_state": (1, simple_blob()),
        "RamMemoryBlock/0/": (1, metadata(256 * blocks if pages is None else pages)),
        "/savedstate/VmwpVersion": (5, "6.3.9600".encode("utf-16-le")),
        "/savedVM/topology/low_mmio_gap_mb": (2, (128).to_bytes(8, "little")),
        "/configuration/flag": (3, b"\1\0\0\0"),
        "/configuration/tiny": (1, b"\1\0\2\0"),
        "/configuration/empty": (1, b""),
    }
    bin_path, vsv_path = folder / f"{name}.bin", folder / f"{name}.vsv"
    bin_path.write_bytes(legacy_file(memory))
    vsv_path.write_bytes(legacy_file(state))
    return bin_path, vsv_path


def damaged_state(path: Path) -> Path:
    """Three blocks of pages with numbers; the second is missing from the file."""
    return write_state(path, ranges=[metadata(768)], blocks={0: numbered_pages(0), 2: numbered_pages(512)})
