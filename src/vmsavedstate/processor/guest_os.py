"""What the guest's operating system said about itself: the guest-OS-id register (API specification, 3.5)."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..datatypes.enums import GuestOsMicrosoftIds, GuestOsOpenSourceIds, GuestOsVendor

OPEN_SOURCE = 1 << 63


class GuestOs(NamedTuple):
    """The guest-OS-id of one VTL. ``raw`` is the register; 0 says that the guest has not introduced itself."""

    raw: int

    @property
    def is_open_source(self) -> bool:
        """Whether bit 63 marks an open-source system, which lays the other bits out differently."""
        return bool(self.raw & OPEN_SOURCE)

    @property
    def vendor(self) -> str | None:
        """Vendor of a closed-source system, None for open source or an unenlightened guest."""
        if not self.raw or self.is_open_source:
            return None
        return _name(GuestOsVendor, self.raw >> 48)

    @property
    def os(self) -> str | None:
        """The system's name, such as ``windows_nt`` or ``linux``; None for an unenlightened guest."""
        if not self.raw:
            return None
        if self.is_open_source:
            return _name(GuestOsOpenSourceIds, self.raw >> 56 & 0x7F)
        if self.raw >> 48 == GuestOsVendor.MICROSOFT:
            return _name(GuestOsMicrosoftIds, self.raw >> 40 & 0xFF)
        return f"id {self.raw >> 40 & 0xFF:#x}"

    @property
    def version(self) -> str | None:
        """``major.minor build N service M`` of closed-source systems, the 32-bit version in hex of open-source ones."""
        if not self.raw:
            return None
        if self.is_open_source:
            return f"{self.raw >> 16 & 0xFFFFFFFF:#x}"
        major, minor, service = self.raw >> 32 & 0xFF, self.raw >> 24 & 0xFF, self.raw >> 16 & 0xFF
        return f"{major}.{minor} build {self.raw & 0xFFFF} service {service}"

    def to_dict(self) -> dict[str, Any]:
        """The guest OS id as JSON has it."""
        return {"raw": hex(self.raw), "vendor": self.vendor, "os": self.os, "version": self.version}

    def __str__(self) -> str:
        """One line for people."""
        if not self.raw:
            return "not enlightened (guest OS id 0)"
        parts = [self.vendor or "open source", self.os or "", self.version or ""]
        return " ".join(part for part in parts if part)


def _name(kind: type[GuestOsVendor] | type[GuestOsMicrosoftIds] | type[GuestOsOpenSourceIds], value: int) -> str:
    try:
        return kind(value).name.lower()
    except ValueError:
        return f"id {value:#x}"
