"""LocateSavedStateFiles without a Hyper-V host: a virtual machine by its name in folders that are named for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import (
    ERROR_FILE_NOT_FOUND,
    ERROR_NOT_SUPPORTED,
    InvalidArgumentError,
    NotProvidedError,
    SourceError,
    VmSavedStateError,
)
from ..state import open_store

FOLDERS = "VMSAVEDSTATE_LOCATE"
NAME_KEY = "/configuration/properties/name"  # as real .vmcx files have it


class SavedStateFiles(NamedTuple):
    """The three answers of LocateSavedStateFiles: paths, the empty string for those that do not apply."""

    bin_path: str
    vsv_path: str
    vmrs_path: str


def LocateSavedStateFiles(vm_name: str, snapshot_name: str | None = None) -> SavedStateFiles:
    """The files of a virtual machine by its name; three empty strings where none is found.

    Microsoft's provider asks WMI of a Hyper-V host. Here the folders in the environment variable VMSAVEDSTATE_LOCATE
    (separated as in PATH) are searched, subfolders included, for a ``.vmcx`` that holds the name, without regard to case,
    and has a ``.vmrs`` of the same file name beside it.

    Raises NotProvidedError (0x80070032) without that variable, and for checkpoints, whose relation to a machine is in no
    published key; InvalidArgumentError where several machines have the name; SourceError (0x80070002) for a folder
    that is not there.
    """
    folders = os.environ.get(FOLDERS)
    if not folders or snapshot_name:
        what = f"checkpoint {snapshot_name!r} of {vm_name!r}" if snapshot_name else repr(vm_name)
        raise NotProvidedError(
            f"the files of {what} can be found by a Hyper-V host only",
            remedy=f"give the path to a load function, or name folders with .vmcx and .vmrs files in {FOLDERS}",
            hresult=ERROR_NOT_SUPPORTED,
        )
    named = [folder for folder in folders.split(os.pathsep) if folder]
    for folder in named:
        if not os.path.isdir(folder):
            raise SourceError(
                "there is no such folder",
                number=errno.ENOENT,
                file=folder,
                remedy=f"{FOLDERS} names folders",
                hresult=ERROR_FILE_NOT_FOUND,
            )
    found = sorted({state for folder in named for state in _states(folder, vm_name)})
    if len(found) > 1:
        raise InvalidArgumentError(f"{len(found)} machines are called {vm_name!r}: {', '.join(map(str, found))}")
    return SavedStateFiles("", "", str(found[0]) if found else "")


def _states(folder: str, name: str) -> Iterator[Path]:
    """The ``.vmrs`` files of the machines of a name."""
    for path in Path(folder).rglob("*"):
        if path.suffix.lower() != ".vmcx" or not path.is_file() or _name_in(path) != name.casefold():
            continue
        yield from (other for other in path.parent.glob(f"{_literal(path.stem)}.*") if other.suffix.lower() == ".vmrs")


def _name_in(path: Path) -> str | None:
    """The name a configuration holds, case folded; None where it holds none or cannot be read."""
    try:
        with open_store(path) as store:
            entry = store.find(NAME_KEY)
            value = None if entry is None else entry.value
    except VmSavedStateError:
        return None
    return value.casefold() if isinstance(value, str) else None


def _literal(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)
