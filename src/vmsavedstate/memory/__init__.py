"""Guest physical memory over what any format keeps of it, and what every view of memory has. Knows no files and no paging.

``physical`` is the public object, ``protocol`` what it has in common with virtual memory; ``blocks`` streams memory,
decoded ahead by ``parallel``; ``search`` finds patterns in such a stream, ``file`` makes a file object of it;
``batch`` reads many pages into one array; ``overlay`` and ``block_cache`` are backings over another one; ``requests``
checks arguments; ``lifetime`` knows whether the state is open.
"""

from .blocks import Kept, MemoryBlock, Part, stream
from .gaps import MemoryGap, merged_gaps
from .parallel import worker_count
from .physical import GuestPhysicalMemory, MemoryChunk, MemoryRun
from .requests import MAX_ADDRESS, check_address, check_bounds, check_range, check_request
from .search import Pattern, Progress, Unread, check_pattern, reported, search

__all__ = [
    "MAX_ADDRESS",
    "GuestPhysicalMemory",
    "Kept",
    "MemoryBlock",
    "MemoryChunk",
    "MemoryGap",
    "MemoryRun",
    "Part",
    "Pattern",
    "Progress",
    "Unread",
    "check_address",
    "check_bounds",
    "check_pattern",
    "check_range",
    "check_request",
    "merged_gaps",
    "reported",
    "search",
    "stream",
    "worker_count",
]
