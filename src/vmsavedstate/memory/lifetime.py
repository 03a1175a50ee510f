"""Whether a saved state is open. After it is closed nothing answers any more, however much had been looked up."""

from __future__ import annotations

import errno
import threading
import weakref
from typing import Protocol

from ..errors import SourceError


class Forgetful(Protocol):
    """Something that has looked things up, and forgets them when the state is closed."""

    def forget(self) -> None:
        """Drop everything that could answer without asking the lifetime."""
        ...


class Lifetime:
    """Shared by all views of one saved state."""

    def __init__(self, file: str | None = None) -> None:
        self.file = file
        self.closed = False
        self._lock = threading.Lock()
        self._views: weakref.WeakSet[Forgetful] = weakref.WeakSet()

    def add(self, view: Forgetful) -> None:
        """Let a view know when the state is closed."""
        with self._lock:
            self._views.add(view)

    def check(self) -> None:
        """Raise SourceError where the state is closed."""
        if self.closed:
            raise SourceError(
                "the saved state is closed",
                number=errno.EBADF,
                file=self.file,
                remedy="open it again, or read before close()",
            )

    def end(self) -> None:
        """The state is closed: every view forgets what it has looked up."""
        self.closed = True
        with self._lock:
            views = list(self._views)
        for view in views:
            view.forget()
