"""The C library against callers who get it wrong: NULL, odd strings, sizes at the edge (API specification, 6)."""

from __future__ import annotations

import ctypes as c
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider.doors import CDoor
from vmsavedstate.provider.library.signatures import FUNCTIONS, HANDLE, Function

E_INVALIDARG, NOT_FOUND = 0x80070057, 0x80070002
# What may be NULL: (function, parameter). Arrays whose count is 0 count as optional, too.
OPTIONAL = {
    ("LocateSavedStateFiles", "snapshotName"),
    ("ReadGuestPhysicalAddress", "bytesRead"),
    ("ReadGuestRawSavedMemory", "bytesRead"),
    ("GuestVirtualAddressToPhysicalAddress", "unmappedRegionSize"),
    ("GetGuestPhysicalMemoryChunks", "memoryChunks"),
    ("ForceNestedHostMode", "oldMode"),
    ("LoadSavedStateSymbolProvider", "userSymbols"),
    ("SetSavedStateSymbolProviderDebugInfoCallback", "symbolProviderCallback"),
    ("ResolveSavedStateGlobalVariableAddress", "size"),
    ("ScanMemoryForDosImages", "callbackContext"),
    ("ScanMemoryForDosImages", "standaloneAddress"),
    ("CallStackUnwind", "imageInfo"),
}


def is_pointer(kind: str) -> bool:
    return kind.endswith(("*", "CALLBACK")) or kind in {"LPCWSTR", "LPCSTR", "LPVOID", "PVOID"}


CASES = [
    pytest.param(generation, item, name, id=f"{generation}-{item.name}-{name}")
    for item in FUNCTIONS
    for generation in item.generations
    for kind, name in item.parameters
    if is_pointer(kind) and kind != HANDLE and item.returns == "HRESULT"
]


def number(kind: str) -> object:
    """A plain argument that is no reason to fail."""
    if kind in ("UINT64", "GUEST_VIRTUAL_ADDRESS", "GUEST_PHYSICAL_ADDRESS"):
        return c.c_uint64(0xFFFFFFFF80100700 if kind == "GUEST_VIRTUAL_ADDRESS" else 0)
    return c.c_uint8(0) if kind == "UINT8" else c.c_uint32(0)


@pytest.mark.parametrize(("generation", "item", "null"), CASES)
def test_null(
    libraries: dict[int, CDoor], sample_guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generation: int,
    item: Function, null: str
) -> None:  # fmt: skip
    """A code, nothing touched, and a line that names the parameter."""
    log = tmp_path / "log"
    monkeypatch.setenv("VMSAVEDSTATE_LOG", str(log))
    door = libraries[generation]
    handle = door.load(sample_guest)
    room = (c.c_char * 64)(*[b"\xa5"] * 64)
    text = c.create_string_buffer(b"t\0\0\0\0\0\0\0")
    arguments: list[object] = []
    for kind, name in item.parameters:
        if kind == HANDLE:
            arguments.append(c.c_void_p(handle))
        elif not is_pointer(kind):
            arguments.append(number(kind))
        elif name == null:
            arguments.append(None)
        else:
            arguments.append(text if kind in ("LPCWSTR", "LPCSTR") else room)
    code = door.ask(f"{item.name}U8" if item.wide else item.name, *arguments)
    if (item.name, null) in OPTIONAL:
        assert code != E_INVALIDARG or item.name in ("ScanMemoryForDosImages", "ForceNestedHostMode")
    else:
        assert code == E_INVALIDARG
        assert log.read_text().endswith(f": {null} is NULL\n")
        preset = item.name.startswith(("Load", "Locate"))
        assert preset or bytes(room) in (b"\xa5" * 64, b"\0\0\0\0" + b"\xa5" * 60), "no other output is touched"
    door.call("ReleaseSavedStateFiles", handle)


@pytest.fixture
def copies(sample_guest: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with the sample under names that are hard to pass."""
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()


NAMES = ["plain.vmrs", "größe ü.vmrs", "\U0001f4be disk.vmrs", "日本.vmrs"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("generation", [2018, 2021])
def test_every_width_of_a_path(
    libraries: dict[int, CDoor], sample_guest: Path, copies: Path, name: str, generation: int
) -> None:
    door, path = libraries[generation], str(copies / name)
    shutil.copyfile(sample_guest, path)
    given: dict[str, object] = {
        "": c.create_string_buffer(path.encode("utf-16-le") + b"\0\0"),
        "W32": c.create_string_buffer(path.encode("utf-32-le") + b"\0\0\0\0"),
        "U8": c.create_string_buffer(path.encode()),
    }
    if c.sizeof(c.c_wchar) == 4:
        given["W32 of ctypes"] = c.create_unicode_buffer(path)
    for suffix, text in given.items():
        handle = c.c_void_p()
        assert door.ask(f"LoadSavedStateFile{suffix.split(' ')[0]}", text, c.byref(handle)) == 0, suffix
        assert handle.value is not None
        door.call("ReleaseSavedStateFiles", handle.value)


def test_a_path_that_is_no_utf_8(libraries: dict[int, CDoor], sample_guest: Path, tmp_path: Path) -> None:
    """Paths are bytes here. The U8 functions take any; wide ones take the escapes that Python uses for them."""
    door = libraries[2021]
    path = os.fsencode(tmp_path) + b"/\xff\xfe.vmrs"
    with pytest.raises(UnicodeDecodeError):
        path.decode()
    shutil.copyfile(sample_guest, path)
    assert door.call("GetVpCount", door.load(path)) == 2
    handle = c.c_void_p()
    assert door.ask("LoadSavedStateFileW32", os.fsdecode(path), c.byref(handle)) == 0
    assert door.ask("LoadSavedStateFileU8", b"/nowhere/\xff", c.byref(handle)) == NOT_FOUND
    assert handle.value is None


@pytest.mark.parametrize(
    ("suffix", "text", "code"),
    [
        ("U8", b"", NOT_FOUND),
        ("", b"\0\0", NOT_FOUND),
        ("", b"\x3d\xd8\0\0", E_INVALIDARG),  # half of a surrogate pair: no name of a file
        ("W32", b"\0\0\x11\0\0\0\0\0", E_INVALIDARG),  # above U+10FFFF
        ("U8", b"x" * 5000, 0x8007001E),  # longer than the system takes
        ("U8", b"x" * 70000, E_INVALIDARG),
    ],
)
def test_odd_texts(libraries: dict[int, CDoor], suffix: str, text: bytes, code: int) -> None:
    handle = c.c_void_p(5)
    assert libraries[2021].ask(f"LoadSavedStateFile{suffix}", c.create_string_buffer(text), c.byref(handle)) == code
    assert handle.value is None


def test_sizes_near_the_edge(libraries: dict[int, CDoor], sample_guest: Path) -> None:
    """Only what is there is written, whatever size the caller claims; his buffer is as large as he says or ends here."""
    door = libraries[2021]
    handle = c.c_void_p(door.load(sample_guest))
    room, got = c.create_string_buffer(b"\xa5" * 32, 32), c.c_uint32(7)
    for size in (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF):
        assert (
            door.ask("ReadGuestPhysicalAddress", handle, c.c_uint64(0xFFFFF8), room, c.c_uint32(size), c.byref(got))
            == 0
        )
        assert got.value == 8
        assert room.raw[8:] == b"\xa5" * 24
        offset = 0xFA0000 - 4
        assert (
            door.ask("ReadGuestRawSavedMemory", handle, c.c_uint64(offset), room, c.c_uint32(size), c.byref(got)) == 0
        )
        assert got.value == 4
    assert door.ask("ReadGuestPhysicalAddress", handle, c.c_uint64(0), room, 0, c.byref(got)) == 0
    assert got.value == 0
    door.call("ReleaseSavedStateFiles", handle.value or 0)


def test_a_fix_is_not_read_before_it_has_a_place(libraries: dict[int, CDoor], sample_guest: Path) -> None:
    """A handle that is none, or an address that is not mapped, is told before the caller's buffer is touched."""
    door = libraries[2021]
    handle = c.c_void_p(door.load(sample_guest))
    room = c.create_string_buffer(16)  # 4 GiB from here on cannot be read
    huge = c.c_uint32(0xFFFFFFFF)
    assert door.ask("ApplyGuestMemoryFix", c.c_void_p(5), 0, c.c_uint64(0), room, huge) == E_INVALIDARG
    assert door.ask("ApplyGuestMemoryFix", handle, 0, c.c_uint64(0x402000), room, huge) == 0xC0370505
    door.call("ReleaseSavedStateFiles", handle.value or 0)


def test_strings_that_are_returned(
    libraries: dict[int, CDoor], sample_guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every width, ended by a NUL of it, from malloc; LocalFree takes them and NULL."""
    import vmsavedstate

    with vmsavedstate.StoreWriter(tmp_path / "ü.vmcx") as writer:
        writer.set("/configuration/properties/name", "string", "Größe")
    path = tmp_path / "ü.vmrs"
    shutil.copyfile(sample_guest, path)
    monkeypatch.setenv("VMSAVEDSTATE_LOCATE", str(tmp_path))
    for door in libraries.values():
        free = door.library.LocalFree
        free.restype = c.c_void_p
        for suffix, codec, width in (("", "utf-16-le", 2), ("W32", "utf-32-le", 4), ("U8", "utf-8", 1)):
            name = c.create_string_buffer("Größe".encode(codec) + bytes(width))
            out = [c.c_void_p() for _ in range(3)]
            assert door.ask(f"LocateSavedStateFiles{suffix}", name, None, *map(c.byref, out)) == 0
            size = len(str(path).encode(codec)) + width
            assert c.string_at(out[2].value or 0, size) == str(path).encode(codec) + bytes(width)
            assert [c.string_at(text.value or 0, width) for text in out[:2]] == [bytes(width)] * 2
            assert [free(text) for text in out] == [None] * 3
        assert free(None) is None


def test_nothing_leaves_but_a_code(
    libraries: dict[int, CDoor], sample_guest: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even errors that cannot be: the host gets E_UNEXPECTED or E_OUTOFMEMORY, no traceback and no exit."""
    from vmsavedstate import AddressSpace

    door, gpa = libraries[2021], c.c_uint64(0x5A)
    handle = door.load(sample_guest)
    for error, code in ((SystemExit(3), 0x8000FFFF), (RuntimeError("no"), 0x8000FFFF),
                        (MemoryError(), 0x8007000E), (RecursionError(), 0x8000FFFF)):  # fmt: skip

        def failing(_self: object, _gva: int, error: BaseException = error) -> int:
            raise error

        monkeypatch.setattr(AddressSpace, "translate", failing)
        arguments = (c.c_void_p(handle), 0, c.c_uint64(0), c.byref(gpa), None)
        assert door.ask("GuestVirtualAddressToPhysicalAddress", *arguments) == code
    assert gpa.value == 0x5A
    assert capfd.readouterr() == ("", "")
    door.call("ReleaseSavedStateFiles", handle)
