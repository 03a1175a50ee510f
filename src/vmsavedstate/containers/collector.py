"""Keeps the garbage collector out of the way while a large key tree is built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """No cyclic collection inside.

    A 64 GiB guest has 65,536 keys, none of which is garbage while the tree grows; the collector would walk over all of
    them again and again, a quarter of the time of opening.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
