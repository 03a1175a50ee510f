"""The C library, built for tests where that is possible."""

from __future__ import annotations

import os
from pathlib import Path

from vmsavedstate.errors import LibraryBuildError
from vmsavedstate.provider.library.build import build

REQUIRED = (
    "VMSAVEDSTATE_REQUIRE_LIBRARY"  # set where everything is installed: a library that cannot be built is an error
)


def built(folder: Path) -> Path | LibraryBuildError:
    """The folder with the library in it, or what is missing here to build it."""
    try:
        build(folder)
    except LibraryBuildError as error:
        if os.environ.get(REQUIRED):
            raise
        return error
    return folder
