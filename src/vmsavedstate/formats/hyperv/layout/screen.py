"""The picture of the console in the video monitor's values (format specification, 3.1). No logic here."""

from __future__ import annotations

import struct

STATE = struct.Struct("<IIIII")  # video memory size, unknown, width, height, unknown
