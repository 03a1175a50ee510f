"""The partition state: its envelope, its state chunks and their ids (format specification, section 6). No logic here."""

from __future__ import annotations

import struct
from enum import IntEnum

# 6.1 Envelope of the partition state
DESCRIPTOR = struct.Struct("<QQQ")  # descriptor size, header size, total size
ITEM = struct.Struct("<4s4sII")  # signature, tag, size of this header, size of the data
ITEM_SIGNATURE = b"METI"

# 6.2 Chunks
CHUNK = struct.Struct("<II8x")


class ChunkId(IntEnum):
    """Ids of the chunk catalogue (6.3); names without a published one are descriptive and marked."""

    PROLOG = 0x00000000
    UNKNOWN_0X02006000 = 0x02006000
    PROCESSOR_CPUID_DATA = 0x20000000
    OS_ID = 0x20001000
    HYPERCALL = 0x20002000  # unpublished name
    REFERENCE_TSC = 0x20003000  # unpublished name
    UNKNOWN_0X20005000 = 0x20005000
    PARTITION_VTL = 0x20008000
    PARTITION_VSM_CONFIG = 0x2000A000
    UNKNOWN_0X2000B000 = 0x2000B000
    UNKNOWN_0X2000C000 = 0x2000C000
    VP_INDICES = 0x30000000
    VP = 0x30001000
    VP_CORE = 0x30003000
    UNKNOWN_0X30004000 = 0x30004000
    VP_GP_REGISTERS = 0x30005000
    VP_FP_REGISTERS = 0x30006000
    VP_VTL_CONTROL_REGISTERS = 0x30007000
    VP_DEBUG_REGISTERS = 0x30008000
    VP_SEGMENT_REGISTERS = 0x30009000
    VP_TABLE_REGISTERS = 0x3000A000
    VP_VIRTUAL_MSRS = 0x3000B000
    PAT_AND_MTRRS = 0x3000C000  # unpublished name
    VP_XSAVE_CONTROL_REGISTERS = 0x3000D000
    VP_XSAVE_AVX_REGISTERS = 0x3000E000
    VP_XSAVE_STATE = 0x3000E100
    VP_SYNIC_APIC_STATE = 0x3000F000
    VP_SYNIC_MSRS = 0x30010000
    SYNTHETIC_TIMERS = 0x30011000  # unpublished name
    SYNIC_MESSAGES = 0x30012000  # unpublished name
    SYNIC_EVENTS = 0x30013000  # unpublished name
    UNKNOWN_0X30015000 = 0x30015000
    UNKNOWN_0X30016000 = 0x30016000
    UNKNOWN_0X30017000 = 0x30017000
    VP_VTL_CONTROL_PAGE = 0x30018000
    VP_VTL = 0x3001A000
    UNKNOWN_0X3001F000 = 0x3001F000
    VP_NESTED_BASE = 0x30021000
    VP_NESTED_CURRENT_VMCS = 0x30023000
    UNKNOWN_0X30027000 = 0x30027000
    UNKNOWN_0X30029000 = 0x30029000
    EPILOG = 0xF0000000


KNOWN_CHUNKS = frozenset(ChunkId)
CHUNK_SCOPE_MASK = 0xF0000000  # the id says the scope, not the position (6.7)
VP_SCOPE = 0x30000000

# 6.4 Prolog: tag, summary flag, padding, vendor
PROLOG_SIZE = 4064
PROLOG = struct.Struct("<IB3xI")
PROLOG_TAG = 0x50546475
VENDOR_ARM = 0x10
VENDORS = {0: "AMD", 1: "Intel", 2: "Hygon", VENDOR_ARM: "ARM"}

# 6.7 VpVtlControlPage: VtlIsRunnable follows HV_VP_VTL_CONTROL
VTL_CONTROL_PAGE = struct.Struct("<24sB7x")

# 6.8 CPUID: version, number of leaves, highest basic leaf, highest extended leaf; then the leaves
CPUID_HEADER = struct.Struct("<IIII")
CPUID_LEAF = struct.Struct("<IIIIII")
CPUID_CHUNK_SIZE = 1552
