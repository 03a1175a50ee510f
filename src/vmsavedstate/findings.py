"""Findings: what is odd or broken in a file that can be read all the same.

A sound file has none. The table of format specification section 11 says which situations become a finding and which an
error; in strict mode :class:`FindingLog` turns findings into errors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, NamedTuple

from .errors import CorruptFileError, VmSavedStateError


class Severity(Enum):
    """How bad a finding is.

    ``NOTE``: unusual, nothing is lost. ``DAMAGE``: the file is not what its writer wrote, or not what the format
    allows.
    """

    NOTE = "note"
    DAMAGE = "damage"


class Finding(NamedTuple):
    """One observation about a file.

    Attributes:
        severity: note or damage.
        file: path of the file, or None when it concerns no single file.
        offset: byte offset in the file; for values spread over the file, of the place that names them. None if unknown.
        message: what is wrong, one sentence.
        found, expected: the values concerned (numbers in hex), or None.
        code: names the kind of finding for programs, such as ``hvs.key-table.checksum``; docs/findings.md lists all.
    """

    severity: Severity
    file: str | None
    offset: int | None
    message: str
    found: str | None = None
    expected: str | None = None
    code: str = ""

    def __str__(self) -> str:
        """The finding in one line, as ``vmrs verify`` prints it."""
        at = f" at {self.offset:#x}" if self.offset is not None else ""
        values = "".join(
            f", {label} {value}" for label, value in (("found", self.found), ("expected", self.expected)) if value
        )
        return f"{self.severity.value}: {self.file or '-'}{at}: {self.message}{values}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it: the offset as hex text."""
        return {
            "severity": self.severity.value,
            "code": self.code,
            "file": self.file,
            "offset": None if self.offset is None else hex(self.offset),
            "message": self.message,
            "found": self.found,
            "expected": self.expected,
        }


MOST_OF_A_KIND = 10_000  # findings of one code that are kept
MOST_COUNTED = 1 << 17  # further ones that are told apart


class FindingLog:
    """Collects the findings of one open file or pair; safe to use from several threads.

    Of each code the first 10,000 are kept; the last one then says how many more there are.

    In strict mode every finding but those reported with ``strict_accepts`` raises :class:`CorruptFileError` instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._items: dict[Finding, None] = {}
        self._kinds: dict[tuple[str, Severity], _Kind] = {}
        self._lock = threading.Lock()

    def note(self, code: str, file: str | None, offset: int | None, message: str, **values: object) -> None:
        """Record something unusual that loses nothing; strict mode accepts it."""
        self._add(Severity.NOTE, code, file, offset, message, values, raises=False)

    def refusable(self, code: str, file: str | None, offset: int | None, message: str, **values: object) -> None:
        """Record a note that strict mode must refuse, such as a pending replay log."""
        self._add(Severity.NOTE, code, file, offset, message, values, raises=True)

    def damage(self, code: str, file: str | None, offset: int | None, message: str, **values: object) -> None:
        """Record damage; strict mode refuses it."""
        self._add(Severity.DAMAGE, code, file, offset, message, values, raises=True)

    def loss(self, code: str, file: str | None, offset: int | None, message: str, **values: object) -> None:
        """Record damage that raises when the lost data is read; strict mode opens the file all the same."""
        self._add(Severity.DAMAGE, code, file, offset, message, values, raises=False)

    def _add(
        self,
        severity: Severity,
        code: str,
        file: str | None,
        offset: int | None,
        message: str,
        values: dict[str, object],
        *,
        raises: bool,
    ) -> None:
        found, expected = (_show(values.get(name)) for name in ("found", "expected"))
        finding = Finding(severity, file, offset, message, found, expected, code)
        if raises and self.strict:
            detail = "".join(f", {label} {text}" for label, text in (("found", found), ("expected", expected)) if text)
            raise CorruptFileError(
                message + detail, file=file, offset=offset, remedy="strict mode; without it reading continues past this"
            )
        with self._lock:  # the same damaged block may be met by several reads: it is one finding
            if finding in self._items:
                return
            kind = self._kinds.setdefault((code, severity), _Kind())
            if kind.kept < MOST_OF_A_KIND:
                kind.kept += 1
                self._items[finding] = None
            elif len(kind.further) < MOST_COUNTED:
                kind.further.add(hash(finding))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """An error inside that ends the opening of a file carries what had been found before."""
        try:
            yield
        except VmSavedStateError as error:
            error.findings = tuple(self)
            raise

    def __iter__(self) -> Iterator[Finding]:
        """The findings so far, in the order they were met."""
        with self._lock:
            more = [_more(*key, kind) for key, kind in self._kinds.items() if kind.further]
            return iter((*self._items, *more))

    def __len__(self) -> int:
        """How many findings there are so far."""
        return sum(1 for _ in self)


class _Kind:
    """The findings of one code and severity: how many are kept, and marks of those that are only counted."""

    def __init__(self) -> None:
        self.kept = 0
        self.further: set[int] = set()


def _more(code: str, severity: Severity, kind: _Kind) -> Finding:
    count = len(kind.further)
    number = f"{count:,} more" if count < MOST_COUNTED else f"{count:,} or more others"
    return Finding(severity, None, None, f"{number} of this kind are not listed", code=code)


def _show(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:#x}"
    return str(value)
