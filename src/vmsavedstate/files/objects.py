"""Evidence behind a seekable binary file object: in memory, in an archive, in a compressed stream, behind a disk image.

The object belongs to the caller: it is never closed here, and its position may be moved between reads.
"""

from __future__ import annotations

import errno
import io
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

from ..errors import InvalidArgumentError, SourceError
from .opening import PathArgument
from .source import Source


@runtime_checkable
class BinaryFile(Protocol):
    """A seekable binary file object. ``pread(size, offset)`` and ``readinto(buffer)`` are used where it has them."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes from the position; b"" at the end."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move the position; returns it, in bytes from the start."""
        ...


FileArgument = PathArgument | BinaryFile


def is_file_object(given: object) -> TypeGuard[BinaryFile]:
    """Whether this is a file object, and not a path. Raises InvalidArgumentError for what is neither."""
    if isinstance(given, (str, bytes, os.PathLike)):
        return False
    if callable(getattr(given, "read", None)) and callable(getattr(given, "seek", None)):
        return True
    raise InvalidArgumentError(
        f"{type(given).__name__} is neither a path nor a binary file object",
        remedy="pass a path, or an object with read(size) and seek(offset, whence)",
    )


def open_evidence(given: FileArgument) -> Source:
    """The evidence at a path or behind a file object. Raises SourceError, InvalidArgumentError."""
    return ObjectSource(given) if is_file_object(given) else Source(given)  # type: ignore[arg-type]  # it is a path


class _Turn:
    """A lock that all sources over one object share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


_turns: weakref.WeakValueDictionary[int, _Turn] = weakref.WeakValueDictionary()  # by the identity of the object
_turns_lock = threading.Lock()


class ObjectSource(Source):
    """Evidence behind a file object: reads by position, one after another. See :class:`.Source`."""

    from_object = True

    def __init__(self, file: BinaryFile) -> None:
        self._file: Any = file
        self._begin(_name_of(file))
        with _turns_lock:
            self._turn = _turns.setdefault(id(file), _Turn())
        pread = getattr(file, "pread", None)
        self._positioned: Callable[[int, int], object] | None = pread if callable(pread) else None
        readinto = getattr(file, "readinto", None)
        self._readinto: Callable[[memoryview], object] | None = readinto if callable(readinto) else None
        self.file_size = self.size = self._checked_size(file)

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells whether two sources are over one object."""
        return ("object", id(self._file))

    def close(self) -> None:
        """Forget the object, which stays open; reads say that the source is closed."""
        self._file = self._positioned = self._readinto = None

    def _checked_size(self, file: BinaryFile) -> int:
        """Bytes behind the object. Raises SourceError for text files, pipes and closed files."""
        if getattr(file, "closed", False) is True:
            raise self._refusal("the file object is closed", "pass an open one")
        if isinstance(file, io.TextIOBase):
            raise self._refusal("this is a text file object", "open the file in binary mode")
        seekable = getattr(file, "seekable", None)
        if callable(seekable) and not seekable():
            raise self._refusal("the file object cannot seek (a pipe or a socket?)", "read it into a file or a BytesIO")
        try:
            size = file.seek(0, os.SEEK_END)
            if size is None and callable(getattr(file, "tell", None)):  # readers of forensic images, such as pyewf
                size = file.tell()
            empty = file.read(0)
        except Exception as error:
            raise self._unreadable(error, 0) from error
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise self._refusal(f"seek() of the file object returned {size!r}, not the position", "return the position")
        if not isinstance(empty, (bytes, bytearray, memoryview)):
            raise self._refusal("this is a text file object", "open the file in binary mode")
        return size

    def _is_closed(self) -> bool:
        return self._file is None

    def _refusal(self, message: str, remedy: str) -> SourceError:
        return SourceError(message, number=errno.EINVAL, file=self.path, remedy=remedy)

    def _pread(self, size: int, offset: int) -> bytes:
        data = self._take(lambda: self._read_at(size, offset), offset)
        if not isinstance(data, (bytes, bytearray, memoryview)) or len(data) > size:
            got = f"{len(data):#x} bytes" if isinstance(data, (bytes, bytearray)) else type(data).__name__
            raise self._refusal(f"the file object gave {got} where {size:#x} were asked for", "read() returns bytes")
        return bytes(data)

    def _read_at(self, size: int, offset: int) -> object:
        if self._positioned is not None:
            return self._positioned(size, offset)
        with self._turn.lock:
            file = self._file
            file.seek(offset, os.SEEK_SET)
            return file.read(size)

    def _read_file_into(self, offset: int, buffer: memoryview) -> None:
        if self._readinto is None or self._positioned is not None:
            buffer[:] = self._read_rest(self._pread(len(buffer), offset), offset, len(buffer))
            return
        got = 0
        while got < len(buffer):
            rest = buffer[got:]
            count = self._take(lambda rest=rest: self._fill(rest, offset + got), offset + got)  # type: ignore[misc]  # noqa: B023
            if not isinstance(count, int) or not 0 <= count <= len(rest):
                raise self._refusal(f"readinto() of the file object returned {count!r}", "return the number of bytes")
            if not count:
                raise self._ended(offset + got, len(rest))
            got += count

    def _fill(self, buffer: memoryview, offset: int) -> object:
        with self._turn.lock:
            file, readinto = self._file, self._readinto
            file.seek(offset, os.SEEK_SET)
            assert readinto is not None
            return readinto(buffer)

    def _take(self, read: Callable[[], object], offset: int) -> object:
        """What ``read`` returns; whatever the object raises becomes a SourceError."""
        if self._file is None:
            raise self._closed()
        try:
            return read()
        except Exception as error:
            raise self._unreadable(error, offset) from error


def shown_name(given: object) -> str:
    """What messages call a path or a file object."""
    return _name_of(given) if is_file_object(given) else os.fsdecode(given)  # type: ignore[arg-type]  # it is a path


def _name_of(file: object) -> str:
    """What messages call an object: its name, else its type."""
    name = getattr(file, "name", None)
    if isinstance(name, (str, bytes, os.PathLike)) and name:
        return os.fsdecode(name)
    return f"<{type(file).__name__}>"
