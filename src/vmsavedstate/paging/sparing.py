"""Whether a translation does better without numpy, which takes 30 to 60 ms and 86 MB of address space to load, at least.

Tiles (:mod:`.tiles`) need it. A process that translates little is better off with :mod:`.leaves`, which read the same
tables and take half a microsecond longer for an address: 50,000 of them take as long as loading. And numpy's linear
algebra ends a process that has no room for it and its threads: where limits leave too little, translations never load it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

VARIABLE = "OPENBLAS_NUM_THREADS"
BASE, FOR_A_THREAD = 64 << 20, 64 << 20  # bytes, with a margin

_left = 50_000
_never = False


def without_numpy() -> bool:
    """Whether the next translation of this process should do without; True may count as one."""
    global _left
    if _never:
        return True
    if sys.modules.get("numpy") is not None:
        return False
    if _left > 0:
        _left -= 1  # threads that do this at once may lose count by a few, which harms nobody
        return True
    if has_room():
        return False
    never_numpy()
    return True


def never_numpy() -> None:
    """From now on every translation does without: numpy cannot be loaded here."""
    global _never
    _never = True


def default_threads() -> int:
    """How many threads numpy's linear algebra would start."""
    given = os.environ.get(VARIABLE, "")
    return int(given) if given.isdecimal() and int(given) else os.cpu_count() or 1


threads: Callable[[], int] = default_threads  # who looks after the loading of numpy puts a better answer here


def needed() -> int:
    """Bytes that loading numpy may take."""
    return BASE + FOR_A_THREAD * threads()


def has_room() -> bool:
    """Whether the limits of this process, if it has any, leave as much memory as numpy needs."""
    try:
        import resource
    except ImportError:  # Windows
        return True
    limits = {which: resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    if set(limits.values()) == {resource.RLIM_INFINITY}:
        return True
    try:
        with open("/proc/self/statm", "rb") as numbers:
            pages = [int(number) for number in numbers.read().split()]
    except OSError:  # not Linux
        pages = [0] * 7
    used = {resource.RLIMIT_AS: pages[0], resource.RLIMIT_DATA: pages[5]}
    return all(
        limit == resource.RLIM_INFINITY or limit - used[which] * resource.getpagesize() >= needed()
        for which, limit in limits.items()
    )
