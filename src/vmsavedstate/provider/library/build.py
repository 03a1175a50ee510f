"""Compiles the C library of both generations, and lays it out as a prefix: include, lib, lib/pkgconfig, examples."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..._version import VERSION
from ...errors import ERROR_WRITE_FAULT, LibraryBuildError, SourceError
from .c_source import HERE, INCLUDE, make_ffi
from .signatures import GENERATIONS, exported

EXAMPLES = HERE / "examples"
DARWIN = sys.platform == "darwin"
COMPILERS = ("cc", "gcc", "clang")
HEADERS_REMEDY = "install Python's development files: python3-dev (Debian, Ubuntu), python3-devel (Fedora, SUSE)"
SHARED_REMEDY = (
    f"{HEADERS_REMEDY}; with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {platform.python_version()}"
)


def library_name(generation: int) -> str:
    """The name without prefix and ending, as ``-l`` takes it."""
    return "vmsavedstatedumpprovider" if generation == 2021 else f"vmsavedstatedumpprovider-{generation}"


def library_file(generation: int) -> str:
    """The file name on this platform."""
    return f"lib{library_name(generation)}.{'dylib' if DARWIN else 'so'}"


def build(out: str | os.PathLike[str]) -> list[Path]:
    """Make both libraries and everything beside them under the folder ``out``; the files made.

    What is there already is replaced, file by file, and only when everything has been built. Environment: ``CC``,
    ``CFLAGS``, ``LDFLAGS``.

    Raises LibraryBuildError, which says what has to be installed; SourceError where ``out`` cannot be written.
    """
    compiler = _requirements()
    target = Path(out)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".vmrs-library-", dir=target) as folder:
            made = Path(folder)
            (made / "lib" / "pkgconfig").mkdir(parents=True)
            for generation in GENERATIONS:
                _compile(compiler, generation, made)
                _write_pkgconfig(generation, made / "lib" / "pkgconfig")
            for source in (INCLUDE, EXAMPLES):
                shutil.copytree(source, made / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            return list(_moved(made, target))
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"cannot write: {error.strerror or error}", number=error.errno, file=str(error.filename or target),
            remedy="name a folder that can be written", hresult=ERROR_WRITE_FAULT,
        ) from error  # fmt: skip


def _requirements() -> list[str]:
    """The compiler's command, when everything else is there too. Raises LibraryBuildError."""
    if os.name == "nt":
        raise LibraryBuildError(
            "the C library is for Linux and macOS",
            remedy="on Windows link Microsoft's own, or use the Python functions",
        )
    if importlib.util.find_spec("cffi") is None:
        raise LibraryBuildError("the Python package cffi is missing", remedy="pip install cffi setuptools")
    chosen = _words("CC") or next(([name] for name in COMPILERS if shutil.which(name)), [])
    if not chosen or shutil.which(chosen[0]) is None:
        remedy = (
            "install one: gcc (apt-get install gcc, dnf install gcc), or Xcode's command line tools; CC names another"
        )
        raise LibraryBuildError(f"there is no C compiler{f' {chosen[0]!r}' if chosen else ''}", remedy=remedy)
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        raise LibraryBuildError("Python's headers are missing", file=str(header), remedy=HEADERS_REMEDY)
    shared = _shared_python()
    if not shared.is_file():
        raise LibraryBuildError("Python's shared library is missing", file=str(shared), remedy=SHARED_REMEDY)
    return chosen


def _words(variable: str) -> list[str]:
    """The words of an environment variable, quoted as in a shell. Raises LibraryBuildError."""
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise LibraryBuildError(f"{variable} cannot be read: {error}", remedy="check its quotes") from error


def _shared_python() -> Path:
    """Where the linker finds Python's shared library."""
    name = str(sysconfig.get_config_var("LDLIBRARY") or "")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        name = f"libpython{sysconfig.get_config_var('LDVERSION')}.{'dylib' if DARWIN else 'so'}"
    return Path(str(sysconfig.get_config_var("LIBDIR")), name)


def _compile(compiler: list[str], generation: int, made: Path) -> None:
    source = made / f"provider_{generation}.c"
    with contextlib.redirect_stdout(io.StringIO()):  # cffi prints what it does
        make_ffi(generation).emit_c_code(str(source))
    folder = str(_shared_python().parent)
    command = [
        *compiler, "-O2", "-fPIC", "-pthread", *_words("CFLAGS"), "-Wno-error",
        f"-I{sysconfig.get_paths()['include']}", f"-I{INCLUDE}", str(source),
        "-o", str(made / "lib" / library_file(generation)),
        *_link_flags(generation, made), f"-L{folder}", f"-lpython{sysconfig.get_config_var('LDVERSION')}",
        *_linker("-rpath", folder), *([] if DARWIN else ["-ldl"]), *_words("LDFLAGS"),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace")
    source.unlink()
    if run.returncode:
        said = " | ".join(run.stderr.strip().splitlines()[-3:]) or f"exit code {run.returncode}"
        raise LibraryBuildError(f"{compiler[0]} failed: {said}", remedy=f"the command was {shlex.join(command)}")


def _link_flags(generation: int, made: Path) -> list[str]:
    """What makes a shared library that exports nothing but the names of the interface."""
    names, symbols = exported(generation), made / "symbols"
    if DARWIN:
        symbols.write_text("".join(f"_{name}\n" for name in names))
        name = f"@rpath/{library_file(generation)}"
        return ["-dynamiclib", *_linker("-exported_symbols_list", str(symbols)), *_linker("-install_name", name)]
    symbols.write_text(f"{{ global: {' '.join(f'{name};' for name in names)} local: *; }};\n")
    return ["-shared", *_linker("--version-script", str(symbols)), *_linker("-soname", library_file(generation))]


def _linker(*arguments: str) -> list[str]:
    """Arguments for the linker; -Wl would part them at commas, which paths may have."""
    return [part for argument in arguments for part in ("-Xlinker", argument)]


def _write_pkgconfig(generation: int, folder: Path) -> None:
    name = library_name(generation)
    flags = "" if generation == 2021 else " -DVMSAVEDSTATE_SDK=19041"
    generations = "SDK 22000 and later" if generation == 2021 else "SDK 17134 to 19041"
    (folder / f"{name}.pc").write_text(
        "prefix=${pcfiledir}/../..\n\n"
        f"Name: {name}\n"
        f"Description: Reads saved states of Hyper-V with the interface of {generations}\n"
        f"Version: {VERSION}\n"
        f"Cflags: -I${{prefix}}/include{flags}\n"
        f"Libs: -L${{prefix}}/lib -Wl,-rpath,${{prefix}}/lib -l{name}\n"
    )


def _moved(made: Path, target: Path) -> Iterator[Path]:
    """Put every file in its place; each is whole at any moment."""
    for path in sorted(made.rglob("*")):
        place = target / path.relative_to(made)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif path.name != "symbols":
            os.replace(path, place)
            yield place
