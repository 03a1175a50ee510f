"""Errors as objects."""

from __future__ import annotations

import copy
import errno
import os
import pickle
from pathlib import Path

import pytest

import vmsavedstate
from vmsavedstate.errors import (
    CodecError,
    GuestMemoryError,
    SourceError,
)


@pytest.mark.parametrize(
    "error",
    [
        GuestMemoryError("gone", start=1, end=2, reason="hole", file="x"),
        CodecError("bad", position=3, produced=4),
        SourceError("no", file="x", offset=5, remedy="r", hresult=0x80070002),
    ],
)
def test_errors_travel_between_processes(error: vmsavedstate.VmSavedStateError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
        assert other.hresult == error.hresult


NUMBERS = [
    (errno.ENOENT, FileNotFoundError), (errno.EACCES, PermissionError), (errno.ENOTDIR, NotADirectoryError),
    (errno.EISDIR, IsADirectoryError), (errno.EEXIST, FileExistsError), (errno.EIO, OSError),
]  # fmt: skip


@pytest.mark.parametrize(("number", "kind"), NUMBERS)
def test_source_errors_are_the_built_in_ones(number: int, kind: type[OSError]) -> None:
    error = SourceError("no", number=number, file="x")
    for item in (error, pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert isinstance(item, kind) and isinstance(item, SourceError) and isinstance(item, OSError)
        assert (item.errno, item.filename, item.strerror) == (number, "x", os.strerror(number))
        assert str(item) == "x: no"


def test_errors_of_real_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileNotFoundError) as caught:
        vmsavedstate.open(tmp_path / "absent")
    assert caught.value.errno == errno.ENOENT and caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        vmsavedstate.open(tmp_path)
    with pytest.raises(NotADirectoryError):
        vmsavedstate.open_store(tmp_path / "file" / "x")
    for kind in (vmsavedstate.StoreWriter, vmsavedstate.SavedStateWriter):
        with pytest.raises(FileExistsError) as exists:
            kind(tmp_path / "file")
        assert exists.value.errno == errno.EEXIST and isinstance(exists.value, SourceError)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_permission(monkeypatch: pytest.MonkeyPatch, sample_guest: Path) -> None:
    def refused(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(PermissionError) as caught:
        vmsavedstate.open(sample_guest)
    assert isinstance(caught.value, SourceError) and caught.value.errno == errno.EACCES
