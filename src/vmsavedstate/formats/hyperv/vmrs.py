"""Opens a ``.vmrs`` file."""

from __future__ import annotations

from ...findings import FindingLog
from ...hvstorage.store import Store
from ...snapshot import Snapshot
from ...source import Source
from .reader import read_snapshot


def open_vmrs(source: Source, log: FindingLog) -> Snapshot:
    """The snapshot in a HyperVStorage file; takes over the source."""
    store = Store(source, log)
    return read_snapshot(store, log, format_name="vmrs", files=(source.path,), close=source.close)
