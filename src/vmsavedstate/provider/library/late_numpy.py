"""numpy in a process that is no Python program: loaded late, and without threads of its own."""

from __future__ import annotations

import importlib
import os
import sys
import threading

VARIABLE = "OPENBLAS_NUM_THREADS"

_wanted = False
_lock = threading.Lock()


def share_process() -> None:
    """Called where Python runs for this library alone: numpy shall start no threads in the host.

    Its linear algebra, which nothing here uses, starts one per processor when it is loaded, and ends the process where it
    cannot. The variable it heeds is set while it loads, at the first call that needs it, and not longer.
    """
    global _wanted
    _wanted = True


def load_numpy() -> None:
    """Before a call that translates: numpy, if it is still to be loaded."""
    global _wanted
    if not _wanted:
        return
    with _lock:
        if "numpy" not in sys.modules:
            given = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = given or "1"  # an empty one is none
            try:
                importlib.import_module("numpy")
            finally:
                if given is None:
                    del os.environ[VARIABLE]
                else:
                    os.environ[VARIABLE] = given
        _wanted = False
