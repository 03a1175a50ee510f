"""Every error a caller can meet: one tree under :class:`VmSavedStateError`.

Nothing else may be raised across the public API for bad input. An error says what is wrong, in which file, at which
offset (hex), what was found and expected, and what to do; ``hresult`` is the code Microsoft's dump provider documents
for the same situation (API specification, section 5).
"""

from __future__ import annotations

import errno as numbers
import os

from .remedies import Remedy
from .vocabulary import Reason

E_FAIL = 0x80004005
E_INVALIDARG = 0x80070057
E_NOTIMPL = 0x80004001
E_OUTOFMEMORY = 0x8007000E
ERROR_FILE_NOT_FOUND = 0x80070002
ERROR_ACCESS_DENIED = 0x80070005
ERROR_FILE_CORRUPT = 0x80070570
ERROR_SHARING_VIOLATION = 0x80070020
ERROR_NOT_SUPPORTED = 0x80070032
ERROR_READ_FAULT = 0x8007001E
ERROR_WRITE_FAULT = 0x8007001D
PARTITION_STATE_NOT_FOUND = 0xC0370500
GUEST_MEMORY_NOT_FOUND = 0xC0370501
NO_VP_FOUND_IN_PARTITION_STATE = 0xC0370502
NESTED_VIRTUALIZATION_NOT_SUPPORTED = 0xC0370503
VA_NOT_MAPPED = 0xC0370505
INVALID_VP_STATE = 0xC0370506
VP_VTL_NOT_ENABLED = 0xC0370509


class VmSavedStateError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: what is wrong, one sentence without file and offset.
        file: path of the file concerned, or None; of a file object its name or type.
        offset: byte offset in that file, or None.
        remedy: what a caller of Python can do about it, or None.
        hresult: unsigned 32-bit HRESULT of Microsoft's provider for this situation (API specification, section 5).
        findings: what had been found before, when opening a file failed (a tuple of :class:`~.findings.Finding`).
    """

    hresult: int = E_FAIL
    _remedy: str | Remedy | None = None

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        offset: int | None = None,
        remedy: str | Remedy | None = None,
        hresult: int | None = None,
    ) -> None:
        super().__init__(message)
        self.args = (message,)  # an OSError takes none from a subclass with a constructor of its own
        self.message = message
        self.file = file
        self.offset = offset
        self._remedy = remedy
        self.findings: tuple[object, ...] = ()
        if hresult is not None:
            self.hresult = hresult

    @property
    def remedy(self) -> str | None:
        """What a caller of Python can do about it; None where nothing is known."""
        return self._remedy.python if isinstance(self._remedy, Remedy) else self._remedy

    @remedy.setter
    def remedy(self, remedy: str | Remedy | None) -> None:
        """Replace it: plain text, or a :class:`~.remedies.Remedy`."""
        self._remedy = remedy

    @property
    def remedy_code(self) -> str | None:
        """The code of a remedy that Python and the command word differently; None for plain text."""
        return self._remedy.code if isinstance(self._remedy, Remedy) else None

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes with all they carry."""
        return _restore, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        """Everything in one line: ``file: at 0x...: message (remedy)``."""
        return self._line(self.remedy)

    def for_command(self) -> str:
        """The same line in the words of the command ``vmrs``."""
        return self._line(self._remedy.command if isinstance(self._remedy, Remedy) else self._remedy)

    def _line(self, remedy: str | None) -> str:
        where = f"{self.file}: " if self.file is not None else ""
        at = f"at {self.offset:#x}: " if self.offset is not None else ""
        return f"{where}{at}{self.message}{f' ({remedy})' if remedy else ''}"


def _restore(kind: type[VmSavedStateError], args: tuple[object, ...], state: dict[str, object]) -> VmSavedStateError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    if isinstance(error, SourceError):
        error.fill_os_error()
    return error


class SourceError(VmSavedStateError, OSError):
    """A file cannot be opened, read or written: missing, a directory, no permission, an I/O error, or it shrank.

    ``errno``, ``filename`` and ``strerror`` are those of an OSError. A missing file is also a FileNotFoundError, an existing
    one that would be replaced a FileExistsError, and so on for PermissionError, IsADirectoryError and NotADirectoryError.

    The HRESULT is ERROR_FILE_NOT_FOUND for a missing file, ERROR_ACCESS_DENIED without permission,
    ERROR_SHARING_VIOLATION for one that is in use, else ERROR_READ_FAULT or ERROR_WRITE_FAULT.
    """

    hresult = ERROR_READ_FAULT

    def __new__(cls, *arguments: object, number: int | None = None, **others: object) -> SourceError:
        """An instance of the subclass that is also the built-in error of this ``errno``."""
        kind = _BY_NUMBER.get(number or 0, cls) if cls is SourceError else cls
        return super().__new__(kind)

    def __init__(
        self,
        message: str,
        *,
        number: int | None = None,
        file: str | None = None,
        offset: int | None = None,
        remedy: str | Remedy | None = None,
        hresult: int | None = None,
    ) -> None:
        super().__init__(message, file=file, offset=offset, remedy=remedy, hresult=hresult)
        self.number = number or numbers.EIO
        self.fill_os_error()

    def fill_os_error(self) -> None:
        """Set what an OSError carries; apart from the constructor, for errors that were pickled."""
        self.errno, self.strerror, self.filename = self.number, os.strerror(self.number), self.file


class SourceNotFoundError(SourceError, FileNotFoundError):
    """The file does not exist."""


class SourceExistsError(SourceError, FileExistsError):
    """The file to be written exists already."""


class SourcePermissionError(SourceError, PermissionError):
    """The file may not be read or written by this user."""


class SourceIsADirectoryError(SourceError, IsADirectoryError):
    """This is a directory."""


class SourceNotADirectoryError(SourceError, NotADirectoryError):
    """A part of the path is not a directory."""


_BY_NUMBER: dict[int, type[SourceError]] = {
    numbers.ENOENT: SourceNotFoundError,
    numbers.EEXIST: SourceExistsError,
    numbers.EACCES: SourcePermissionError,
    numbers.EPERM: SourcePermissionError,
    numbers.EISDIR: SourceIsADirectoryError,
    numbers.ENOTDIR: SourceNotADirectoryError,
}


class FormatError(VmSavedStateError):
    """The file is not of a kind this package reads (format specification, section 1)."""

    hresult = ERROR_FILE_CORRUPT


class LimitError(FormatError):
    """The file holds more of something than this package reads: a limit of the reader (docs/limits.md), not damage."""


class CorruptFileError(VmSavedStateError):
    """The file is of a known kind and is damaged beyond what reading can go on with, or ``strict`` forbids going on."""

    hresult = ERROR_FILE_CORRUPT


class EncryptedStateError(VmSavedStateError):
    """The partition state is encrypted or damaged as a whole (format specification, section 7)."""

    hresult = ERROR_FILE_CORRUPT


class PartitionStateNotFoundError(VmSavedStateError):
    """The file holds no saved state: a VM that is running or off, or a production checkpoint (0xC0370500)."""

    hresult = PARTITION_STATE_NOT_FOUND


class GuestMemoryNotFoundError(VmSavedStateError):
    """The saved state names no guest memory (0xC0370501)."""

    hresult = GUEST_MEMORY_NOT_FOUND


class NoVirtualProcessorError(VmSavedStateError):
    """The partition state holds no virtual processor (0xC0370502)."""

    hresult = NO_VP_FOUND_IN_PARTITION_STATE


class CompanionError(VmSavedStateError):
    """One half of a ``.bin``/``.vsv`` pair is missing, or the two files do not belong together.

    ``absent`` is True where nothing was found that could be the other half.
    """

    hresult = ERROR_FILE_CORRUPT
    absent = False


class KeyNotFoundError(VmSavedStateError, KeyError):
    """A key path is not in the store."""

    hresult = ERROR_FILE_CORRUPT


class CodecError(VmSavedStateError, ValueError):
    """Compressed data is malformed; ``position`` is the byte position in that data.

    ``produced`` is how many bytes of output were decoded before.
    """

    hresult = ERROR_FILE_CORRUPT

    def __init__(self, message: str, *, position: int = 0, produced: int = 0) -> None:
        super().__init__(message)
        self.position = position
        self.produced = produced


class GuestMemoryError(VmSavedStateError):
    """Guest memory that is asked for is not there: a hole, a block missing from the file, or a damaged block.

    Attributes:
        start, end: the guest physical range in bytes that cannot be delivered (``end`` excluded), also
            where a raw offset was asked for.
        reason: a :class:`~.vocabulary.Reason`: ``hole``, ``missing`` or ``damaged``.
        steps: where a page table is lost, the entries of the walk before (WalkStep); else empty.
    """

    hresult = ERROR_FILE_CORRUPT
    steps: tuple[object, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        start: int,
        end: int,
        reason: Reason | str,
        file: str | None = None,
        remedy: str | Remedy | None = None,
    ) -> None:
        super().__init__(
            message,
            file=file,
            remedy=remedy,
            hresult=E_INVALIDARG if reason == Reason.HOLE else ERROR_FILE_CORRUPT,
        )
        self.start = start
        self.end = end
        self.reason = Reason(reason)


class PageNotMapped(VmSavedStateError, LookupError):  # noqa: N818  # the documented name of the public API
    """A guest virtual address is not mapped (VM_SAVED_STATE_DUMP_E_VA_NOT_MAPPED, 0xC0370505).

    Attributes:
        gva: the address.
        level: the entry that ended the walk, ``PML5E``, ``PML4E``, ``PDPTE``, ``PDE``, ``PTE`` or ``level -1`` to
            ``level 3`` (ARM64); None where the paging mode cannot express the address.
        entry: its value; None where there was none to read (no such address, or a table outside of the saved memory).
        unmapped_size: bytes from ``gva`` on that are not mapped for the same reason.
    """

    hresult = VA_NOT_MAPPED

    def __init__(
        self,
        message: str,
        *,
        gva: int,
        level: str | None,
        entry: int | None,
        unmapped_size: int,
        file: str | None = None,
    ) -> None:
        super().__init__(message, file=file)
        self.gva = gva
        self.level = level
        self.entry = entry
        self.unmapped_size = unmapped_size


class PageTablesError(VmSavedStateError):
    """A set of page tables is too large to enumerate: its entries point back into the same tables again and again."""

    hresult = ERROR_FILE_CORRUPT


class RegisterNotAvailableError(VmSavedStateError, KeyError, AttributeError):
    """The saved state does not hold this register (0xC0370506). It is both a KeyError and an AttributeError."""

    hresult = INVALID_VP_STATE


class VtlNotEnabledError(VmSavedStateError, LookupError):
    """The virtual trust level is not enabled on this processor or partition (0xC0370509)."""

    hresult = VP_VTL_NOT_ENABLED


class ScreenError(VmSavedStateError):
    """A picture of the console is saved, but not in the one layout that is known (format specification, 3.1)."""

    hresult = ERROR_FILE_CORRUPT


class NestedVirtualizationError(VmSavedStateError):
    """State of nested virtualization is asked for, whose layout is unpublished (0xC0370503)."""

    hresult = NESTED_VIRTUALIZATION_NOT_SUPPORTED


class LibraryBuildError(VmSavedStateError):
    """The C library cannot be built here: a compiler, Python's headers or its shared library, or cffi is missing."""


class NotProvidedError(VmSavedStateError):
    """A function of Microsoft's provider that this package does not back (E_NOTIMPL, or ERROR_NOT_SUPPORTED)."""

    hresult = E_NOTIMPL


class InvalidArgumentError(VmSavedStateError, ValueError):
    """The caller passed a value outside of the documented range (E_INVALIDARG)."""

    hresult = E_INVALIDARG
