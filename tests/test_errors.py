"""Errors as objects."""

from __future__ import annotations

import copy
import pickle

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
