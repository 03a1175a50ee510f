"""The one place that makes files: each gets its name only when it is complete, and an unfinished one leaves nothing.

Evidence is opened in :mod:`.opening` alone; nothing here opens a file that exists.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, TypeVar

from ..errors import ERROR_WRITE_FAULT, SourceError
from ..remedies import NOT_A_FILE, REPLACE_FILE
from .opening import PathArgument

Self = TypeVar("Self", bound="CompletesOnExit")


class CompletesOnExit(ABC):
    """A context manager over something being written: complete at the end of the block, removed after an error."""

    _finished = False

    @abstractmethod
    def _complete(self) -> None:
        """Write what is left, and put the file in its place."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove what has been written."""

    def close(self) -> None:
        """Complete the file and put it in its place; remove it if that fails. Harmless when it is done already."""
        if self._finished:
            return
        try:
            self._complete()
        except BaseException:
            self.abort()
            raise
        self._finished = True

    def abort(self) -> None:
        """Give up: remove what has been written. Harmless when the file is complete."""
        if not self._finished:
            self._finished = True
            self._discard()

    def __enter__(self: Self) -> Self:
        """The object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, or remove it after an error."""
        if kind is None:
            self.close()
        else:
            self.abort()


class NewFile(CompletesOnExit):
    """A new file, written under a temporary name beside ``path``; :meth:`close` puts it in its place.

    Raises SourceError where the file exists already (unless ``overwrite``) or cannot be written.
    """

    _stream: BinaryIO

    def __init__(self, path: PathArgument, *, overwrite: bool = False) -> None:
        self.path = os.fsdecode(path)
        target = os.path.realpath(self.path)  # what a link leads to is replaced, not the link
        self._temporary = f"{target}.partial"
        self._target = target
        if os.path.exists(target) and not os.path.isfile(target):
            raise SourceError(
                "this is not a regular file, it is not replaced",
                number=errno.EISDIR if os.path.isdir(target) else errno.EINVAL,
                file=self.path,
                remedy=NOT_A_FILE,
                hresult=ERROR_WRITE_FAULT,
            )
        if not overwrite and os.path.lexists(self.path):
            raise SourceError(
                "the file exists already",
                number=errno.EEXIST,
                file=self.path,
                remedy=REPLACE_FILE,
                hresult=ERROR_WRITE_FAULT,
            )
        with self._as_source_errors():
            self._stream = open(self._temporary, "xb")  # noqa: SIM115  # closed by close() or abort()

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        with self._as_source_errors():
            self._stream.write(data)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write ``data`` at byte ``offset``; what is skipped reads as zeros, and is a hole in the file if there can be."""
        with self._as_source_errors():
            self._stream.seek(offset)
            self._stream.write(data)

    def truncate(self, size: int) -> None:
        """Make the file ``size`` bytes long."""
        with self._as_source_errors():
            self._stream.truncate(size)

    def _complete(self) -> None:
        with self._as_source_errors():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            os.replace(self._temporary, self._target)

    def _discard(self) -> None:
        with suppress(OSError):
            self._stream.close()  # may fail once more on what is still buffered
        if os.path.exists(self._temporary):
            os.unlink(self._temporary)

    @contextmanager
    def _as_source_errors(self) -> Iterator[None]:
        """An OSError of writing becomes a SourceError that names the file."""
        try:
            yield
        except FileExistsError as error:
            message, remedy = (
                f"there is an unfinished {self._temporary}",
                "remove it unless another process is writing it",
            )
            raise SourceError(
                message, number=errno.EEXIST, file=self.path, remedy=remedy, hresult=ERROR_WRITE_FAULT
            ) from error
        except OSError as error:
            raise SourceError(
                f"cannot write: {error.strerror or error}", number=error.errno, file=self.path,
                remedy="check the path, permissions and free space", hresult=ERROR_WRITE_FAULT,
            ) from error  # fmt: skip
