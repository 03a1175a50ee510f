"""The registers of one processor and VTL, as a mapping and as attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import RegisterNotAvailableError
from ..registers.names import RegisterNames
from ..registers.values import RegisterValue


class Registers(RegisterNames, Mapping[str, RegisterValue]):
    """Registers by name: ``registers["rip"]`` or ``registers.rip``.

    Integers for general, control, debug, system and 128-bit registers, SegmentRegister for ``cs``.. (``base``,
    ``limit``, ``selector``, ``attributes``), TableRegister for ``gdtr`` and ``idtr`` (``base``, ``limit``), FpuState
    for ``fpu``. x86 processors have the 64-bit names whatever code they ran. A register the state does not hold is
    not in the mapping; asking for it raises RegisterNotAvailableError, which is both a KeyError and an
    AttributeError.
    """

    def __init__(self, load: Callable[[], dict[str, RegisterValue]], owner: str) -> None:
        self._load = load
        self._owner = owner
        self._values: dict[str, RegisterValue] | None = None

    def _all(self) -> dict[str, RegisterValue]:
        if self._values is None:
            self._values = self._load()
        return self._values

    def __getitem__(self, name: str) -> RegisterValue:
        """The register's value; raises RegisterNotAvailableError."""
        try:
            return self._all()[name]
        except KeyError:
            raise RegisterNotAvailableError(
                f"the saved state holds no register {name!r} for {self._owner}",
                remedy="the registers it holds are the keys of this mapping",
            ) from None

    if not TYPE_CHECKING:  # type checkers know the names by RegisterNames, and must reject unknown ones

        def __getattr__(self, name: str) -> RegisterValue:
            """The same as an attribute."""
            if name.startswith("_"):
                raise AttributeError(name)
            return self[name]

    def __iter__(self) -> Iterator[str]:
        """The names of the registers the state holds."""
        return iter(self._all())

    def __len__(self) -> int:
        """How many registers the state holds."""
        return len(self._all())

    def __dir__(self) -> list[str]:
        """Names for completion at a prompt."""
        return [*super().__dir__(), *self._all()]

    def __repr__(self) -> str:
        """Owner and number of registers."""
        return f"<Registers of {self._owner}: {len(self)}>"

    def integer(self, name: str) -> int:
        """A register that is an integer. Raises RegisterNotAvailableError where it is absent or has parts."""
        value = self[name]
        if not isinstance(value, int):
            raise RegisterNotAvailableError(f"register {name!r} of {self._owner} is not a plain number")
        return value

    def to_dict(self) -> dict[str, Any]:
        """The registers as JSON has them: integers as hex text, since JSON numbers lose bits above 2**53."""
        return {name: _shown(value) for name, value in self.items()}


def _shown(value: RegisterValue) -> Any:
    if isinstance(value, int):
        return hex(value)
    return {
        name: [hex(item) for item in part] if isinstance(part, tuple) else hex(part)
        for name, part in value._asdict().items()
    }
