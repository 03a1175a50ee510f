"""Processes the library is loaded into: C programs of several kinds, Python programs of this and other versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from sysconfig import get_config_var, get_paths

import pytest

import vmsavedstate
from provider.test_build import COMPILERS, run
from vmsavedstate.provider.library import build as builder
from vmsavedstate.provider.library import c_source as source

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


@pytest.fixture(scope="module")
def crowd(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("crowd") / "crowd"
    run(COMPILERS[0], "-pthread", f"-I{prefix}/include", CLIENTS / "crowd.c", "-o", program, "-ldl")
    return program


def libraries(prefix: Path) -> list[Path]:
    return [prefix / "lib" / builder.library_file(generation) for generation in (2018, 2021)]


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_many_threads_call_for_the_first_time(crowd: Path, prefix: Path, sample_guest: Path, both: bool) -> None:
    """Python is brought up once, and everybody gets his answer: of one library, and of two that start at once."""
    for _ in range(5):
        fine = "0x00000000 0x00000000 0x00000000 2\n"
        assert told(crowd, sample_guest, *libraries(prefix)[: 1 + both]) == (0, fine, "")


def environment(folder: Path, home: str) -> Path:
    """The interpreter of a virtual environment that stands on ``home``."""
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text(f"home = {home}\n")
    return folder / "bin/python"


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_many_threads_and_a_package_that_is_gone(
    crowd: Path, tmp_path: Path, prefix: Path, sample_guest: Path, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread waits for ever, and nobody gets a success."""
    monkeypatch.setattr(sys, "executable", str(environment(tmp_path, "/nowhere/bin")))
    monkeypatch.setattr(source, "_package_paths", lambda: ["/nowhere"])
    builder.build(tmp_path / "broken")
    refused = "0x80004005 0x80004005 0x80004005 99\n"
    for _ in range(3):
        assert told(crowd, sample_guest, *libraries(tmp_path / "broken")[: 1 + both]) == (0, refused, "")


def test_no_code_of_others_runs(
    host: Path, tmp_path: Path, prefix: Path, sample_guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sitecustomize and .pth files of the environment belong to its users, not to a host."""
    site = tmp_path / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text("import sys\nprint('sitecustomize', file=sys.stderr)\nsys.exit(3)\n")
    (site / "broken.pth").write_text("import no_such_module\n")
    monkeypatch.setattr(sys, "executable", str(environment(tmp_path, f"{sys.base_prefix}/bin")))
    builder.build(tmp_path / "out")
    assert told(host, tmp_path / "out/lib" / builder.library_file(2021), sample_guest) == (42, FINE, "")


def test_a_host_that_ends_python(library: Path, prefix: Path, tmp_path: Path, sample_guest: Path) -> None:
    """Calls after Python's end are refused, also when the host has started it again: its objects are others."""
    program, folder = tmp_path / "embedding", get_config_var("LIBDIR")
    flags = [
        f"-I{get_paths()['include']}",
        f"-L{folder}",
        f"-Wl,-rpath,{folder}",
        f"-lpython{get_config_var('LDVERSION')}",
    ]
    run(COMPILERS[0], CLIENTS / "embedding.c", "-o", program, *flags, "-ldl")
    assert told(program, library, sample_guest) == (0, "0x00000000\n0x80004005\n", "")
    assert told(program, library, sample_guest, "again") == (0, "0x00000000\n0x80004005\n0x80004005\n", "")


def test_callers_who_hold_the_interpreter(library: Path, sample_guest: Path) -> None:
    """ctypes.PyDLL, or an extension module: nobody waits for another's lock with the interpreter in his hand."""
    script = """
import ctypes, sys, threading
sys.setswitchinterval(1e-6)
provider = ctypes.PyDLL(sys.argv[1])
barrier, answers = threading.Barrier(8), []
def first():
    handle = ctypes.c_void_p()
    barrier.wait()
    answers.append((provider.LoadSavedStateFileU8(sys.argv[2].encode(), ctypes.byref(handle)), bool(handle)))
threads = [threading.Thread(target=first) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(set(answers))
"""
    for _ in range(5):
        assert told(sys.executable, "-c", script, library, sample_guest) == (0, "{(0, True)}\n", "")


SUB_INTERPRETER = """
import ctypes, sys
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
text = '''
import ctypes, threading
provider = ctypes.CDLL(%r)
answers = []
def ask():
    handle, count = ctypes.c_void_p(5), ctypes.c_uint32(77)
    codes = [provider.LoadSavedStateFileU8(%r, ctypes.byref(handle)), provider.GetVpCount(handle, ctypes.byref(count))]
    answers.append((*codes, handle.value is None, count.value))
ask()
thread = threading.Thread(target=ask)
thread.start(), thread.join()
right, refused = (0, 0, False, 2), (-2147467259, -2147467259, True, 77)
assert answers[0] in (right, refused) and answers[1] == refused, answers
''' % (sys.argv[1], sys.argv[2].encode())
def main():
    provider = ctypes.CDLL(sys.argv[1])
    handle, count = ctypes.c_void_p(), ctypes.c_uint32()
    assert provider.LoadSavedStateFileU8(sys.argv[2].encode(), ctypes.byref(handle)) == 0
    assert provider.GetVpCount(handle, ctypes.byref(count)) == 0 and count.value == 2
if sys.argv[3] == "main first":
    main()
try:
    other = interpreters.create(isolated=False)
except TypeError:
    other = interpreters.create("legacy")
error = interpreters.run_string(other, text)
assert error is None, error
main()
"""


@pytest.mark.parametrize("order", ["main first", "sub first"])
def test_threads_of_sub_interpreters_are_refused(library: Path, sample_guest: Path, order: str) -> None:
    """They have no part in the main interpreter, where the library lives; no failure may look like success.

    The process's first thread has, whatever interpreter it is in at the moment.
    """
    assert told(sys.executable, "-c", SUB_INTERPRETER, library, sample_guest, order) == (0, "", "")


def test_an_interrupt_reaches_a_python_host(library: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a long call: the call fails, and the host gets its KeyboardInterrupt."""
    state = tmp_path / "large.vmrs"
    noise = os.urandom(1 << 20)
    with vmsavedstate.SavedStateWriter(state) as writer:
        writer.add_processor(0, {"rax": 1})
        writer.add_memory(0, 64 << 20, lambda _, size: noise[:size])
    script = """
import ctypes, signal, sys
provider = ctypes.CDLL(sys.argv[1])
handle, got, buffer = ctypes.c_void_p(), ctypes.c_uint32(), ctypes.create_string_buffer(64 << 20)
assert provider.LoadSavedStateFileU8(sys.argv[2].encode(), ctypes.byref(handle)) == 0
signal.signal(signal.SIGALRM, signal.default_int_handler)
caught = lost = 0
for turn in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, 2e-4 + turn * 5e-6)
        code = provider.ReadGuestPhysicalAddress(handle, ctypes.c_uint64(0), buffer, 64 << 20, ctypes.byref(got))
        for _ in range(30000):
            pass
        lost += code != 0
    except KeyboardInterrupt:
        caught += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
print(caught > 0, lost)
"""
    assert told(sys.executable, "-c", script, library, state) == (0, "True 0\n", "")


def test_an_interrupt_that_is_pending_reaches_a_python_host(library: Path, sample_guest: Path, tmp_path: Path) -> None:
    """It is raised where the library's Python begins, before any of its statements."""
    helper = tmp_path / "interrupt.so"
    run(COMPILERS[0], "-shared", "-fPIC", CLIENTS / "interrupt.c", "-o", helper)
    script = """
import ctypes, sys
provider, helper = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[3])
handle, count = ctypes.c_void_p(), ctypes.c_uint32()
assert provider.LoadSavedStateFileU8(sys.argv[2].encode(), ctypes.byref(handle)) == 0
caught = lost = 0
for turn in range(50):
    try:
        helper.interrupted_call(provider.GetVpCount, handle, ctypes.byref(count))
        for _ in range(2000):
            pass
        lost += 1
    except KeyboardInterrupt:
        caught += 1
print(caught, lost)
"""
    assert told(sys.executable, "-c", script, library, sample_guest, helper) == (0, "50 0\n", "")


@pytest.mark.parametrize("limit", [400_000, 200_000, 60_000])
def test_little_memory_is_no_end_of_the_host(host: Path, library: Path, sample_guest: Path, limit: int) -> None:
    """numpy's linear algebra would end a small process when it is loaded; a few translations do without numpy."""
    command = f"ulimit -v {limit}; exec '{host}' '{library}' '{sample_guest}'"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 42, done
    assert done.stderr == ""


@pytest.fixture(scope="module")
def much_work(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that translates so much that numpy pays, and calls what cannot do without."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc")
    program = tmp_path_factory.mktemp("much") / "much"
    flags = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-lvmsavedstatedumpprovider"]
    run(COMPILERS[0], "-pthread", CLIENTS / "much.c", "-o", program, *flags)
    return program


def test_numpy_comes_late_and_leaves_no_thread_in_the_host(much_work: Path, sample_guest: Path) -> None:
    """Here after one, 30,001 and 60,000 translations; threads; the variable; the scan."""
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([much_work, sample_guest, "1"], capture_output=True, text=True, env=clean)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 0 1 failed 0, threads 1, unset, 0x00000000\n", "")


@pytest.mark.parametrize("late", [False, True], ids=["before", "meanwhile"])
def test_a_host_decides_for_itself_about_numpys_threads(much_work: Path, sample_guest: Path, late: bool) -> None:
    """Its variable stays, also one that it sets when Python has long been started."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "" if late else "2"}
    done = subprocess.run(
        [much_work, sample_guest, "1", *(["env", "2"] if late else [])], capture_output=True, text=True, env=environment
    )
    threads = min(2, len(os.sched_getaffinity(0)))
    assert done.stdout.split(", ")[1:] == [f"threads {threads}", "2", "0x00000000\n"]


NO_ROOM = "this call needs 128 MiB more memory than the limits of this process leave"


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("limit", ["as", "data"])
def test_where_numpy_has_no_room_it_is_not_loaded(
    much_work: Path, sample_guest: Path, limit: str, threads: int
) -> None:
    """The room goes when the library has long been started. Translations go on; what needs numpy returns a code."""
    command = [str(much_work), str(sample_guest), str(threads), limit, "40"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VMSAVEDSTATE_LOG": "-"})
    checkpoints = "0 0 0 " if threads == 1 else ""
    assert (done.returncode, done.stdout) == (0, f"{checkpoints}failed 0, threads 1, unset, 0x8007000E\n")
    assert done.stderr == f"vmsavedstatedumpprovider: 0x8007000E: ScanMemoryForDosImages: {NO_ROOM}\n"
