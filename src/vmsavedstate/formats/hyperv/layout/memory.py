"""How guest memory is described and stored in blocks (format specification, section 4). No logic here."""

from __future__ import annotations

import struct

# 4.1 RamMemoryBlock: version, flags, page count, MBP start, GPA start, virtual node, padding, KSR block id
RAM_METADATA = struct.Struct("<IIQQQIIQ")
RAM_METADATA_VERSION = 3
RAM_METADATA_PREFIX = struct.Struct("<IIQQQ")  # what every version is taken to have
PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT
BLOCK_SHIFT = 20
BLOCK = 1 << BLOCK_SHIFT
BLOCK_PAGES = BLOCK // PAGE
MAX_PAGE = 1 << 52  # no guest page has a higher number
