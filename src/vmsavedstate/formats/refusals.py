"""Files that are recognised and cannot be opened: what each is, and what to do instead. A new kind is a row."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import FormatError
from ..files.source import Source


class Refusal(NamedTuple):
    """A kind of file by bytes of known content: ``what`` completes "it is ...", ``remedy`` says what to do.

    ``offset`` is where the bytes stand, from the end of the file where it is negative.
    """

    magic: bytes
    what: str
    remedy: str
    offset: int = 0


_AGAIN = (
    "dump again as plain ELF (dump-guest-memory without -z, -l, -s; virsh dump --memory-only --format elf). A kdump that "
    "makedumpfile wrote of a crashed Linux kernel is opened by crash and drgn"
)
_UNFLATTEN = f"{_AGAIN}, once you unflatten it (makedumpfile -R)"
_CRASH = "a Windows crash dump", "debuggers open it themselves (WinDbg, Volatility); it holds no saved state"
_MINIDUMP = "a Windows minidump of a process", "debuggers open it themselves; it holds no memory of a machine"
_HIBERNATION = (
    "a Windows hibernation file",
    "it is compressed memory that Windows itself wrote; Volatility and hibernation tools open it",
)
_VMWARE = (
    "a suspended state or snapshot of VMware",
    "Volatility opens it together with the .vmem beside it; a .vmem itself is raw memory",
)
_ELSEWHERE = "a saved state is in the .vmrs, or the .bin and .vsv, of the VM"
_DISK = f"it is a disk, not memory; {_ELSEWHERE}"
_UNPACK = "unpack it first"
_RAW = "memory in this form is not read; Volatility opens it, and avml-convert or LiME can write other forms"

REFUSALS = (
    Refusal(b"KDUMP   ", "a compressed kdump of QEMU or makedumpfile", _AGAIN),
    Refusal(b"makedumpfile", "a flattened kdump of QEMU or makedumpfile", _UNFLATTEN),
    Refusal(b"PAGEDU64", *_CRASH),
    Refusal(b"PAGEDUMP", *_CRASH),
    Refusal(b"MDMP", *_MINIDUMP),
    *(Refusal(magic, *_HIBERNATION) for magic in (b"HIBR", b"hibr", b"WAKE", b"wake", b"RSTR", b"rstr")),
    Refusal(b"EMiL", "a memory image of LiME", _RAW),
    Refusal(b"AVML", "a compressed memory image of AVML", _RAW),
    *(Refusal(bytes((low, 0xBE, low, 0xBE)), *_VMWARE) for low in (0xD0, 0xD1, 0xD2, 0xD3)),
    *(Refusal(bytes.fromhex(magic), *_VMWARE) for magic in ("d0bed2be", "d1bad1ba")),
    Refusal(b"LibvirtQemudSave", "a state that libvirt saved (virsh save, virsh managedsave)",
            "start the guest from it (virsh restore) and dump it: virsh dump --memory-only"),
    Refusal(b"LibvirtQemudPart", "a state that libvirt began to save and did not finish",
            "dump the guest: virsh dump --memory-only"),
    Refusal(b"QEVM", "a migration stream of QEMU", "load it into QEMU (-incoming) and dump it: dump-guest-memory FILE"),
    Refusal(b"\x7fVirtualBox SavedState", "a saved state of VirtualBox",
            "start the VM from it and dump its core: VBoxManage debugvm VM dumpvmcore --filename FILE"),
    Refusal(b"\xff" * 8 + b"XENF", "a saved state of Xen", "restore it and save its memory in another form"),
    Refusal(b"Xen saved domain", "a saved state of Xen", "restore it and save its memory in another form"),
    Refusal(b"minidump FreeBSD/", "a kernel minidump of FreeBSD", "kgdb opens it; it is not the memory of a whole machine"),
    Refusal(b"vhdxfile", "a virtual disk (VHDX, AVHDX)", _DISK),
    Refusal(b"GUESTRTS", "the guest state of a VM (VMGS: UEFI variables, TPM)", f"it holds no memory; {_ELSEWHERE}"),
    Refusal(b"conectix", "a virtual disk (VHD)", _DISK),
    Refusal(b"QFI\xfb", "a virtual disk (qcow2)", _DISK),
    Refusal(b"KDMV", "a virtual disk (VMDK)", _DISK),
    Refusal(b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, which stands for the file itself",
            "fetch the file: git lfs pull"),
    Refusal(b"EVF\x09\x0d\x0a\xff\0", "an EnCase image (E01)",
            "a saved state inside of it is opened through libewf's Python reader: vmsavedstate.open(handle) with an "
            "opened pyewf.handle()"),
    Refusal(b"EVF2\x0d\x0a\x81\0", "an EnCase image (Ex01)", "export what it holds first"),
    Refusal(b"\xfd7zXZ", "packed with xz", _UNPACK),
    Refusal(b"\x1f\x8b", "packed with gzip", _UNPACK),
    Refusal(b"PK\3\4", "packed with zip", _UNPACK),
    Refusal(b"7z\xbc\xaf", "packed with 7-Zip", _UNPACK),
    Refusal(b"\x28\xb5\x2f\xfd", "packed with zstd", _UNPACK),
    Refusal(b"BZh", "packed with bzip2", _UNPACK),
    Refusal(b"Rar!\x1a\7", "packed with RAR", _UNPACK),
    Refusal(b"MSCF\0\0\0\0", "a cabinet of Windows", _UNPACK),
    Refusal(b"\x04\x22\x4d\x18", "packed with LZ4", _UNPACK),
    Refusal(b"ustar", "a tar archive", _UNPACK, 257),
    Refusal(b"conectix", "a virtual disk (VHD)", _DISK, -512),
)  # fmt: skip
_OLD_PAIR = (
    "only .bin/.vsv files of VM version 5.0 (Server 2012 R2) can be read, not those of Server 2008/2012, and not the .bin "
    "that is preallocated while a VM runs"
)
_UNKNOWN = "name a .vmrs file or one file of a .bin/.vsv pair, that Hyper-V wrote, or an ELF dump of QEMU"


def refusal_of(source: Source) -> Refusal | None:
    """The kind of a file that is known and cannot be opened, None for others."""
    for item in REFUSALS:
        at = item.offset if item.offset >= 0 else source.size + item.offset
        if 0 <= at <= source.size - len(item.magic) and source.read(at, len(item.magic)) == item.magic:
            return item
    return None


def unknown_kind(source: Source) -> FormatError:
    """The error for a file that no format recognises, with what it is where that is known."""
    if source.size == 0:
        return FormatError(
            "the file is empty", file=source.path, remedy="the copy may have failed; copy it from its host again"
        )
    known = refusal_of(source)
    if known is not None:
        return FormatError("this is not a saved state", file=source.path, remedy=f"it is {known.what}: {known.remedy}")
    remedy = _OLD_PAIR if source.path.lower().endswith((".bin", ".vsv")) else _UNKNOWN
    first = source.read(0, min(8, source.size))
    return FormatError(
        f"this is not a saved state: it begins with {first.hex(' ')}", file=source.path, offset=0, remedy=remedy
    )
