"""Processes the library is loaded into: C programs of several kinds, Python programs of this and other versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider.test_build import COMPILERS, run
from vmsavedstate.provider.library import build as builder
from vmsavedstate.provider.library import source

CLIENTS = Path(__file__).parent / "clients"
FINE = "0x00000000\n" * 3
REFUSED = "0x80004005\n" * 3
PYTHON_HOST = """
import ctypes, sys
library, path = sys.argv[1:]
provider = ctypes.CDLL(library)
handle, count = ctypes.c_void_p(), ctypes.c_uint32(7)
print(hex(provider.LoadSavedStateFileU8(path.encode(), ctypes.byref(handle)) & 0xFFFFFFFF), handle.value is not None)
print(hex(provider.GetVpCount(handle, ctypes.byref(count)) & 0xFFFFFFFF), count.value)
print(hex(provider.GetVpCount(ctypes.c_void_p(5), ctypes.byref(count)) & 0xFFFFFFFF))
"""


@pytest.fixture(scope="module")
def host(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("host") / "host"
    run(COMPILERS[0], f"-I{prefix}/include", CLIENTS / "host.c", "-o", program, "-ldl")
    return program


@pytest.fixture
def library(prefix: Path) -> Path:
    return prefix / "lib" / builder.library_file(2021)


def told(*command: str | Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, output, errors. A library that hangs is a failure, not a wait."""
    clean = {name: value for name, value in os.environ.items() if name != "VMSAVEDSTATE_LOG"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**clean, **environment})
    return done.returncode, done.stdout, done.stderr


def test_a_program_that_opens_the_library_for_itself(host: Path, library: Path, sample_guest: Path) -> None:
    """RTLD_LOCAL hides Python from the extension modules unless something is done; dlclose and once more, three times."""
    assert told(host, library, sample_guest) == (42, FINE, "")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHOME": "/nowhere"},
        {"PYTHONPATH": "/nowhere", "PYTHONSTARTUP": "/nowhere", "PYTHONINSPECT": "1", "PYTHONVERBOSE": "2"},
        {"LC_ALL": "C"},
        {"LC_ALL": "no_SUCH.locale", "PATH": "", "HOME": "/nowhere"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_the_environment_of_the_host_does_not_matter(
    host: Path, library: Path, sample_guest: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    path = tmp_path / "größe.vmrs"
    shutil.copyfile(sample_guest, path)
    assert told(host, library, path, **environment) == (42, FINE, "")


def test_a_host_without_standard_descriptors(host: Path, library: Path, sample_guest: Path) -> None:
    command = f"'{host}' '{library}' '{sample_guest}' <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], timeout=60).returncode == 42


@pytest.fixture
def broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: Path, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A library whose Python has moved away, or lost the package."""
    monkeypatch.setattr(source, "_package_paths", lambda: ["/nowhere"])
    monkeypatch.setattr(sys, "executable", request.param)
    builder.build(tmp_path / "broken")
    yield tmp_path / "broken" / "lib" / builder.library_file(2021)


@pytest.mark.parametrize(
    "broken", ["/nowhere/bin/python", str(getattr(sys, "_base_executable", sys.executable))], indirect=True
)
def test_a_python_that_is_gone_or_has_lost_the_package(
    host: Path, broken: Path, sample_guest: Path, tmp_path: Path
) -> None:
    """It refuses, silently, with a code; and says why to who asks."""
    if told(host, broken, sample_guest)[1] == FINE:
        pytest.skip("the base interpreter has the package, too")
    assert told(host, broken, sample_guest) == (42, REFUSED, "")
    log = tmp_path / "log"
    told(host, broken, sample_guest, VMSAVEDSTATE_LOG=str(log))
    assert log.read_text().startswith("vmsavedstatedumpprovider: 0x80004005: ")
    log.write_bytes(b"\0evidence")
    told(host, broken, sample_guest, VMSAVEDSTATE_LOG=str(log))
    assert log.read_bytes() == b"\0evidence"


def other_pythons() -> list[str]:
    """Interpreters of other minor versions on this machine."""
    places = [*Path.home().glob(".pyenv/versions/3.*/bin/python3"), *Path("/opt").glob("python*/bin/python3")]
    places += [Path(found) for minor in range(8, 16) if (found := shutil.which(f"python3.{minor}"))]
    by_version: dict[str, str] = {}
    for place in places:
        answer = subprocess.run(
            [place, "-c", "import sys, ctypes; print(sys.version_info[:2])"], capture_output=True, text=True
        )
        if answer.returncode == 0 and answer.stdout.strip() != str(sys.version_info[:2]):
            by_version.setdefault(answer.stdout.strip(), str(place))
    return list(by_version.values())


def test_other_versions_of_python_are_refused(library: Path, sample_guest: Path, tmp_path: Path) -> None:
    """Their structures are laid out otherwise: without a check such calls hang or answer wrongly."""
    others = other_pythons()
    if not others:
        pytest.skip("no other version of Python is here")
    for python in others:
        refused = "0x80004005 False\n0x80004005 7\n0x80004005\n"
        assert told(python, "-c", PYTHON_HOST, library, sample_guest) == (0, refused, ""), python
        log = tmp_path / "log"
        told(python, "-c", PYTHON_HOST, library, sample_guest, VMSAVEDSTATE_LOG=str(log))
        assert "another version of Python" in log.read_text()
        log.unlink()


@pytest.mark.parametrize("flags", [[], ["-S"], ["-I", "-S"]], ids=["plain", "no site", "isolated"])
def test_a_python_program_of_the_same_version(library: Path, sample_guest: Path, flags: list[str]) -> None:
    """One that has the package, and ones that do not: the library brings it along."""
    fine = "0x0 True\n0x0 2\n0x80070057\n"
    for python in dict.fromkeys([sys.executable, str(getattr(sys, "_base_executable", sys.executable))]):
        assert told(python, *flags, "-c", PYTHON_HOST, library, sample_guest) == (0, fine, "")


def test_a_python_program_with_another_version_of_the_package(
    library: Path, sample_guest: Path, tmp_path: Path
) -> None:
    (tmp_path / "vmsavedstate").mkdir()
    (tmp_path / "vmsavedstate/__init__.py").write_text("__version__ = '0.0.1'\n")
    log = tmp_path / "log"
    environment = {"PYTHONPATH": str(tmp_path), "VMSAVEDSTATE_LOG": str(log)}
    code, out, err = told(sys.executable, "-c", PYTHON_HOST, library, sample_guest, **environment)
    assert (code, out, err) == (0, "0x80004005 False\n0x80004005 7\n0x80004005\n", "")
    assert "this process has vmsavedstate 0.0.1" in log.read_text()


def test_a_process_that_forks(prefix: Path, tmp_path: Path, sample_guest: Path) -> None:
    """What is loaded before can be read after, in both processes."""
    text = """
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmsavedstatedump.h"
int main(int argc, char **argv)
{
    VM_SAVED_STATE_DUMP_HANDLE handle;
    UINT64 gpa = 0;
    char text[13] = "";
    UINT32 got = 0;
    int status = 1;
    if (argc != 2 || LoadSavedStateFileU8(argv[1], &handle) != S_OK)
        return 1;
    pid_t child = fork();
    if (GuestVirtualAddressToPhysicalAddress(handle, 0, 0xFFFFFFFF80100700u, &gpa, NULL) != S_OK)
        return 2;
    if (ReadGuestPhysicalAddress(handle, gpa, text, 12, &got) != S_OK || ReleaseSavedStateFiles(handle) != S_OK)
        return 3;
    if (child != 0 && (waitpid(child, &status, 0) != child || status != 0))
        return 4;
    printf("%s %s\\n", child ? "parent" : "child", text);
    return 0;
}
"""
    (tmp_path / "fork.c").write_text(text)
    flags = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-lvmsavedstatedumpprovider"]
    run(COMPILERS[0], tmp_path / "fork.c", "-o", tmp_path / "fork", *flags)
    assert told(tmp_path / "fork", sample_guest) == (0, "child VMSAVEDSTATE\nparent VMSAVEDSTATE\n", "")


def test_both_generations_in_one_process(prefix: Path, sample_guest: Path) -> None:
    """They share the table of handles, as they share the engine."""
    script = """
import ctypes, sys
old, new = (ctypes.CDLL(path) for path in sys.argv[1:3])
handle, count = ctypes.c_void_p(), ctypes.c_uint32()
assert old.LoadSavedStateFileU8(sys.argv[3].encode(), ctypes.byref(handle)) == 0
assert new.GetVpCount(handle, ctypes.byref(count)) == 0 and count.value == 2
assert new.ReleaseSavedStateFiles(handle) == 0 and old.ReleaseSavedStateFiles(handle) != 0
"""
    libraries = [prefix / "lib" / builder.library_file(generation) for generation in (2018, 2021)]
    assert told(sys.executable, "-c", script, *libraries, sample_guest) == (0, "", "")
