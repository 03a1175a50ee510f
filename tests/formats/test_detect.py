"""Which format a file has, and what is said of files that have none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import vmsavedstate
from support import partition as p
from support.command import vmrs
from support.elf import X86_64, Segment, elf, note, prstatus_x86_64
from support.samples import Samples
from support.states import legacy_file, numbered_pages, write_state
from vmsavedstate.errors import (
    InvalidArgumentError,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("first", "packer"), [(b"\xfd7zXZ\0", "xz"), (b"PK\3\4", "zip"), (b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2")]
)
def test_packed_files(tmp_path: Path, first: bytes, packer: str) -> None:
    path = tmp_path / "x.vmrs"
    path.write_bytes(first + bytes(100))
    with pytest.raises(vmsavedstate.FormatError, match=f"packed with {packer}: unpack it first"):
        vmsavedstate.open(path)


def test_a_vmrs_takes_no_companion(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    with pytest.raises(InvalidArgumentError, match="no companion"):
        vmsavedstate.open(path, companion=path)


def test_a_bin_whose_second_page_looks_like_the_other_container(tmp_path: Path) -> None:
    block = struct.pack("<I", 0x01282014) + numbered_pages(0)[4:]
    (tmp_path / "x.bin").write_bytes(legacy_file({"RamBlock/0/": (1, block)}))
    state = {"/savedVM/partition_state": (1, p.simple_blob()), "RamMemoryBlock/0/": (1, p.metadata(256))}
    (tmp_path / "x.vsv").write_bytes(legacy_file(state))
    with vmsavedstate.open(tmp_path / "x.bin") as opened:
        assert opened.memory.read(0, 4) == struct.pack("<I", 0x01282014)


KINDS = {
    b"KDUMP   ": "dump again as plain ELF .*without -z, -l, -s",
    b"makedumpfile\0\0\0\0": "flattened kdump.*dump again as plain ELF",
    b"PAGEDU64": "Windows crash dump",
    b"PAGEDUMP": "Windows crash dump",
    b"MDMP\x93\xa7": "minidump",
    b"HIBR": "hibernation file",
    b"wake": "hibernation file",
    b"EMiL\1\0\0\0": "LiME",
    b"AVML\2\0\0\0": "AVML",
    b"\xd2\xbe\xd2\xbe": "VMware",
    b"\xd0\xbe\xd2\xbe": "VMware",
    b"LibvirtQemudSave": "virsh dump --memory-only",
    b"QEVM": "migration stream of QEMU",
    b"\x7fVirtualBox SavedState V2.0": "saved state of VirtualBox.*dumpvmcore",
    b"\xff" * 8 + b"XENF": "saved state of Xen",
    b"Xen saved domain, xl format": "saved state of Xen",
    b"vhdxfile": "virtual disk .VHDX, AVHDX",
    b"GUESTRTS": "guest state of a VM .VMGS",
    b"conectix": "VHD",
    b"QFI\xfb": "qcow2",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00": "git lfs pull",
    b"EVF\x09\x0d\x0a\xff\0": "pyewf.handle",
}


@pytest.mark.parametrize("first", KINDS, ids=lambda first: first[:12].decode("latin-1").strip("\0 "))
def test_kinds_that_are_named(tmp_path: Path, first: bytes) -> None:
    """What it is, and what to do: never that it is damaged."""
    path = tmp_path / "evidence.bin"
    path.write_bytes(first + bytes(9000))
    with pytest.raises(vmsavedstate.FormatError, match=KINDS[first]) as caught:
        vmsavedstate.open(path)
    assert caught.value.message == "this is not a saved state" and caught.value.remedy
    answer = vmrs("info", path)
    assert answer.code == 1 and str(caught.value.remedy) in answer.err
    refused = vmrs("screen", "examples/sample-guest.vmrs", "--out", path, "--force", cwd=ROOT)
    assert refused.code == 1 and "never overwritten" in refused.err and path.read_bytes() == first + bytes(9000)


def test_a_fixed_vhd_has_its_mark_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(bytes(4096) + b"conectix" + bytes(504))
    with pytest.raises(vmsavedstate.FormatError, match=r"it is a virtual disk \(VHD\)"):
        vmsavedstate.open(path)


def test_a_core_of_xen(reports: Samples) -> None:
    with pytest.raises(vmsavedstate.FormatError, match="this is a core of Xen"):
        vmsavedstate.open(reports("elf-xen.elf"))


def test_proc_kcore(tmp_path: Path) -> None:
    """A copy of it is cut short as a rule: its notes say what it is, whatever else is missing."""
    name = bytes(40) + b"vmlinux".ljust(16, b"\0") + bytes(80)
    raw = bytearray(elf(X86_64, prstatus_x86_64(0) + note("CORE", 3, name), [Segment(0, bytes(64))]))
    raw[64 + 56 + 32 : 64 + 56 + 48] = (1 << 45).to_bytes(8, "little") * 2
    path = tmp_path / "kcore"
    path.write_bytes(raw)
    with pytest.raises(vmsavedstate.FormatError, match="this is /proc/kcore or a copy"):
        vmsavedstate.open(path)
