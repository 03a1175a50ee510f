"""numpy in a process that is no Python program: should a call need it, it is loaded without threads of its own.

Its linear algebra, which nothing here uses, starts one per processor when it is loaded, and ends the process where
memory is short. The variable it reads is set while it loads, and not longer; and where it would end the process it is
not loaded at all.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from ...paging import sparing

VARIABLE = sparing.VARIABLE.encode()


def share_process() -> None:
    """Called where Python runs for this library alone: from now on numpy starts no threads in the host."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):  # the other generation may have been here
        sys.meta_path.insert(0, _Finder())
        sparing.threads = threads


def _c() -> ctypes.CDLL:
    """The functions for the environment: Python knows that of its start, and the host may have changed it since."""
    c = ctypes.CDLL(None)
    c.getenv.restype = ctypes.c_char_p
    return c


def threads() -> int:
    """How many threads numpy's linear algebra will have: what the host says, or one."""
    given = _c().getenv(VARIABLE) or b""
    return int(given) if given.isdigit() and int(given) else 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Sets the variable, unless the host has; an empty one is none."""
    c = _c()
    given = c.getenv(VARIABLE)
    c.setenv(VARIABLE, given or b"1", 1)
    try:
        yield
    finally:
        c.unsetenv(VARIABLE) if given is None else c.setenv(VARIABLE, given, 1)


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
    """Looks after what the real loader does."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if not sparing.has_room():
            needed = sparing.needed() >> 20
            raise MemoryError(f"this call needs {needed} MiB more memory than the limits of this process leave")
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._real  # as if nobody had stood between
        with one_thread():
            self._real.exec_module(module)
