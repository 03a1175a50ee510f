"""Whether a translation does better without numpy, which takes 30 to 60 ms and 86 MB of address space to load.

Tiles (:mod:`.tiles`) need it. A process that translates little is better off with :mod:`.leaves`, which read the same
tables and take half a microsecond longer for an address: 50,000 of them take as long as loading. Where numpy has no
room it is not loaded at all, for its linear algebra ends the process then.
"""

from __future__ import annotations

import sys

NEEDED = 128 << 20  # bytes, with a margin

_left = 50_000


def without_numpy() -> bool:
    """Whether the next translation of this process should do without; True counts as one."""
    global _left
    if _left > 0 and "numpy" not in sys.modules:
        _left -= 1  # threads that do this at once may lose count by a few, which harms nobody
        return True
    if "numpy" in sys.modules or has_room():
        return False
    never_numpy()
    return True


def never_numpy() -> None:
    """From now on every translation does without: numpy cannot be loaded here."""
    global _left
    _left = sys.maxsize


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
        limit == resource.RLIM_INFINITY or limit - used[which] * resource.getpagesize() >= NEEDED
        for which, limit in limits.items()
    )
