"""What may be asked for in one read: addresses of 64 bits, at most 4 GiB, a fill byte. The same for both address spaces."""

from __future__ import annotations

from ..errors import InvalidArgumentError
from ..integers import as_int, as_optional_int

MAX_READ = 1 << 32
MAX_ADDRESS = 1 << 64


def check_address(address: object) -> int:
    """The address as a plain int; raises InvalidArgumentError unless it is from 0 to 2**64 - 1."""
    number = as_int(address, "an address")
    if not 0 <= number < MAX_ADDRESS:
        raise InvalidArgumentError(f"the address {number:#x} is not between 0 and 2**64 - 1")
    return number


def check_range(address: object, size: object) -> tuple[int, int]:
    """Address and size of a range of any length, as plain ints. Raises InvalidArgumentError where it cannot be meant."""
    start, length = as_int(address, "an address"), as_int(size, "a size")
    if start < 0 or length < 0:
        raise InvalidArgumentError(f"address {start:#x} and size {length:#x} must not be negative")
    if start + length > MAX_ADDRESS:
        raise InvalidArgumentError(f"{length:#x} bytes from {start:#x} leave the address space of 64 bits")
    return start, length


def check_request(address: object, size: object, fill: object) -> tuple[int, int, int | None]:
    """Address, size and fill byte of a read, as plain ints. Raises InvalidArgumentError where it cannot be meant."""
    start, length = check_range(address, size)
    if length > MAX_READ:
        raise InvalidArgumentError(
            f"{length:#x} bytes are more than one read delivers", remedy="read in pieces of 4 GiB"
        )
    byte = as_optional_int(fill, "the fill byte")
    if byte is not None and not 0 <= byte <= 255:
        raise InvalidArgumentError(f"the fill byte {byte} is not between 0 and 255")
    return start, length, byte


def check_bounds(start: object, end: object, limit: int = MAX_ADDRESS) -> tuple[int, int]:
    """First address and end (excluded) of a search or a listing as plain ints, the end cut to ``limit``."""
    first, last = check_address(start), as_int(end, "an end")
    if last < 0:
        raise InvalidArgumentError(f"the end {last:#x} must not be negative")
    return first, min(last, limit)
