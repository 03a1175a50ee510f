"""Bounds of the public codec functions."""

from __future__ import annotations

import pytest

from vmsavedstate import codec
from vmsavedstate.errors import (
    InvalidArgumentError,
)


@pytest.mark.parametrize("size", [-1, 1 << 62, (64 << 20) + 1])
def test_absurd_output_sizes(size: int) -> None:
    with pytest.raises(InvalidArgumentError):
        codec.xpress_decode(b"", size)
