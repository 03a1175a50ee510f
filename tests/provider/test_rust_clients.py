"""Clients that others wrote: Microsoft's own generated bindings, and a published client with its own tests.

Both come from crates.io; without cargo or without that registry these tests skip, and say so.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import vmsavedstate
from provider.test_build import constants, layouts, run
from provider.test_clients import CLIENTS, expected_dump
from vmsavedstate.provider.library import build as builder
from vmsavedstate.provider.library.signatures import HANDLE, Function, functions

INDEX = "https://index.crates.io/config.json"
FETCH = Path(__file__).parents[2] / "tools" / "fetch_samples.py"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not here"),
]

# Types of our headers as the bindings have them; all others have one name in both.
RUST = {
    HANDLE: "*mut c_void", "LPVOID": "*mut c_void", "PVOID": "*mut c_void", "LPCWSTR": "PCWSTR", "LPCSTR": "PCSTR",
    "LPWSTR *": "*mut PWSTR", "UINT8": "u8", "UINT32": "u32", "DWORD": "u32", "ULONG": "u32", "UINT64": "u64",
    "GUEST_VIRTUAL_ADDRESS": "u64", "GUEST_PHYSICAL_ADDRESS": "u64",
}  # fmt: skip
READ_ONLY = {"fixBuffer", "imageInfo", "standaloneAddress"}  # pointers that the metadata marks as inputs
# Members without a name in C.
ANONYMOUS = {
    "Segment.Attributes": "Segment.Anonymous.Attributes",
    "LastFpCs": "Anonymous.Anonymous.LastFpCs",
    "LastFpDs": "Anonymous.Anonymous.LastFpDs",
}
HEAD = """
use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use windows_sys::core::*;
use windows_sys::Win32::Foundation::*;
use windows_sys::Win32::System::Hypervisor::*;

#[link(name = "vmsavedstatedumpprovider")]
unsafe extern "C" {}

"""


def cargo(folder: Path, library: Path, command: str, *arguments: str, **environment: str) -> str:
    """Run cargo over a project that links the library that is in a folder."""
    flags = "\x1f".join(["-L", str(library), "-C", f"link-arg=-Wl,-rpath,{library}"])  # the paths may hold spaces
    return run(
        "cargo",
        command,
        "--quiet",
        "--offline",
        *arguments,
        cwd=folder,
        environment={"CARGO_ENCODED_RUSTFLAGS": flags, **environment},
    )


def from_registry(act: Callable[[], object]) -> None:
    """Do what needs crates.io; skip where that is why it fails."""
    try:
        act()
    except subprocess.CalledProcessError as error:
        try:
            urllib.request.urlopen(INDEX, timeout=20).close()
        except OSError as unreachable:
            pytest.skip(f"crates.io cannot be reached: {unreachable}")
        raise error


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of the client over Microsoft's bindings, with them at hand."""
    folder = tmp_path_factory.mktemp("bindings") / "project"
    shutil.copytree(CLIENTS / "bindings", folder, ignore=shutil.ignore_patterns("target"))
    from_registry(lambda: subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=folder, check=True))
    return folder


def test_microsofts_metadata(prefix: Path, bindings: Path) -> None:
    """Every number, layout and signature of the later generation, and the result codes, as Microsoft publishes them."""
    numbers = {name: value for name, value in constants(2021).items() if "(" not in name and name != "Arch_Unkown"}
    places = {name: value for name, value in layouts(2021).items() if "VM_SAVED" not in name and "ULONG" not in name}
    source = HEAD + "fn main() {\n"
    source += "".join(f'    println!("{name} {{}}", {name} as i64);\n' for name in numbers)
    source += "".join(f'    println!("{{}}", {rust_layout(name)});\n' for name in places)
    source += "".join(f"    let _: {rust_signature(item)} = {item.name};\n" for item in functions(2021)) + "}\n"
    (bindings / "src" / "bin" / "numbers.rs").write_text(source)
    lines = cargo(bindings, prefix / "lib", "run", "--bin", "numbers").splitlines()
    assert lines[: len(numbers)] == [f"{name} {value}" for name, value in numbers.items()]
    assert dict(zip(places, map(int, lines[len(numbers) :]), strict=True)) == places
    assert len(numbers) > 180
    assert len(functions(2021)) == 43


def rust_layout(name: str) -> str:
    """``sizeof(X)`` or ``offsetof(X, a.b)`` in Rust."""
    match = re.fullmatch(r"(sizeof|offsetof)\((\w+)(?:, ([\w.]+))?\)", name)
    assert match is not None
    kind = RUST.get(match[2], match[2])
    if match[1] == "sizeof":
        return f"size_of::<{kind}>()"
    field = match[3]
    for short, full in ANONYMOUS.items():
        field = re.sub(rf"\b{short}$", full, field)
    return f"offset_of!({kind}, {field})"


def rust_signature(item: Function) -> str:
    """The type of a function: another one does not compile."""
    return (
        f'unsafe extern "system" fn({", ".join(map(rust_type, *zip(*item.parameters, strict=True)))}) -> {item.returns}'
    )


def rust_type(kind: str, name: str) -> str:
    """The type of a parameter."""
    if kind not in RUST and kind.endswith(" *"):
        base = kind.removesuffix(" *")
        text = f"*mut {RUST.get(base, base)}"
    else:
        text = RUST.get(kind, kind)
    return text.replace("*mut", "*const", 1) if name in READ_ONLY else text


def test_a_client_over_microsofts_bindings(prefix: Path, bindings: Path, paths: list[Path]) -> None:
    arguments = ["run", "--bin", "dump", "--", *map(str, paths)]
    lines = cargo(bindings, prefix / "lib", *arguments).splitlines()
    with vmsavedstate.open(*paths) as state:
        assert lines == list(expected_dump(state, 2021))


def test_the_tests_of_the_published_client(prefix: Path, tmp_path: Path) -> None:
    """``vmsavedstatedump_rs``, by the author of Microsoft's interface: its 17 tests, on its own states, unchanged."""
    download: Callable[[Path], Path] = runpy.run_path(str(FETCH))["download"]
    crates: list[Path] = []
    from_registry(lambda: crates.append(download(tmp_path)))
    crate = crates[0]
    patches = "".join(f'{name} = {{ path = "{CLIENTS / "stand_ins" / name}" }}\n' for name in ("widestring", "winapi"))
    with open(crate / "Cargo.toml", "a") as manifest:
        manifest.write(f"\n[patch.crates-io]\n{patches}")
    with_backslashes(crate, (path for path in (crate / "tests").iterdir() if path.suffix != ".rs"))
    sdk = tmp_path / "sdk"
    Path(f"{sdk}\\bin\\10.0.18362.0\\x64\\vmsavedstatedumpprovider.dll").touch()  # its build script looks for it
    answer = cargo(crate, old_library(prefix, tmp_path), "test", "--test", "integration_test",
                   WIN10SDK_PATH=str(sdk))  # fmt: skip
    assert "test result: ok. 17 passed; 0 failed; 0 ignored" in answer


def with_backslashes(crate: Path, files: Iterable[Path]) -> None:
    """The names under which its tests look for their files: with backslashes, and in any case of letters."""
    for path in list(files):
        for suffix in {path.suffix, path.suffix.lower()}:
            shutil.copyfile(path, f"{crate}{os.sep}tests\\{path.stem}{suffix}")


def old_library(prefix: Path, folder: Path) -> Path:
    """A folder where the first generation has the name that the client links: both had one on Windows."""
    libraries = folder / "lib"
    libraries.mkdir()
    (libraries / "libvmsavedstatedumpprovider.so").symlink_to(prefix / "lib" / builder.library_file(2018))
    (libraries / builder.library_file(2018)).symlink_to(prefix / "lib" / builder.library_file(2018))
    return libraries
