"""The envelope of the partition state and the stream of chunks in it (format specification, 6.1 to 6.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import EncryptedStateError
from ...findings import FindingLog
from .layout import partition_state as layout
from .layout.partition_state import ChunkId


class Blob(NamedTuple):
    """The partition state value: its bytes, and where they stand for messages."""

    data: bytes
    file: str
    offset: int
    log: FindingLog

    def damage(self, code: str, at: int, message: str, **values: object) -> None:
        """A damage finding at byte ``at`` of the blob."""
        self.log.damage(code, self.file, self.offset + at, f"partition state: {message}", **values)

    def note(self, code: str, at: int, message: str, **values: object) -> None:
        """A note at byte ``at`` of the blob."""
        self.log.note(code, self.file, self.offset + at, f"partition state: {message}", **values)


MAX_CHUNKS = 1 << 20  # 30 per processor and trust level in real states


class Chunk(NamedTuple):
    """One chunk of the stream: its id, the offset of its header in the blob, and what follows the header."""

    id: int
    offset: int
    data: bytes

    @property
    def name(self) -> str:
        """Name in the catalogue, in lower case."""
        return ChunkId(self.id).name.lower() if self.id in layout.KNOWN_CHUNKS else "unknown"


def read_envelope(blob: Blob) -> tuple[int, int]:
    """(start, end) of the chunk stream in the blob, bytes.

    Raises EncryptedStateError where the sizes make no sense: the one sign of an encrypted state that is known
    (section 7).
    """
    size = len(blob.data)
    if size < layout.DESCRIPTOR.size:
        raise _implausible(blob, f"it has only {size:#x} bytes")
    descriptor, header, total = layout.DESCRIPTOR.unpack_from(blob.data)
    if descriptor != layout.DESCRIPTOR.size or header < descriptor or header + layout.ITEM.size > size:
        raise _implausible(blob, f"its sizes are {descriptor:#x}, {header:#x} and {total:#x} in {size:#x} bytes")
    if total > size:
        blob.damage(
            "partition.envelope.short",
            16,
            "the value is shorter than its descriptor says",
            found=size,
            expected=f"{total:#x}",
        )
    if total < header + layout.ITEM.size:
        raise _implausible(blob, f"its total size {total:#x} is smaller than its header {header:#x}")
    _check_items(blob, header, total)
    return header + layout.ITEM.size, min(total, size)


def _check_items(blob: Blob, header: int, total: int) -> None:
    """The header items of real blobs; OpenVMM writes none, and zeros for the last item's header."""
    at = layout.DESCRIPTOR.size
    while at + layout.ITEM.size <= header:
        signature, _tag, own, size = layout.ITEM.unpack_from(blob.data, at)
        if signature != layout.ITEM_SIGNATURE or own != layout.ITEM.size:
            blob.note("partition.envelope.signature", at, "header item without its signature", found=signature.hex())
            return
        at += own + size
    if at != header:
        blob.note(
            "partition.envelope.items", at, "header items do not fill the header", found=at, expected=f"{header:#x}"
        )
    signature, _tag, own, size = layout.ITEM.unpack_from(blob.data, header)
    room = min(total, len(blob.data)) - header - layout.ITEM.size
    if signature == layout.ITEM_SIGNATURE and (own != layout.ITEM.size or size != room):
        blob.note(
            "partition.envelope.last-item",
            header,
            "the last item's sizes do not fit the value",
            found=f"{own:#x}, {size:#x}",
            expected=f"0x10, {room:#x}",
        )


def read_chunks(blob: Blob, start: int, end: int) -> Iterator[Chunk]:
    """The chunks up to and with Epilog; a stream that breaks off is damage, what came before it counts."""
    at = start
    for count in itertools.count():
        if at + layout.CHUNK.size > end:
            blob.damage("partition.stream.epilog", at, "the chunk stream ends without Epilog")
            return
        number, size = layout.CHUNK.unpack_from(blob.data, at)
        data_at = at + layout.CHUNK.size
        if at == start and (number != ChunkId.PROLOG or size != layout.PROLOG_SIZE):
            raise _implausible(blob, f"its first chunk is {number:#x} of {size:#x} bytes instead of a Prolog of 0xfe0")
        if count == MAX_CHUNKS or (number == ChunkId.PROLOG and at != start):
            # Zeros read as one Prolog after another: a broken stream must not be walked to the end of a huge value.
            blob.damage(
                "partition.stream.count", at, "too many chunks, or a second Prolog: the rest is not read", found=number
            )
            return
        if data_at + size > end:
            blob.damage(
                "partition.stream.chunk-size", at, f"chunk {number:#x} leaves the blob, the rest is lost", found=size
            )
            return
        yield Chunk(number, at, blob.data[data_at : data_at + size])
        if number == ChunkId.EPILOG:
            return
        at = data_at + size


def _implausible(blob: Blob, reason: str) -> EncryptedStateError:
    return EncryptedStateError(
        f"the partition state is encrypted or damaged: {reason}",
        file=blob.file,
        offset=blob.offset,
        remedy="encrypted saved states (shielded VMs, encryption support switched on) can only be read on their host",
    )
