"""numpy in a process that is no Python program: should a call need it, it is loaded without threads of its own.

Its linear algebra, which nothing here uses, starts one per processor when it is loaded, and ends the process where
memory is short. The variable it heeds is set while it loads, and not longer; and where it would end the process it is
not loaded at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from ...paging import sparing

VARIABLE = "OPENBLAS_NUM_THREADS"
NEEDED = 128 << 20  # bytes of address space; 86 MB measured


def share_process() -> None:
    """Called where Python runs for this library alone: from now on numpy starts no threads in the host."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):  # the other generation may have been here
        sys.meta_path.insert(0, _Finder())
    if not _has_room():
        sparing.never_numpy()


def _has_room() -> bool:
    """Whether the limit of this process, if it has one, leaves enough."""
    import resource  # which Windows does not have

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return True
    try:
        with open("/proc/self/statm", "rb") as numbers:
            used = int(numbers.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        used = 0
    return limit - used >= NEEDED


class _Finder(MetaPathFinder):
    """Has numpy loaded by _Loader. It stays: a list that gets shorter misleads threads that are going through it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "numpy":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Sets the variable around what the real loader does."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if not _has_room():
            raise MemoryError(f"this call needs {NEEDED >> 20} MiB more address space than its limit leaves")
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._real  # as if nobody had stood between
        given = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = given or "1"  # an empty one is none
        try:
            self._real.exec_module(module)
        finally:
            if given is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = given
