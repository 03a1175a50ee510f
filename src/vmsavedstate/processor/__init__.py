"""Virtual processors over what any format keeps of them. Knows no files."""

from .cpuid import Cpuid
from .guest_os import GuestOs
from .registers import Registers
from .virtual_processor import VirtualProcessor

__all__ = ["Cpuid", "GuestOs", "Registers", "VirtualProcessor"]
