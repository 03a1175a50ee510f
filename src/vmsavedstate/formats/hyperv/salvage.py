"""What is left of a ``.vmrs`` whose container is damaged: memory blocks that are there, and registers if they are.

Nothing is guessed: a block of memory counts where a key names it, and has the guest addresses that the map of memory gives
it. Where that map is lost, block N is shown at N MiB, and a finding says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import groupby

from ...containers.hvstorage.salvage import SalvagedStore
from ...containers.keytree import KeyEntry
from ...errors import VmSavedStateError
from ...files.source import Source
from ...findings import FindingLog, Severity
from ...snapshot import MemoryRange, Snapshot
from .keys import numbered
from .layout import keys as paths
from .layout import memory as layout
from .layout.keys import LEGACY, MODERN, Schema
from .partition import PartitionState, read_partition_state
from .ram_blocks import RamBlocks
from .reader import MAX_PARTITION_STATE, memory_ranges, report_missing_blocks, report_same_names, text_of, vm_version
from .screen import load_screen

CONTAINER = "hvs."  # findings of the container begin with it


def is_damaged(log: FindingLog) -> bool:
    """Whether the container is damaged: a state that is complete and refused for another reason is not salvaged."""
    return any(item.severity is Severity.DAMAGE and item.code.startswith(CONTAINER) for item in log)


def salvage(source: Source, log: FindingLog) -> Snapshot | None:
    """The snapshot of what is left, None where no memory is: the error that led here is then the answer."""
    tree = SalvagedStore(source, log)
    schema = max((MODERN, LEGACY), key=lambda item: len(numbered(tree, item.blocks_parent, item.blocks_prefix)))
    blocks = numbered(tree, schema.blocks_parent, schema.blocks_prefix)
    held = {number: entry for number, entry in blocks.items() if entry.value_offset < source.size}
    if not held:
        return None
    partition, reason = _partition(tree, schema, log)
    ranges = _ranges(tree, schema, blocks, log)
    report_same_names(tree, schema, log)
    report_missing_blocks(ranges, blocks, log, source.path)
    left, processors = tree.salvage, 0 if partition is None else len(partition.processors)
    log.damage(
        "state.salvaged", source.path, None,
        f"the file is damaged, what is left of it is shown: {len(held)} blocks of memory, {processors} processors, "
        f"{left.present} of {left.objects} objects that its tables name; {left.scanned} key tables were found by reading "
        "the whole file",
    )  # fmt: skip
    return Snapshot(
        format="vmrs",
        files=(source.path,),
        log=log,
        vm_version=_version(tree, log, source.path),
        saved_state_type=text_of(tree, paths.SAVED_STATE_TYPE, log),
        writer_version=text_of(tree, paths.WRITER_VERSION, log),
        store=tree,
        processors=() if partition is None else partition.processors,
        enabled_vtls=(0,) if partition is None else partition.enabled_vtls,
        guest_os_ids=None if partition is None else partition.os_ids,
        vendor=None if partition is None else partition.vendor,
        cpuid=() if partition is None else partition.cpuid,
        nested=partition is not None and partition.nested,
        ranges=ranges,
        backing=RamBlocks(blocks, log),
        load_screen=partial(load_screen, tree, schema.screen),
        chunks=() if partition is None else partition.chunks,
        close=source.close,
        no_processors=reason,
        salvaged=True,
    )


def _partition(tree: SalvagedStore, schema: Schema, log: FindingLog) -> tuple[PartitionState | None, str | None]:
    """The partition state as far as it is in the file, or why there is none."""
    entry = tree.find(schema.partition_state)
    if entry is None or entry.type != "array":
        return None, "the file is damaged, and its partition state is lost"
    size = min(entry.size, entry.source.size - entry.value_offset, MAX_PARTITION_STATE)
    if size <= 0:
        return None, "the file is damaged, and its partition state is behind its end"
    try:
        data = entry.source.read(entry.value_offset, size)
        return read_partition_state(data, entry.source.path, entry.value_offset, log), None
    except VmSavedStateError as error:
        return None, f"the file is damaged, and so is its partition state: {error.message}"


def _ranges(
    tree: SalvagedStore, schema: Schema, blocks: Mapping[int, KeyEntry], log: FindingLog
) -> tuple[MemoryRange, ...]:
    ranges = memory_ranges(tree, schema, log)
    if ranges:
        return ranges
    log.damage(
        "memory.map.lost", tree.source.path, None,
        "the map of memory is lost (RamMemoryBlock): block N is shown at N MiB, which is its guest physical address only "
        "up to the first hole of the guest's memory",
    )  # fmt: skip
    numbers = [number for number in sorted(blocks) if (number + 1) * layout.BLOCK_PAGES <= layout.MAX_PAGE]
    runs = [list(run) for _, run in groupby(enumerate(numbers), key=lambda item: item[1] - item[0])]
    return tuple(
        MemoryRange(run[0][1] * layout.BLOCK_PAGES, len(run) * layout.BLOCK_PAGES, run[0][1] * layout.BLOCK_PAGES)
        for run in runs
    )


def _version(tree: SalvagedStore, log: FindingLog, file: str) -> int | None:
    try:
        return vm_version(tree, log, (file,))
    except VmSavedStateError:
        return None
