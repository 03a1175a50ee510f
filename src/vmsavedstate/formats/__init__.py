"""The kinds of saved machine that can be opened, told apart by content, never by name (format specification, 1)."""

from __future__ import annotations

from ..collector import paused_collector
from ..errors import FormatError, InvalidArgumentError, SourceError
from ..findings import FindingLog
from ..hvstorage.header import has_signature as is_hvstorage
from ..hvstorage.store import Store
from ..keytree import KeyTree
from ..legacy.reader import LegacyStore
from ..legacy.reader import has_signature as is_legacy
from ..snapshot import GivenRegisters, Snapshot
from ..source import PathArgument, Source

__all__ = ["GivenRegisters", "is_core_dump", "open_snapshot", "open_tree"]

PACKED = {
    b"\xfd7zXZ": "xz",
    b"\x1f\x8b": "gzip",
    b"PK\3\4": "zip",
    b"7z\xbc\xaf": "7-Zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
ELF = b"\x7fELF"
ET_CORE = b"\4\0"
OTHER_DUMPS = {
    b"KDUMP   ": "a compressed dump of QEMU or makedumpfile: dump again as plain ELF (dump-guest-memory without -z, -l "
    "and -s; virsh dump --memory-only --format elf)",
    b"makedump": "a flattened dump of makedumpfile: unflatten it, and convert it to ELF",
    b"PAGEDU64": "a Windows crash dump, which debuggers open themselves",
    b"PAGEDUMP": "a Windows crash dump, which debuggers open themselves",
}


def open_snapshot(
    path: PathArgument, companion: PathArgument | None, registers: PathArgument | GivenRegisters | None, log: FindingLog
) -> Snapshot:
    """Open whatever saved machine ``path`` is.

    ``companion`` is the other file of a pair, ``registers`` what a dump of QEMU lacks.

    Raises SourceError, FormatError and what the readers of each kind raise.
    """
    source = Source(path)
    try:
        with paused_collector():
            if _is_elf(source):
                from .qemu_elf.reader import open_elf

                _refuse(source, companion, "this file is complete in itself, it has no companion")
                return open_elf(source, registers, log)
            _refuse(source, registers, "only dumps of QEMU take registers beside their own")
            if is_legacy(source):  # first: the other signature is looked for in a second place as well
                from .hyperv.pair import open_pair

                return open_pair(source, companion, log)
            if is_hvstorage(source):
                from .hyperv.vmrs import open_vmrs

                _refuse(source, companion, "this file is complete in itself, it has no companion")
                return open_vmrs(source, log)
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
            if is_legacy(source):  # first: the other signature is looked for in a second place as well
                return LegacyStore((source,), log)
            if is_hvstorage(source):
                return Store(source, log)
            if _is_elf(source):
                raise FormatError(
                    "this is an ELF file, which has no keys", file=source.path, offset=0,
                    remedy="of a dump of QEMU `vmrs info` and `vmrs chunks --partition-state` show what it has",
                )  # fmt: skip
        raise _unknown(source)
    except BaseException:
        source.close()
        raise


def _is_elf(source: Source) -> bool:
    return source.size >= len(ELF) and source.read(0, len(ELF)) == ELF


def is_core_dump(path: PathArgument) -> bool:
    """Whether an ELF core file stands at ``path``, of whatever machine; False where nothing can be read."""
    try:
        source = Source(path)
    except SourceError:
        return False
    try:
        return _is_elf(source) and source.size >= 18 and source.read(16, 2) == ET_CORE
    finally:
        source.close()


def _refuse(source: Source, argument: object, why: str) -> None:
    if argument is not None:
        raise InvalidArgumentError(why, file=source.path, remedy="leave it out")


def _unknown(source: Source) -> FormatError:
    if source.size == 0:
        return FormatError(
            "the file is empty", file=source.path, remedy="the copy may have failed; copy it from its host again"
        )
    first = source.read(0, min(8, source.size))
    begin = first.hex(" ")
    packed = next((name for magic, name in PACKED.items() if first.startswith(magic)), None)
    if first in OTHER_DUMPS:
        remedy = f"it is {OTHER_DUMPS[first]}"
    elif packed is not None:
        remedy = f"it is packed with {packed}: unpack it first"
    elif source.path.lower().endswith((".bin", ".vsv")):
        remedy = (
            "only .bin/.vsv files of VM version 5.0 (Server 2012 R2) can be read, not those of Server 2008/2012, and "
            "not the .bin that is preallocated while a VM runs"
        )
    else:
        remedy = "name a .vmrs file or one file of a .bin/.vsv pair, that Hyper-V wrote, or an ELF dump of QEMU"
    return FormatError(f"this is not a saved state: it begins with {begin}", file=source.path, offset=0, remedy=remedy)
