"""Numbers of callers as arrays of 64 bits: for batches of pages and of addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ..integers import as_int


def as_uint64(values: Sequence[int] | npt.NDArray[Any], what: str) -> npt.NDArray[np.uint64]:
    """``values`` as a contiguous uint64 array of the same shape; ``what`` names them in the error.

    Raises InvalidArgumentError for anything but integers from 0 to 2**64 - 1; bools are none. What is not an array of
    integers goes through Python's own: numpy makes floating-point numbers of a list that has small and large ones,
    and some of its versions wrap negative ones.
    """
    try:
        given = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
        if given.dtype == object:
            numbers = [as_int(value, "it") for value in given.reshape(-1)]
            if any(not 0 <= number < 1 << 64 for number in numbers):
                raise OverflowError
            return np.array(numbers, dtype=np.uint64).reshape(given.shape)
        if given.dtype.kind not in "iu" or (given.dtype.kind == "i" and given.size and int(given.min()) < 0):
            raise TypeError(given.dtype)
        return given.astype(np.uint64, order="C", copy=False)
    except (OverflowError, TypeError, ValueError) as error:  # InvalidArgumentError is a ValueError
        raise InvalidArgumentError(f"{what} are integers from 0 to 2**64 - 1") from error
