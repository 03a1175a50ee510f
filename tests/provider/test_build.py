"""What ``vmrs library`` builds: exports, headers, files, examples; and what it says when something is missing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from support.command import vmrs
from vmsavedstate import datatypes
from vmsavedstate.errors import LibraryBuildError, SourceError
from vmsavedstate.provider.library import build as builder
from vmsavedstate.provider.library.signatures import exported, functions

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)] or ["cc"]
GENERATIONS = (2018, 2021)
SDK = {2018: "19041", 2021: "22000"}


def run(*command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    """A command that must work; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("generation", GENERATIONS)
def test_exports(prefix: Path, generation: int) -> None:
    """The names of the specification, their variants, LocalFree: 43 or 20 and one, and nothing else."""
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not here")
    path = prefix / "lib" / builder.library_file(generation)
    names = {line.split()[-1] for line in run("nm", "-D", "--defined-only", path).splitlines()}
    assert names == set(exported(generation))
    assert len(functions(generation)) == (43 if generation == 2021 else 21)
    wide = [item for item in functions(generation) if item.wide]
    assert len(names) == len(functions(generation)) + 2 * len(wide) + 1


def test_files(prefix: Path) -> None:
    names = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    libraries = {f"lib/{builder.library_file(generation)}" for generation in GENERATIONS}
    assert names == libraries | {
        "lib/pkgconfig/vmsavedstatedumpprovider.pc", "lib/pkgconfig/vmsavedstatedumpprovider-2018.pc",
        "include/vmsavedstatedump.h", "include/vmsavedstatedumpdefs.h", "include/vmsavedstatecompat.h",
        "examples/dumpstate.c", "examples/rawmemory.c", "examples/Makefile", "examples/CMakeLists.txt",
    }  # fmt: skip


CODES = {  # section 5
    0: {"S_OK": 0, "E_NOTIMPL": 0x80004001, "E_FAIL": 0x80004005, "E_UNEXPECTED": 0x8000FFFF, "E_OUTOFMEMORY": 0x8007000E,
        "E_INVALIDARG": 0x80070057, "HRESULT_FROM_WIN32(ERROR_FILE_NOT_FOUND)": 0x80070002,
        "HRESULT_FROM_WIN32(ERROR_FILE_CORRUPT)": 0x80070570, "HRESULT_FROM_WIN32(ERROR_SHARING_VIOLATION)": 0x80070020,
        "VM_SAVED_STATE_DUMP_E_PARTITION_STATE_NOT_FOUND": 0xC0370500,
        "VM_SAVED_STATE_DUMP_E_GUEST_MEMORY_NOT_FOUND": 0xC0370501,
        "VM_SAVED_STATE_DUMP_E_NO_VP_FOUND_IN_PARTITION_STATE": 0xC0370502,
        "VM_SAVED_STATE_DUMP_E_NESTED_VIRTUALIZATION_NOT_SUPPORTED": 0xC0370503,
        "VM_SAVED_STATE_DUMP_E_WINDOWS_KERNEL_IMAGE_NOT_FOUND": 0xC0370504},
    2018: {"VM_SAVED_STATE_DUMP_E_PXE_NOT_PRESENT": 0xC0370505, "VM_SAVED_STATE_DUMP_E_PDPTE_NOT_PRESENT": 0xC0370506,
           "VM_SAVED_STATE_DUMP_E_PDE_NOT_PRESENT": 0xC0370507, "VM_SAVED_STATE_DUMP_E_PTE_NOT_PRESENT": 0xC0370508},
    2021: {"VM_SAVED_STATE_DUMP_E_VA_NOT_MAPPED": 0xC0370505, "VM_SAVED_STATE_DUMP_E_INVALID_VP_STATE": 0xC0370506,
           "VM_SAVED_STATE_DUMP_E_VP_VTL_NOT_ENABLED": 0xC0370509},
}  # fmt: skip


def constants(generation: int) -> dict[str, int]:
    """Every enumerator of a generation by its C name."""
    kinds: list[type[datatypes.CEnum]] = [datatypes.PagingMode, datatypes.VirtualProcessorArch]
    if generation == 2018:
        kinds += [datatypes.RegisterIdX86, datatypes.RegisterIdX64]
    else:
        kinds += [datatypes.RegisterId, datatypes.VirtualProcessorVendor, datatypes.GuestOsVendor,
                  datatypes.GuestOsMicrosoftIds, datatypes.GuestOsOpenSourceIds]  # fmt: skip
    values: dict[str, int] = {name: int(member) for kind in kinds for member in kind for name in member.c_names}
    values = {name: value for name, value in values.items() if generation == 2021 or not name.endswith("Armv8")}
    return values | {name: code - (code >> 31 << 32) for name, code in CODES[0].items() | CODES[generation].items()}


def layouts(generation: int) -> dict[str, int]:
    """Sizes and offsets as C writes them, and what Python's structures say."""
    found = {"sizeof(GPA_MEMORY_CHUNK)": 16, "offsetof(GPA_MEMORY_CHUNK, PageCount)": 8}
    kinds: dict[str, type[ctypes.Structure | ctypes.Union]] = {"GPA_MEMORY_CHUNK": datatypes.GpaMemoryChunk}
    if generation == 2018:
        kinds["VIRTUAL_PROCESSOR_REGISTER"] = datatypes.VirtualProcessorRegister
        found |= {"offsetof(VIRTUAL_PROCESSOR_REGISTER, RegisterId)": 16, "sizeof(VIRTUAL_PROCESSOR_REGISTER)": 24}
    else:
        kinds |= {"VIRTUAL_PROCESSOR_REGISTER": datatypes.VirtualProcessorRegisterValue, "MODULE_INFO": datatypes.ModuleInfo,
                  "GUEST_OS_INFO": datatypes.GuestOsInfo, "DOS_IMAGE_INFO": datatypes.DosImageInfo}  # fmt: skip
        register = "offsetof(VIRTUAL_PROCESSOR_REGISTER, {})"  # section 3.4
        found |= {"sizeof(VIRTUAL_PROCESSOR_REGISTER)": 16, register.format("Reg128.High64"): 8,
                  register.format("X64.Segment.Limit"): 8, register.format("X64.Segment.Attributes"): 14,
                  register.format("X64.Table.Limit"): 0, register.format("X64.Table.Base"): 8,
                  register.format("X64.FpControlStatus.LastFpOp"): 6, register.format("X64.FpControlStatus.LastFpCs"): 12,
                  register.format("X64.XmmControlStatus.LastFpDs"): 4,
                  register.format("X64.XmmControlStatus.XmmStatusControlMask"): 12}  # fmt: skip
    for name, kind in kinds.items():
        found[f"sizeof({name})"] = ctypes.sizeof(kind)
        for field in kind._fields_:
            if not field[0].startswith("_"):
                found[f"offsetof({name}, {field[0]})"] = getattr(kind, field[0]).offset
    scalars = {"HRESULT": 4, "BOOL": 4, "DWORD": 4, "ULONG": 4, "UINT64": 8, "PAGING_MODE": 4, "UINT8": 1,
               "VIRTUAL_PROCESSOR_ARCH": 4, "VM_SAVED_STATE_DUMP_HANDLE": ctypes.sizeof(ctypes.c_void_p)}  # fmt: skip
    return found | {f"sizeof({name})": size for name, size in scalars.items()}


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_headers(prefix: Path, tmp_path: Path, generation: int, compiler: str, language: str) -> None:
    """Every number and layout of the headers is that of Python's types, and compiles without a warning."""
    if language == "c++" and shutil.which({"gcc": "g++", "clang": "clang++"}.get(compiler, "c++")) is None:
        pytest.skip("no C++ compiler")
    expected = constants(generation) | layouts(generation)
    lines = [f'    printf("%lld\\n", (long long)({name}));\n' for name in expected]
    text = (
        '#include <stdio.h>\n#include "vmsavedstatedump.h"\nint main(void)\n{\n' + "".join(lines) + "    return 0;\n}\n"
    )
    source, program = tmp_path / "numbers.c", tmp_path / "numbers"
    source.write_text(text)
    flags = [
        "-x",
        language,
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-DVMSAVEDSTATE_SDK={SDK[generation]}",
        f"-I{prefix}/include",
    ]
    run(compiler, *flags, source, "-o", program)
    values = map(int, run(program).split())
    assert dict(zip(expected, values, strict=True)) == expected


@pytest.mark.parametrize("standard", ["c99", "c11", "c++98", "c++11", "c++20"])
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_headers_are_quiet(prefix: Path, tmp_path: Path, generation: int, compiler: str, standard: str) -> None:
    """No warning with -pedantic from C99 and C++98 on, for either width of characters."""
    if standard.startswith("c++") and shutil.which({"gcc": "g++", "clang": "clang++"}.get(compiler, "c++")) is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "header.c").write_text('#include "vmsavedstatedump.h"\n')
    language = "c++" if standard.startswith("c++") else "c"
    for more in ([], ["-DVMSAVEDSTATE_UTF16"]):
        flags = [
            f"-std={standard}",
            "-pedantic",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-DVMSAVEDSTATE_SDK={SDK[generation]}",
            *more,
        ]
        run(compiler, "-x", language, *flags, "-fsyntax-only", f"-I{prefix}/include", tmp_path / "header.c")


@pytest.mark.parametrize("flags", [[], ["-DVMSAVEDSTATE_UTF16"], ["-fshort-wchar"]], ids=lambda flags: "".join(flags))
def test_the_width_of_characters_chooses_the_function(prefix: Path, tmp_path: Path, flags: list[str]) -> None:
    source = tmp_path / "width.c"
    source.write_text(
        '#include "vmsavedstatedump.h"\n'
        "HRESULT f(LPCWSTR a, VM_SAVED_STATE_DUMP_HANDLE *b) { return LoadSavedStateFile(a, b); }\n"
    )
    run(COMPILERS[0], "-c", *flags, f"-I{prefix}/include", source, "-o", tmp_path / "width.o")
    wanted = "LoadSavedStateFile" if flags else "LoadSavedStateFileW32"
    assert f" {wanted}\n" in run("nm", "-u", tmp_path / "width.o")


def test_pkg_config(prefix: Path, tmp_path: Path, sample_guest: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not here")
    for name in ("vmsavedstatedumpprovider", "vmsavedstatedumpprovider-2018"):
        answer = run(
            "pkg-config", "--cflags", "--libs", name, environment={"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
        )
        flags = shlex.split(answer)
        program = tmp_path / name
        run(COMPILERS[0], str(prefix / "examples/dumpstate.c"), "-o", str(program), *flags)
        assert run(program, sample_guest).startswith("VP 0: x64, paging long, in kernel space\n")


@pytest.fixture
def examples(prefix: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy, so that tests that run at once do not meet."""
    yield Path(shutil.copytree(prefix, tmp_path / "prefix")) / "examples"


def test_examples_with_make(examples: Path, sample_guest: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not here")
    examples.parent.rename(examples.parent.with_name("a, b ü"))  # spaces, commas and letters in the way
    examples = examples.parent.with_name("a, b ü") / "examples"
    answers = [
        run("make", "-s", *more, "run", f"FILE={sample_guest}", cwd=examples) for more in ([], ["GENERATION=2018"])
    ]
    for answer in answers:
        assert answer.startswith("VP 0: x64, paging long, in kernel space\n")
        assert "Memory 0x100000, 3840 pages of 4096\nRaw size 16384000\n" in answer
    moved = Path(shutil.move(examples.parent, examples.parent.with_name("moved")))
    for name in ("dumpstate", "dumpstate-2018"):
        assert run(moved / "examples" / name, sample_guest) in answers, "the whole can be moved"


@pytest.mark.slow
def test_examples_with_cmake(examples: Path, sample_guest: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not here")
    run("cmake", "-S", examples, "-B", examples / "build", f"-DCMAKE_PREFIX_PATH={examples.parent}")
    run("cmake", "--build", examples / "build")
    for name in ("dumpstate", "dumpstate-2018"):
        assert run(examples / "build" / name, sample_guest).startswith("VP 0: x64, paging long")


def test_building_again_replaces(examples: Path) -> None:
    header = examples.parent / "include/vmsavedstatedump.h"
    header.write_text("old")
    (examples.parent / "include/mine.h").write_text("mine")
    made = builder.build(examples.parent)
    assert header in made
    assert "LoadSavedStateFile" in header.read_text()
    assert (examples.parent / "include/mine.h").read_text() == "mine", "what is not ours stays"


def test_a_folder_with_a_difficult_name(prefix: Path, tmp_path: Path) -> None:
    made = builder.build(tmp_path / "a, b 'ü'")
    assert len(made) == 11


def test_flags_that_hide_or_refuse(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others like to set for everything: the library exports its names all the same, and builds."""
    monkeypatch.setenv("CFLAGS", "-fvisibility=hidden -Wall -Wextra -Werror -flto")
    builder.build(tmp_path / "out")
    path = tmp_path / "out/lib" / builder.library_file(2021)
    names = {line.split()[-1] for line in run("nm", "-D", "--defined-only", path).splitlines()}
    assert names == set(exported(2021))


def test_no_folder(prefix: Path) -> None:
    answer = vmrs("library", "--out", "")
    assert (answer.code, answer.text) == (2, "")
    assert "name a folder" in answer.err


def test_the_command(prefix: Path, tmp_path: Path) -> None:
    answer = vmrs("library", "--out", tmp_path / "new" / "folder")
    assert (answer.code, answer.err) == (0, "")
    assert [Path(line).is_file() for line in answer.text.splitlines()] == [True] * 11


MISSING = {
    "compiler": ({"CC": "no-such-compiler"}, "there is no C compiler 'no-such-compiler' (install one: gcc"),
    "broken": ({"CC": "false"}, "false failed: exit code 1"),
    "quotes": ({"CC": "'gcc"}, "CC cannot be read: No closing quotation (check its quotes)"),
    "flags": ({"CFLAGS": "--no-such-flag"}, "--no-such-flag"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_told(prefix: Path, tmp_path: Path, case: str) -> None:
    environment, message = MISSING[case]
    answer = vmrs("library", "--out", tmp_path / "out", cwd=None, **environment)
    assert (answer.code, answer.text) == (1, "")
    assert message in answer.err
    assert list((tmp_path / "out").rglob("*")) == [] if (tmp_path / "out").exists() else True


def test_missing_cffi_headers_and_library(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names the package that brings it."""
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(LibraryBuildError, match=r"cffi is missing \(pip install cffi setuptools\)"):
            builder.build(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
        with pytest.raises(LibraryBuildError, match=r"headers are missing \(install .* python3-dev"):
            builder.build(tmp_path)
    real = sysconfig.get_config_var
    with monkeypatch.context() as patch:
        patch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path) if name == "LIBDIR" else real(name))
        with pytest.raises(LibraryBuildError, match=r"shared library is missing .*python3-dev.*--enable-shared"):
            builder.build(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with pytest.raises(LibraryBuildError, match="for Linux and macOS"):
            builder._requirements()
    with monkeypatch.context() as patch:
        patch.setenv("CC", "")
        patch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(LibraryBuildError, match=r"there is no C compiler \(install one: gcc"):
            builder.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot write"):
        builder.build(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == ""
