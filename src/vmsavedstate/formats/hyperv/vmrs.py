"""Opens a ``.vmrs`` file."""

from __future__ import annotations

from ...containers.hvstorage.store import Store
from ...files.source import Source
from ...findings import FindingLog
from ...snapshot import Snapshot
from ..detect import Inputs
from .reader import read_snapshot


def open_source(source: Source, inputs: Inputs, log: FindingLog) -> Snapshot:
    """The snapshot in a HyperVStorage file; takes over the source."""
    store = Store(source, log)
    return read_snapshot(store, log, format_name="vmrs", files=(source.path,), close=source.close)
