"""From a tree of keys to a snapshot: the same for ``.vmrs`` and for the ``.bin``/``.vsv`` pair."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, islice

from ...containers.hvstorage.numbered import NumberedKeys
from ...containers.keytree import KeyEntry, KeyTree
from ...errors import CorruptFileError, FormatError, GuestMemoryNotFoundError, PartitionStateNotFoundError
from ...files.ranges import Coverage
from ...findings import FindingLog, Severity
from ...remedies import CONFIGURATION, LIST_FINDINGS, USE_INTACT_COPY, Remedy
from ...snapshot import MemoryRange, Snapshot
from .keys import choose_schema, numbered
from .layout import keys as paths
from .layout import memory as layout
from .layout.keys import Schema
from .partition import read_partition_state
from .ram_blocks import RamBlocks
from .ram_metadata import read_metadata
from .screen import load_screen

LAST_REJECTED_VERSION = 0x0100  # section 3
MAX_TEXT = 64 << 10  # bytes of a type, a name, a version
MAX_PARTITION_STATE = 1 << 27  # 13 KiB per processor in real states; nothing is allocated by an unchecked size


def read_snapshot(
    tree: KeyTree,
    log: FindingLog,
    *,
    format_name: str,
    files: Sequence[str],
    close: Callable[[], None],
    known_version: int | None = None,
) -> Snapshot:
    """Everything a saved state holds. ``known_version`` is given where the container's header holds it.

    Raises PartitionStateNotFoundError, GuestMemoryNotFoundError, NoVirtualProcessorError, EncryptedStateError,
    CorruptFileError.
    """
    schema = choose_schema(tree)
    blob = _partition_entry(tree, schema, files)
    version = known_version if known_version is not None else vm_version(tree, log, files)
    _refuse_old(version, files[0])
    if blob.size > MAX_PARTITION_STATE:
        raise CorruptFileError(
            f"the partition state claims {blob.size:#x} bytes", file=blob.source.path, offset=blob.offset
        )
    partition = read_partition_state(blob.read(), blob.source.path, blob.value_offset, log)
    blocks = numbered(tree, schema.blocks_parent, schema.blocks_prefix)
    ranges = memory_ranges(tree, schema, log)
    if not ranges:
        raise GuestMemoryNotFoundError(
            "the saved state names no guest memory (no usable RamMemoryBlock value)",
            file=files[0],
            remedy=LIST_FINDINGS,
        )
    report_same_names(tree, schema, log)
    report_missing_blocks(ranges, blocks, log, files[0])
    return Snapshot(
        format=format_name,
        files=tuple(files),
        log=log,
        vm_version=version,
        saved_state_type=text_of(tree, paths.SAVED_STATE_TYPE, log),
        writer_version=text_of(tree, paths.WRITER_VERSION, log),
        store=tree,
        processors=partition.processors,
        enabled_vtls=partition.enabled_vtls,
        guest_os_ids=partition.os_ids,
        vendor=partition.vendor,
        cpuid=partition.cpuid,
        nested=partition.nested,
        ranges=ranges,
        backing=RamBlocks(blocks, log),
        load_screen=partial(load_screen, tree, schema.screen),
        chunks=partition.chunks,
        close=close,
    )


def _partition_entry(tree: KeyTree, schema: Schema, files: Sequence[str]) -> KeyEntry:
    blob = tree.find(schema.partition_state)
    if blob is not None and blob.type == "array":
        return blob
    damage = [item for item in tree.findings if item.severity is Severity.DAMAGE]
    if damage:  # the saved state may have been in what is lost
        first = next((item for item in damage if item.code == "hvs.truncated"), damage[0])
        number = f"{len(damage)} finding{'s' * (len(damage) > 1)}"
        raise CorruptFileError(
            f"the file is damaged ({number}), and what is left of it names no saved state; {first.message}",
            file=files[0],
            offset=first.offset,
            remedy=USE_INTACT_COPY,
        )
    if "/savedstate" not in tree and "/configuration" in tree and files[0].lower().endswith(".vmcx"):
        remedy: str | Remedy = CONFIGURATION
    else:
        remedy = (
            "production checkpoints and VMs that are running or off hold no memory: save the VM (Save-VM), or take a "
            "standard checkpoint"
        )
    raise PartitionStateNotFoundError("the file holds no saved state", file=files[0], remedy=remedy)


def vm_version(tree: KeyTree, log: FindingLog, files: Sequence[str]) -> int:
    """VmVersion, or properties/version where it is missing (section 11). Raises CorruptFileError without either."""
    saved = _integer(tree, paths.VM_VERSION)
    configured = _integer(tree, paths.CONFIGURED_VERSION)
    if saved is None and configured is None:
        raise CorruptFileError(
            f"no key holds the VM version ({paths.VM_VERSION}, {paths.CONFIGURED_VERSION})", file=files[0]
        )
    if saved is None:
        log.damage(
            "state.version.missing",
            files[0],
            None,
            f"{paths.VM_VERSION} is missing, {paths.CONFIGURED_VERSION} is used",
        )
    elif configured is not None and configured != saved:
        log.damage(
            "state.version.differs",
            files[0],
            None,
            f"{paths.VM_VERSION} and {paths.CONFIGURED_VERSION} disagree, the first is used",
            found=saved,
            expected=f"{configured:#x}",
        )
    version = saved if saved is not None else configured
    assert version is not None
    if not 0 <= version <= 0xFFFF:
        log.damage(
            "state.version.range", files[0], None, "the VM version is outside of its 16 bits", found=hex(version)
        )
        version &= 0xFFFF
    return version


def _refuse_old(version: int, file: str) -> None:
    if version <= LAST_REJECTED_VERSION:
        raise FormatError(
            f"VM version {version:#06x} is older than any published format",
            file=file,
            remedy="only states of VM version 5.0 (Server 2012 R2) and later can be read",
        )


def memory_ranges(tree: KeyTree, schema: Schema, log: FindingLog) -> tuple[MemoryRange, ...]:
    """The map of memory, empty where there is none."""
    found = numbered(tree, schema.metadata_parent, schema.metadata_prefix)
    entries: list[KeyEntry] = []
    while len(entries) in found:  # counted from 0 until one is missing (section 3)
        entries.append(found[len(entries)])
    for number in sorted(found)[len(entries) :]:
        log.damage(
            "memory.range.unreached", found[number].source.path, found[number].offset,
            f"{found[number].path} is not reached, number {len(entries)} is missing",
        )  # fmt: skip
    return read_metadata(entries, log)


def report_missing_blocks(
    ranges: Sequence[MemoryRange], blocks: Mapping[int, KeyEntry], log: FindingLog, file: str
) -> None:
    """One finding per run of block numbers that the metadata needs and the file lacks.

    Walks over the blocks that are there, never over a page count of the metadata, which may be absurd.
    """
    needed = Coverage()
    for item in ranges:
        last = (item.backing_page + item.page_count - 1) // layout.BLOCK_PAGES
        needed.add(item.backing_page // layout.BLOCK_PAGES, last + 1)
    numbers: Sequence[int] = blocks.numbers() if isinstance(blocks, NumberedKeys) else sorted(blocks)
    for first, end in needed.spans():
        low, high = bisect_left(numbers, first), bisect_left(numbers, end)
        if high - low == end - first:  # all of them
            continue
        expected = first
        for number in chain(islice(numbers, low, high), (end,)):
            if number > expected:
                one = number == expected + 1
                which = f"RamBlock{expected} is" if one else f"RamBlock{expected} to RamBlock{number - 1} are"
                message = f"{which} missing, that memory cannot be read"
                log.loss("memory.block.missing", file, None, message, found=f"{len(numbers)} blocks")
            expected = number + 1


def report_same_names(tree: KeyTree, schema: Schema, log: FindingLog) -> None:
    """Keys of a saved state are unique (2.9): of two blocks of one number nothing says which is right."""
    for path in {schema.blocks_parent, schema.metadata_parent}:
        node = tree.find(path)
        names = tree.names_below(path)
        if node is None:
            continue
        again = [keys[number] for keys in node.numbered for number in keys.again]
        if not again and len(names) == len(node.singles):
            continue
        for child in [*node.singles, *again]:
            if child.type == "array" and names.get(child.name) is not child:
                log.damage(
                    "state.key.twice",
                    child.source.path,
                    child.offset,
                    f"a second key {child.shown}, the first one counts",
                )


def _integer(tree: KeyTree, path: str) -> int | None:
    entry = tree.find(path)
    if entry is None or entry.type not in ("int", "uint"):
        return None
    value = entry.value
    return value if isinstance(value, int) else None


def text_of(tree: KeyTree, path: str, log: FindingLog) -> str | None:
    """A value that is text, None where there is none or it cannot be read."""
    entry = tree.find(path)
    if entry is None or entry.type != "string":
        return None
    if entry.size > MAX_TEXT:
        log.damage(
            "state.value.size", entry.source.path, entry.offset, f"{entry.shown} is too long for what it is, it is left out",
            found=entry.size, expected=f"{MAX_TEXT:#x} bytes at most",
        )  # fmt: skip
        return None
    try:
        value = entry.value
    except CorruptFileError as error:  # the rest can be read without it
        log.loss("state.value.unreadable", error.file, error.offset, error.message)
        return None
    return value if isinstance(value, str) else None
