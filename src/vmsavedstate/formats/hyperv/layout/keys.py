"""Where the keys of a saved state stand in either container (format specification, section 3). No logic here."""

from __future__ import annotations

from typing import NamedTuple

VIDEO_MONITOR = "_ba8735ef-e3a9-4f1b-badd-dbf3a5909915_/VideoMonitor"

# The same in every schema.
VM_VERSION = "/savedstate/VmVersion"
CONFIGURED_VERSION = "/configuration/properties/version"
SAVED_STATE_TYPE = "/savedstate/type"
WRITER_VERSION = "/savedstate/VmwpVersion"


class Schema(NamedTuple):
    """The paths of one key style."""

    partition_state: str
    metadata_parent: str
    metadata_prefix: str
    blocks_parent: str
    blocks_prefix: str
    screen: str


MODERN = Schema(
    "/savedstate/savedVM/partition_state",
    "/savedstate",
    "RamMemoryBlock",
    "/savedstate",
    "RamBlock",
    f"/savedstate/configuration/{VIDEO_MONITOR}",
)
LEGACY = Schema("/savedVM/partition_state", "/RamMemoryBlock", "", "/RamBlock", "", f"/configuration/{VIDEO_MONITOR}")
