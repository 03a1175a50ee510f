"""Whether a translation does better without numpy, which takes as long to load as thousands of walks.

Tiles (:mod:`.tiles`) are far quicker than walks, and need numpy. A process that translates little is better off without;
one that translates much should not wait long for them. So walks serve until they have taken about as long as loading
takes (30 to 60 ms, against 15 to 20 us for a walk): in no case is that more than twice the best that could be.
"""

from __future__ import annotations

import sys

_left = 2000


def without_numpy() -> bool:
    """Whether the next translation of this process should be a walk; True counts as one."""
    global _left
    if _left <= 0 or "numpy" in sys.modules:
        return False
    _left -= 1  # threads that do this at once may lose count by a few, which harms nobody
    return True


def never_numpy() -> None:
    """From now on walks serve for ever: numpy cannot be loaded here."""
    global _left
    _left = sys.maxsize
