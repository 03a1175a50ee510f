"""What may be asked for in one read: addresses of 64 bits, at most 4 GiB, a fill byte. The same for both address spaces."""

from __future__ import annotations

import operator

from ..errors import InvalidArgumentError

MAX_READ = 1 << 32
MAX_ADDRESS = 1 << 64


def check_address(address: int) -> int:
    """The address as a Python integer; raises InvalidArgumentError unless it is from 0 to 2**64 - 1."""
    try:
        number = operator.index(address)
    except TypeError as error:
        raise InvalidArgumentError(f"{address!r} is not an address") from error
    if not 0 <= number < MAX_ADDRESS:
        raise InvalidArgumentError(f"the address {number:#x} is not between 0 and 2**64 - 1")
    return number


def check_request(address: int, size: int, fill: int | None) -> None:
    """Raise InvalidArgumentError for a read that cannot be meant."""
    if address < 0 or size < 0:
        raise InvalidArgumentError(f"address {address:#x} and size {size:#x} must not be negative")
    if address + size > MAX_ADDRESS:
        raise InvalidArgumentError(f"{size:#x} bytes from {address:#x} leave the address space of 64 bits")
    if size > MAX_READ:
        raise InvalidArgumentError(f"{size:#x} bytes are more than one read delivers", remedy="read in pieces of 4 GiB")
    if fill is not None and not 0 <= fill <= 255:
        raise InvalidArgumentError(f"the fill byte {fill} is not between 0 and 255")
