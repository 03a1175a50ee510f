"""Guest physical memory over what any format keeps of it. Knows no files and no paging."""

from .gaps import MemoryGap, merged_gaps
from .physical import GuestPhysicalMemory, MemoryChunk, MemoryRun
from .requests import MAX_ADDRESS, check_address, check_request
from .search import Pattern, Piece, Unread, search

__all__ = [
    "MAX_ADDRESS",
    "GuestPhysicalMemory",
    "MemoryChunk",
    "MemoryGap",
    "MemoryRun",
    "Pattern",
    "Piece",
    "Unread",
    "check_address",
    "check_request",
    "merged_gaps",
    "search",
]
