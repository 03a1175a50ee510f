"""Numbers of callers as arrays of 64 bits: for batches of pages and of addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError


def as_uint64(values: Sequence[int] | npt.NDArray[Any], what: str) -> npt.NDArray[np.uint64]:
    """``values`` as a contiguous uint64 array of the same shape; ``what`` names them in the error.

    Raises InvalidArgumentError for anything but integers from 0 to 2**64 - 1. A list goes through Python's own integers:
    numpy makes floating-point numbers of one that has small and large ones.
    """
    try:
        given = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
        if given.dtype == object:
            if not all(isinstance(value, (int, np.integer)) for value in given.flat):
                raise TypeError("not integers")
            return given.astype(np.uint64)
        if given.dtype.kind not in "iu" or (given.dtype.kind == "i" and given.size and int(given.min()) < 0):
            raise TypeError(given.dtype)
        return given.astype(np.uint64, order="C", copy=False)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{what} are integers from 0 to 2**64 - 1") from error
