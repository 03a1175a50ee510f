"""Which format a file has, by its content and never by its name (format specification, 1): a table, a row per format."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from ..containers.collector import paused_collector
from ..containers.hvstorage.header import has_signature as is_hvstorage
from ..containers.keytree import KeyTree
from ..containers.legacy.signature import has_signature as is_legacy
from ..errors import CorruptFileError, FormatError, InvalidArgumentError, SourceError
from ..files.objects import FileArgument, open_evidence
from ..files.opening import PathArgument
from ..files.source import Source
from ..findings import FindingLog
from ..registers.values import GivenRegisters
from ..remedies import DUMP_HAS_NO_KEYS
from ..snapshot import Snapshot

ELF = b"\x7fELF"
ET_CORE = b"\4\0"


class Inputs(NamedTuple):
    """What a caller may give beside the file: the other file of a pair, and registers that a dump lacks.

    ``salvage`` is whether what is left of a damaged file may be opened.
    """

    companion: FileArgument | None = None
    registers: FileArgument | GivenRegisters | None = None
    salvage: bool = True


class Format(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the format, in messages for developers.
        recognises: whether a file is of this format, by its first bytes.
        reader: the module that reads it, imported when such a file is opened; its ``open_source`` takes the source, the
            inputs and the log, and takes over the source.
        takes: the inputs that make sense for it.
        keys: opens the file as a tree of keys, None where it has none.
    """

    name: str
    recognises: Callable[[Source], bool]
    reader: str
    takes: tuple[str, ...]
    keys: Callable[[Source, FindingLog], KeyTree] | None


def _is_elf(source: Source) -> bool:
    return source.size >= len(ELF) and source.read(0, len(ELF)) == ELF


def _legacy_keys(source: Source, log: FindingLog) -> KeyTree:
    from ..containers.legacy.reader import LegacyStore

    return LegacyStore((source,), log)


def _hvstorage_keys(source: Source, log: FindingLog) -> KeyTree:
    from ..containers.hvstorage.store import Store

    try:
        return Store(source, log)
    except CorruptFileError:
        if log.strict:
            raise
        from ..containers.hvstorage.salvage import SalvagedStore

        left = SalvagedStore(source, log)
        if not left.roots and not left.orphans:
            raise
        return left


# Also what a file is taken for whose header is lost.
VMRS = Format("vmrs", is_hvstorage, ".hyperv.vmrs", (), _hvstorage_keys)
# In this order: the signature of HyperVStorage is looked for in a second place as well, so it comes last.
FORMATS = (
    Format("qemu-elf", _is_elf, ".qemu_elf.reader", ("registers",), None),
    Format("bin+vsv", is_legacy, ".hyperv.pair", ("companion",), _legacy_keys),
    VMRS,
)
_UNWANTED = {
    "companion": "this file is complete in itself, it has no companion",
    "registers": "only dumps of QEMU take registers beside their own",
}


def open_snapshot(file: FileArgument, inputs: Inputs, log: FindingLog) -> Snapshot:
    """Open the saved machine at a path or behind a file object.

    Raises SourceError, FormatError, InvalidArgumentError for an input that the format does not take, and what the readers of
    each format raise.
    """
    source = open_evidence(file)
    try:
        with paused_collector():
            found = _format_of(source)
            for name, message in _UNWANTED.items():
                if getattr(inputs, name) is not None and name not in found.takes:
                    raise InvalidArgumentError(message, file=source.path, remedy="leave it out")
            reader = importlib.import_module(found.reader, __package__)
            snapshot: Snapshot = reader.open_source(source, inputs, log)
            return snapshot
    except BaseException:
        source.close()
        raise


def open_tree(file: FileArgument, log: FindingLog) -> KeyTree:
    """The keys of one file of either container, whether or not it holds a saved state.

    Raises SourceError, FormatError, CorruptFileError.
    """
    source = open_evidence(file)
    try:
        with paused_collector():
            found = _format_of(source)
            if found.keys is None:
                raise FormatError(
                    "this is an ELF file, which has no keys", file=source.path, offset=0,
                    remedy=DUMP_HAS_NO_KEYS,
                )  # fmt: skip
            return found.keys(source, log)
    except BaseException:
        source.close()
        raise


def is_evidence(path: PathArgument) -> bool:
    """Whether a file that is known stands at ``path``: of a format that can be read, any ELF core, or a kind that is
    refused.

    False where nothing can be read.
    """
    from ..containers.hvstorage.salvage import has_first_table
    from .refusals import refusal_of

    try:
        source = Source(path)
    except SourceError:
        return False
    try:
        if _is_elf(source):
            return source.size >= 18 and source.read(16, 2) == ET_CORE
        known = any(item.recognises(source) for item in FORMATS) or refusal_of(source) is not None
        return known or has_first_table(source)
    finally:
        source.close()


def _format_of(source: Source) -> Format:
    """The row for a file. Raises FormatError where there is none."""
    for item in FORMATS:
        if item.recognises(source):
            return item
    from ..containers.hvstorage.salvage import has_lost_header
    from .refusals import refusal_of, unknown_kind

    if refusal_of(source) is None and has_lost_header(source):
        return VMRS
    raise unknown_kind(source)
