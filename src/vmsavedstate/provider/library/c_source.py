"""The C source of the library: from the table of functions and ``glue.c`` to one file that a compiler takes."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from ..._version import VERSION
from .signatures import HANDLE, Function, functions

if TYPE_CHECKING:
    import cffi

HERE = Path(__file__).parent
PACKAGES = ("vmsavedstate", "numpy", "_cffi_backend")  # what runs behind the library
INCLUDE = HERE / "include"

# How Python sees the types of the headers: handles and characters as numbers, structures as bytes.
_PLAIN = {
    HANDLE: "uintptr_t",
    "LPCWSTR": "const void *", "LPCSTR": "const char *", "LPVOID": "void *", "PVOID": "void *",
    "UINT8": "uint8_t", "UINT32": "uint32_t", "DWORD": "uint32_t", "ULONG": "uint32_t", "UINT64": "uint64_t",
    "GUEST_VIRTUAL_ADDRESS": "uint64_t", "GUEST_PHYSICAL_ADDRESS": "uint64_t",
    "BOOL": "int32_t", "VIRTUAL_PROCESSOR_ARCH": "int32_t", "PAGING_MODE": "int32_t",
    "LPWSTR *": "void **", "GPA_MEMORY_CHUNK *": "uint64_t *",
    "VIRTUAL_PROCESSOR_REGISTER *": "void *", "GUEST_OS_INFO *": "void *", "MODULE_INFO *": "void *",
    "FOUND_IMAGE_CALLBACK": "void *", "GUEST_SYMBOLS_PROVIDER_DEBUG_INFO_CALLBACK": "void *",
}  # fmt: skip

# The C declarations that cffi gets besides the trampolines.
_DECLARATIONS = """
void *malloc(size_t size);
typedef struct { const char *PdbName; uint64_t ImageBaseAddress; uint32_t ImageSize; uint32_t Timestamp; } DOS_IMAGE_INFO;
typedef int32_t (*found_image)(void *context, DOS_IMAGE_INFO *image);
"""
# cffi shows Python one set of types for both generations.
_OLD_IMAGE_TYPES = (
    "typedef struct { LPCSTR PdbName; UINT64 ImageBaseAddress; DWORD ImageSize; UINT32 Timestamp; } DOS_IMAGE_INFO;\n"
)
_TYPEDEF = "typedef BOOL (*found_image)(void *, DOS_IMAGE_INFO *);\n"

# Runs in the host's Python before anything is attached, and leaves what is wrong in `failure`. The host may be a Python
# program that lacks these packages, or has others of the same name; `ours` says that it is none, and Python is here for the
# library alone.
_BOOTSTRAP = """
failure = ""
try:
    import importlib.util, signal, sys
    lacking = [name for name in {packages} if importlib.util.find_spec(name) is None]
    if lacking:
        sys.path.extend(path for path in {paths} if path not in sys.path)
        importlib.invalidate_caches()
    import _cffi_backend, vmsavedstate
    if vmsavedstate.__version__ != {version}:
        failure = "this process has vmsavedstate " + vmsavedstate.__version__ + ", the library is of " + {version}
    else:
        import vmsavedstate.provider.library.calls, vmsavedstate.provider.library.late_numpy
        if ours:
            vmsavedstate.provider.library.late_numpy.share_process()
except BaseException as error:
    failure = type(error).__name__ + ": " + str(error)
"""
_ATTACH = """
from vmsavedstate.provider.library.calls import attach
from {module} import ffi, lib
attach(ffi, lib, {generation})
"""


def module_name(generation: int) -> str:
    """The name under which the library's own module is known to Python; both may be in one process."""
    return f"_vmsavedstate_provider_{generation}"


def make_ffi(generation: int) -> cffi.FFI:
    """The cffi description of a library; ``emit_c_code`` of it writes the source. Needs cffi."""
    import cffi

    ffi = cffi.FFI()
    ffi.embedding_api(
        "".join(f"{_trampoline(item)};\n" for item in _answered(generation)) + "int32_t vmss_attached(void);"
    )
    ffi.cdef(_DECLARATIONS)
    module = module_name(generation)
    ffi.embedding_init_code(_ATTACH.format(module=module, generation=generation))
    ffi.set_source(module, _preamble(generation))
    return ffi


def _package_paths() -> list[str]:
    """The folders that an interpreter needs in sys.path to find the packages as this one does."""
    paths: dict[str, None] = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).resolve()
            paths[str(path.parent.parent if spec.submodule_search_locations else path.parent)] = None
    return list(paths)


def _answered(generation: int) -> list[Function]:
    """The functions that Python answers: all but the one that has no failure to return."""
    return [item for item in functions(generation) if item.returns == "HRESULT"]


def _preamble(generation: int) -> str:
    """Everything that stands before what cffi writes."""
    bootstrap = _BOOTSTRAP.format(packages=repr(PACKAGES), paths=repr(_package_paths()), version=repr(VERSION))
    defines = {
        "VMSS_EXECUTABLE": _c_string(sys.executable),
        "VMSS_LIBPYTHON": _c_string(str(sysconfig.get_config_var("INSTSONAME") or "")),
        "VMSS_BOOTSTRAP": _c_string(bootstrap),
        "VMSAVEDSTATE_SDK": "22000" if generation == 2021 else "19041",
    }
    parts = [f"#define {name} {value}\n" for name, value in defines.items()]
    parts += [(HERE / "glue.c").read_text(), _TYPEDEF if generation == 2021 else _OLD_IMAGE_TYPES + _TYPEDEF]
    for item in functions(generation):
        if item.returns == "HRESULT":
            parts.append(f"extern {_trampoline(item)};\n")
        parts += [_wrapper(item, "", 2), *([_wrapper(item, "W32", 4), _wrapper(item, "U8", 1)] if item.wide else [])]
    return "".join(parts)


def _trampoline(item: Function) -> str:
    """The prototype of the function that Python answers; ``width`` is the bytes of a character."""
    parameters = ["int width"] if item.wide else []
    parameters += [f"{_python_type(kind)} {name}" for kind, name in item.parameters]
    return f"int32_t vmss_{item.name}({', '.join(parameters)})"


def _python_type(kind: str) -> str:
    if kind in _PLAIN:
        return _PLAIN[kind]
    return f"{_PLAIN[kind.removesuffix(' *')]} *"


def _wrapper(item: Function, suffix: str, width: int) -> str:
    """The exported function: what is set even on failure, Python's start, Python's answer."""
    strings = {2: {}, 4: {"LPCWSTR": "const wchar_t *", "LPWSTR *": "wchar_t **"},
               1: {"LPCWSTR": "LPCSTR", "LPWSTR *": "LPSTR *"}}[width]  # fmt: skip
    parameters = ", ".join(f"{strings.get(kind, kind)} {name}" for kind, name in item.parameters)
    head = f"EXTERN_C EXPORTED {item.returns} WINAPI {item.name}{suffix}({parameters})\n{{\n"
    if item.returns != "HRESULT":
        return f"{head}    (void){item.parameters[0][1]};\n    return NULL;\n}}\n"
    preset = "".join(f"    if ({name} != NULL)\n        *{name} = {value};\n" for name, value in _presets(item))
    arguments = [str(width)] if item.wide else []
    arguments += [f"({_python_type(kind)}){name}" for kind, name in item.parameters]
    answer = f"vmss_{item.name}({', '.join(arguments)})"
    return f"{head}{preset}    HRESULT ready = enter();\n    return ready != S_OK ? ready : leave({answer});\n}}\n"


def _presets(item: Function) -> list[tuple[str, str]]:
    """The outputs that a failure sets (API specification, 6 and 10): all others stay as they were."""
    presets = [(name, "0") for _, name in item.parameters if name == "bytesRead"]
    presets += [(name, "NULL") for kind, name in item.parameters if kind == f"{HANDLE} *"]
    if item.name == "LocateSavedStateFiles":
        presets += [(name, "NULL") for kind, name in item.parameters if kind == "LPWSTR *"]
    return presets


def _c_string(text: str) -> str:
    """A C string literal of the bytes that the system takes for ``text``; what C might read otherwise as octal escapes."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')  # ? begins trigraphs
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'
