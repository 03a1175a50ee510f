"""Which format a file has, and what is said of files that have none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import vmsavedstate
from support import partition as p
from support.states import legacy_file, numbered_pages, write_state
from vmsavedstate.errors import (
    InvalidArgumentError,
)


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
