"""Guest physical memory over what any format keeps of it. Knows no files and no paging."""

from .physical import GuestPhysicalMemory, MemoryChunk, MemoryGap, MemoryRun, merged_gaps
from .requests import MAX_ADDRESS, check_address, check_request
from .search import Pattern, Piece, search

__all__ = [
    "MAX_ADDRESS",
    "GuestPhysicalMemory",
    "MemoryChunk",
    "MemoryGap",
    "MemoryRun",
    "Pattern",
    "Piece",
    "check_address",
    "check_request",
    "merged_gaps",
    "search",
]
