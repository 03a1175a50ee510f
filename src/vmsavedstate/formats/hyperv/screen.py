"""The picture of the console in the video monitor's keys (format specification, 3.1)."""

from __future__ import annotations

from ...containers.keytree import KeyEntry, KeyTree
from ...errors import CorruptFileError, ScreenError
from ...remedies import RAW_VALUES
from ...screen import Screen
from .layout.screen import STATE

MAX_PIXELS = 7680 * 4320  # the largest picture a display of today has


def load_screen(tree: KeyTree, path: str) -> Screen | None:
    """The saved picture, None where the state holds none.

    Raises ScreenError for a layout that has not been seen (another depth, sizes that do not fit), and where it is lost.
    """
    state, pixels = tree.find(f"{path}/State"), tree.find(f"{path}/Screen")
    if state is None or pixels is None:
        return None
    try:
        return _read_screen(state, pixels)
    except CorruptFileError as error:
        raise ScreenError(error.message, file=error.file, offset=error.offset, remedy=error.remedy) from error


def _read_screen(state: KeyEntry, pixels: KeyEntry) -> Screen:
    file, at = state.source.path, state.value_offset
    if state.size < STATE.size:
        raise ScreenError(f"the video state has {state.size:#x} bytes instead of {STATE.size:#x}", file=file, offset=at)
    _, _, width, height, _ = STATE.unpack(state.read(0, STATE.size))
    if not 0 < width * height <= MAX_PIXELS:
        raise ScreenError(f"the saved screen claims {width} x {height} pixels", file=file, offset=at)
    if pixels.size != width * height * 2:
        raise ScreenError(
            f"the saved screen of {width} x {height} pixels has {pixels.size:#x} bytes; only 16 bits per pixel "
            f"({width * height * 2:#x} bytes) are known",
            file=file,
            offset=pixels.value_offset,
            remedy=RAW_VALUES,
        )
    return Screen.from_rgb565(width, height, pixels.read())
