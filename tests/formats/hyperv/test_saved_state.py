"""What makes a saved state, and what each lack of it gets (format specification, sections 3, 7 and 11)."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.partition import metadata
from support.states import BLOCK, write_state
from vmsavedstate import StoreWriter
from vmsavedstate.errors import (
    CorruptFileError,
    FormatError,
    GuestMemoryNotFoundError,
    PartitionStateNotFoundError,
    ScreenError,
    SourceError,
    VmSavedStateError,
)
from vmsavedstate.findings import Severity

SCREEN = "/savedstate/configuration/_ba8735ef-e3a9-4f1b-badd-dbf3a5909915_/VideoMonitor"


@pytest.mark.parametrize(
    "content", [b"", b"x", b"hello, this is a text file\n" * 100, b"\x7fELF" + bytes(9000), bytes(9000)]
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.vmrs"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        vmsavedstate.open(path)
    assert caught.value.hresult == 0x80070570
    assert caught.value.remedy
    assert str(path) in str(caught.value)
    assert ("empty" in caught.value.message) == (not content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file") as caught:
        vmsavedstate.open(tmp_path / "none.vmrs")
    assert caught.value.hresult == 0x80070002
    assert isinstance(caught.value, OSError)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="directory"):
        vmsavedstate.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="not a regular file"):
        vmsavedstate.open(tmp_path / "fifo")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user who is not root")
def test_no_permission(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    path.chmod(0)
    with pytest.raises(SourceError, match="permission") as caught:
        vmsavedstate.open(path)
    assert caught.value.hresult == 0x80070005


def test_no_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_state(tmp_path / "x.vmrs")

    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match="permission") as caught:
        vmsavedstate.open(path)
    assert caught.value.hresult == 0x80070005


def test_nul_in_the_path() -> None:
    with pytest.raises(SourceError):
        vmsavedstate.open("a\0b")


@pytest.mark.skipif(os.name == "nt", reason="paths are text on Windows")
@pytest.mark.parametrize("as_bytes", [True, False])
def test_paths_that_are_no_utf8(tmp_path: Path, as_bytes: bool) -> None:
    good = write_state(tmp_path / "x.vmrs")
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.vmrs"
    os.rename(os.fsencode(good), odd)
    with vmsavedstate.open(odd if as_bytes else os.fsdecode(odd)) as state:
        assert os.fsencode(state.files[0]) == odd


def test_a_store_without_saved_state(tmp_path: Path) -> None:
    path = tmp_path / "x.vmrs"
    with StoreWriter(path) as writer:
        writer.set("/configuration/properties/version", "int", 0x0C00)
    with pytest.raises(PartitionStateNotFoundError) as caught:
        vmsavedstate.open(path)
    assert caught.value.hresult == 0xC0370500
    assert "production checkpoint" in str(caught.value)
    assert "running" in str(caught.value)


def test_no_memory_metadata(tmp_path: Path) -> None:
    with pytest.raises(GuestMemoryNotFoundError) as caught:
        vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=[]))
    assert caught.value.hresult == 0xC0370501


@pytest.mark.parametrize(
    ("version", "properties", "expected", "findings"),
    [
        (0x0900, 0x0900, 0x0900, 0),
        (0x0900, None, 0x0900, 0),
        (None, 0x0900, 0x0900, 1),
        (0x0C03, 0x0900, 0x0C03, 1),
        (0x1_0900, 0x1_0900, 0x0900, 1),
    ],
)
def test_vm_version(tmp_path: Path, version: int | None, properties: int | None, expected: int, findings: int) -> None:
    path = write_state(tmp_path / "x.vmrs", version=version, properties=properties)
    with vmsavedstate.open(path) as state:
        assert state.vm_version == expected
        assert len(state.findings) == findings


def test_no_version_at_all_and_too_old_a_one(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="VM version"):
        vmsavedstate.open(write_state(tmp_path / "x.vmrs", version=None, properties=None))
    with pytest.raises(FormatError, match="0x0100"):
        vmsavedstate.open(write_state(tmp_path / "x.vmrs", version=0x0100, properties=0x0100))


def test_types_of_saved_states(tmp_path: Path) -> None:
    for text in ("Normal", "Snapshot", "FastWithHandleTransfer"):
        extra = [("/savedstate/type", "string", text), ("/savedstate/VmwpVersion", "string", "10.0")]
        with vmsavedstate.open(write_state(tmp_path / "x.vmrs", extra=extra)) as state:
            assert (state.saved_state_type, state.writer_version) == (text, "10.0")
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs")) as state:
        assert (state.saved_state_type, state.writer_version) == (None, None)


def test_version_key_as_uint(tmp_path: Path) -> None:
    path = tmp_path / "x.vmrs"
    extra = [("/savedstate/VmVersion", "uint", 0x0900)]
    with vmsavedstate.open(write_state(path, version=None, extra=extra)) as state:
        assert state.vm_version == 0x0900


def test_keys_of_the_legacy_style_in_the_modern_container(tmp_path: Path) -> None:
    """Open question 3: a .vsv in the HyperVStorage container."""
    from support.partition import simple_blob

    path = tmp_path / "x.vsv"
    with StoreWriter(path) as writer:
        writer.set("/configuration/properties/version", "int", 0x0500)
        writer.set("/savedVM/partition_state", "array", simple_blob())
        writer.set("RamMemoryBlock/0/", "array", metadata(256))
        writer.set("RamBlock/0/", "array", b"\7" * BLOCK)
    with vmsavedstate.open(path) as state:
        assert state.vm_version == 0x0500
        assert state.memory.read(0x1000, 2) == b"\7\7"


def screen_keys(state: bytes, pixels: bytes) -> list[tuple[str, str, Any]]:
    return [(f"{SCREEN}/State", "array", state), (f"{SCREEN}/Screen", "array", pixels)]


def test_no_screen(tmp_path: Path) -> None:
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs")) as state:
        assert state.screen is None


@pytest.mark.parametrize(
    ("state", "pixels", "message"),
    [
        (struct.pack("<5I", 0x800000, 0, 4, 2, 1), bytes(32), "only 16 bits per pixel"),
        (struct.pack("<5I", 0x800000, 0, 4, 2, 1), bytes(15), "only 16 bits per pixel"),
        (struct.pack("<5I", 0x800000, 0, 0, 2, 1), b"", "0 x 2 pixels"),
        (struct.pack("<5I", 0x800000, 0, 0xFFFFFFFF, 0xFFFFFFFF, 1), b"", "pixels"),
        (b"\0" * 19, bytes(16), "0x13 bytes instead of 0x14"),
    ],
)
def test_screens_of_unknown_layout(tmp_path: Path, state: bytes, pixels: bytes, message: str) -> None:
    path = write_state(tmp_path / "x.vmrs", extra=screen_keys(state, pixels))
    with vmsavedstate.open(path) as opened, pytest.raises(ScreenError, match=message):
        _ = opened.screen


def test_colours_of_a_screen(tmp_path: Path) -> None:
    pixels = struct.pack("<8H", 0xF800, 0x07E0, 0x001F, 0xFFFF, 0, 0x52AA, 0x8410, 0x0001)
    path = write_state(tmp_path / "x.vmrs", extra=screen_keys(struct.pack("<5I", 0x800000, 0, 4, 2, 1), pixels))
    with vmsavedstate.open(path) as state:
        screen = state.screen
        assert screen is not None
        assert (screen.width, screen.height) == (4, 2)
        triples = [tuple(screen.rgb[at : at + 3]) for at in range(0, 24, 3)]
        assert triples[:5] == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
        assert triples[5] == (0x52, 0x55, 0x52)


def test_png_is_what_an_independent_decoder_reads(tmp_path: Path) -> None:
    """Unfiltered rows, checked by undoing the format by hand: signature, sizes, checksums, pixels."""
    import zlib

    from vmsavedstate import Screen

    screen = Screen(5, 3, bytes(range(45)))
    png = screen.to_png()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    pieces, at = {}, 8
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        body = png[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", png, at + 8 + size)[0]
        pieces[kind] = body
        at += 12 + size
    assert struct.unpack(">IIBBBBB", pieces[b"IHDR"]) == (5, 3, 8, 2, 0, 0, 0)
    rows = zlib.decompress(pieces[b"IDAT"])
    assert rows == b"".join(b"\0" + screen.rgb[15 * row : 15 * row + 15] for row in range(3))
    assert list(pieces) == [b"IHDR", b"IDAT", b"IEND"]


def test_an_error_carries_what_was_found_before(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata(0)])
    with pytest.raises(GuestMemoryNotFoundError) as caught:
        vmsavedstate.open(path)
    assert [item.severity for item in caught.value.findings] == [Severity.DAMAGE]  # type: ignore[attr-defined]


def test_no_descriptor_stays_open_after_an_error(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    bad = write_state(tmp_path / "x.vmrs", ranges=[])
    before = len(list(folder.iterdir()))
    for _ in range(20):
        with pytest.raises(VmSavedStateError):
            vmsavedstate.open(bad)
    assert len(list(folder.iterdir())) == before


def test_the_evidence_is_opened_for_reading_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every open of the reader passes here, and none may ask for more than reading."""
    path = write_state(tmp_path / "x.vmrs")
    path.chmod(0o444)
    before = path.stat()
    flags: list[int] = []
    real = os.open

    def spy(name: Any, wanted: int, *rest: Any, **more: Any) -> int:
        if os.fspath(name) == str(path):
            flags.append(wanted)
        return real(name, wanted, *rest, **more)

    monkeypatch.setattr(os, "open", spy)
    with vmsavedstate.open(path) as state:
        state.memory.read(0, BLOCK)
        state.check_memory()
    assert len(flags) == 1
    assert flags[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) == 0
    assert path.stat().st_mtime_ns == before.st_mtime_ns
