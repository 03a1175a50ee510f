"""Guest physical memory over what any format keeps of it. Knows no files and no paging."""

from .physical import GuestPhysicalMemory, MemoryChunk, MemoryGap, MemoryRun

__all__ = ["GuestPhysicalMemory", "MemoryChunk", "MemoryGap", "MemoryRun"]
