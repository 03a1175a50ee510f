"""The base of Microsoft's enumerations: Python names, numbers as documented, and the C name beside each."""

from __future__ import annotations

from enum import IntEnum


class CEnum(IntEnum):
    """An IntEnum whose members also know their name in Microsoft's headers.

    A member is declared as ``NAME = number, "C_Name"``, further spellings of the C name behind it.
    """

    c_names: tuple[str, ...]

    def __new__(cls, value: int, *c_names: str) -> CEnum:
        """Make one member."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.c_names = c_names
        return member

    @property
    def c_name(self) -> str:
        """The name in the SDK headers."""
        return self.c_names[0]

    @classmethod
    def from_c_name(cls, name: str) -> CEnum:
        """The member with this C name, in any spelling Microsoft uses.

        Raises KeyError.
        """
        for member in cls:
            if name in member.c_names:
                return member
        raise KeyError(name)
