"""Files that are recognised and cannot be opened: what each is, and what to do instead. A new kind is a row."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import FormatError
from ..files.source import Source


class Refusal(NamedTuple):
    """A kind of file by its first bytes: ``what`` completes "it is ..." in the message, with the remedy."""

    magic: bytes
    what: str


REFUSALS = (
    Refusal(
        b"KDUMP   ",
        "a compressed dump of QEMU or makedumpfile: dump again as plain ELF (dump-guest-memory without -z, -l "
        "and -s; virsh dump --memory-only --format elf)",
    ),
    Refusal(b"makedump", "a flattened dump of makedumpfile: unflatten it, and convert it to ELF"),
    Refusal(b"PAGEDU64", "a Windows crash dump, which debuggers open themselves"),
    Refusal(b"PAGEDUMP", "a Windows crash dump, which debuggers open themselves"),
    Refusal(b"\xfd7zXZ", "packed with xz: unpack it first"),
    Refusal(b"\x1f\x8b", "packed with gzip: unpack it first"),
    Refusal(b"PK\3\4", "packed with zip: unpack it first"),
    Refusal(b"7z\xbc\xaf", "packed with 7-Zip: unpack it first"),
    Refusal(b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    Refusal(b"BZh", "packed with bzip2: unpack it first"),
)
_OLD_PAIR = (
    "only .bin/.vsv files of VM version 5.0 (Server 2012 R2) can be read, not those of Server 2008/2012, and not the .bin "
    "that is preallocated while a VM runs"
)
_UNKNOWN = "name a .vmrs file or one file of a .bin/.vsv pair, that Hyper-V wrote, or an ELF dump of QEMU"


def unknown_kind(source: Source) -> FormatError:
    """The error for a file that no format recognises, with what it is where that is known."""
    if source.size == 0:
        return FormatError(
            "the file is empty", file=source.path, remedy="the copy may have failed; copy it from its host again"
        )
    first = source.read(0, min(8, source.size))
    known = next((item for item in REFUSALS if first.startswith(item.magic)), None)
    if known is not None:
        remedy = f"it is {known.what}"
    elif source.path.lower().endswith((".bin", ".vsv")):
        remedy = _OLD_PAIR
    else:
        remedy = _UNKNOWN
    return FormatError(
        f"this is not a saved state: it begins with {first.hex(' ')}", file=source.path, offset=0, remedy=remedy
    )
