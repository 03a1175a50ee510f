"""The kinds of saved machine that can be opened, told apart by content, never by name (format specification, 1)."""

from __future__ import annotations

from ..collector import paused_collector
from ..errors import FormatError
from ..findings import FindingLog
from ..hvstorage.header import has_signature as is_hvstorage
from ..hvstorage.store import Store
from ..keytree import KeyTree
from ..legacy.reader import LegacyStore
from ..legacy.reader import has_signature as is_legacy
from ..snapshot import Snapshot
from ..source import PathArgument, Source


def open_snapshot(path: PathArgument, companion: PathArgument | None, log: FindingLog) -> Snapshot:
    """Open whatever saved machine ``path`` is; ``companion`` is the other file of a pair.

    Raises SourceError, FormatError and what the readers of each kind raise.
    """
    source = Source(path)
    try:
        with paused_collector():
            if is_hvstorage(source):
                from .hyperv.vmrs import open_vmrs

                return open_vmrs(source, log)
            if is_legacy(source):
                from .hyperv.pair import open_pair

                return open_pair(source, companion, log)
        raise _unknown(source)
    except BaseException:
        source.close()
        raise


def open_tree(path: PathArgument, log: FindingLog) -> KeyTree:
    """The keys of one file of either container, whether or not it holds a saved state.

    Raises SourceError, FormatError, CorruptFileError.
    """
    source = Source(path)
    try:
        with paused_collector():
            if is_hvstorage(source):
                return Store(source, log)
            if is_legacy(source):
                return LegacyStore((source,), log)
        raise _unknown(source)
    except BaseException:
        source.close()
        raise


def _unknown(source: Source) -> FormatError:
    if source.size == 0:
        return FormatError(
            "the file is empty", file=source.path, remedy="the copy may have failed; copy it from its host again"
        )
    begin = source.read(0, min(8, source.size)).hex(" ")
    if source.path.lower().endswith((".bin", ".vsv")):
        remedy = (
            "only .bin/.vsv files of VM version 5.0 (Server 2012 R2) can be read, not those of Server 2008/2012, and "
            "not the .bin that is preallocated while a VM runs"
        )
    else:
        remedy = "name a .vmrs file, or one file of a .bin/.vsv pair, that Hyper-V wrote"
    return FormatError(f"this is not a saved state: it begins with {begin}", file=source.path, offset=0, remedy=remedy)
