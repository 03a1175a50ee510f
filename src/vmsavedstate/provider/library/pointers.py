"""What C passes, as Python takes it: buffers, strings of every width, paths."""

from __future__ import annotations

import os
from typing import Any

from ...errors import InvalidArgumentError

ENCODINGS = {1: "utf-8", 2: "utf-16-le", 4: "utf-32-le"}  # by the bytes of a character
MAX_TEXT = 1 << 16  # characters; a longer string has no end that would be found

# cffi's values: pointers, and the two objects that know the library's types.
Pointer = Any
Library = Any


class NullPointerError(InvalidArgumentError):
    """A pointer that is needed is NULL; ``pointer`` is cffi's object, by which the caller finds the parameter's name."""

    def __init__(self, pointer: Pointer) -> None:
        super().__init__("a pointer that is needed is NULL")
        self.pointer = pointer


class Pointers:
    """Access through cffi's view of the library that is calling: ``ffi`` knows its types, ``lib`` its functions."""

    def __init__(self, ffi: Library, lib: Library) -> None:
        self.ffi = ffi
        self.lib = lib

    def view(self, buffer: Pointer, size: int) -> memoryview:
        """The caller's buffer, writable."""
        return memoryview(self.ffi.buffer(required(buffer), size))

    def raw_text(self, width: int, pointer: Pointer) -> bytes:
        """The units of a string up to its end. Raises InvalidArgumentError for NULL and for one without an end."""
        units = self.ffi.cast(f"uint{8 * width}_t *", required(pointer))
        length = 0
        while units[length]:
            length += 1
            if length == MAX_TEXT:
                raise InvalidArgumentError("a string has no end")
        return bytes(self.ffi.buffer(units, width * length))

    def text(self, width: int, pointer: Pointer) -> str:
        """A string of the caller. Raises InvalidArgumentError where its units are not valid text."""
        try:
            return self.raw_text(width, pointer).decode(
                ENCODINGS[width], "surrogateescape" if width == 1 else "surrogatepass"
            )
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"a string is not {ENCODINGS[width]}: {error.reason}") from error

    def path(self, width: int, pointer: Pointer) -> bytes:
        """A path as the system has it. UTF-8 is passed on as it is, whether it is UTF-8 or not; see os.fsencode."""
        if width == 1:
            return self.raw_text(width, pointer)
        try:
            return os.fsencode(self.text(width, pointer))
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"a path is not valid text: {error.reason}") from error

    def allocated(self, width: int, text: str) -> Pointer:
        """A string that the caller frees with LocalFree."""
        data = text.encode(ENCODINGS[width], "surrogateescape" if width == 1 else "surrogatepass") + bytes(width)
        memory = self.lib.malloc(len(data))
        if not memory:
            raise MemoryError
        self.ffi.memmove(memory, data, len(data))
        return memory


def required(pointer: Pointer) -> Pointer:
    """The pointer; NULL raises NullPointerError."""
    if not pointer:
        raise NullPointerError(pointer)
    return pointer
