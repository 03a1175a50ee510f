"""Opens a ``.vmrs`` file, or what is left of a damaged one."""

from __future__ import annotations

from ...containers.hvstorage.store import Store
from ...errors import VmSavedStateError
from ...files.source import Source
from ...findings import FindingLog
from ...snapshot import Snapshot
from ..detect import Inputs
from .reader import read_snapshot


def open_source(source: Source, inputs: Inputs, log: FindingLog) -> Snapshot:
    """The snapshot in a HyperVStorage file; takes over the source.

    Where the container is damaged so that this fails, the snapshot is of what is left, unless ``inputs.salvage`` or a
    strict log forbids it.
    """
    container_read = False
    try:
        store = Store(source, log)
        container_read = True
        return read_snapshot(store, log, format_name="vmrs", files=(source.path,), close=source.close)
    except VmSavedStateError:
        if log.strict or not inputs.salvage:
            raise
        from .salvage import is_damaged, salvage

        # With findings of its own: what the tables that are in force lack may be found elsewhere in the file.
        left = salvage(source, FindingLog()) if not container_read or is_damaged(log) else None
        if left is None:
            raise
        return left
