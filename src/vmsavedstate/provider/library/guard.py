"""What stands around every answer of the C library: no exception leaves; a failure is a code, and a line in the log."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import cast

from ...errors import E_OUTOFMEMORY, VmSavedStateError
from .log import log_line, log_wanted
from .pointers import NullPointerError
from .signatures import Function

E_UNEXPECTED = 0x8000FFFF
DONE, INTERRUPTED = 1, 2  # what glue.c takes for success, and for a Ctrl-C of a host that is a Python program


class TooSmallError(VmSavedStateError):
    """An array of the caller is too small (the code that clients rely on; API specification, 6.1).

    Without a message there was none: the caller asks for the size it needs, which is not worth a line.
    """

    hresult = E_OUTOFMEMORY


def escaped(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> int:
    """What was raised outside of an answer's ``try``: a Ctrl-C that was pending is raised where the answer begins."""
    return INTERRUPTED if issubclass(kind, KeyboardInterrupt) else signed(E_UNEXPECTED)


def guarded(item: Function, call: Callable[..., None]) -> Callable[..., int]:
    """The answer to a function: runs ``call`` and returns DONE, INTERRUPTED, or an HRESULT as C has it, negative."""

    def failed(code: int, error: BaseException, arguments: tuple[object, ...]) -> int:
        if log_wanted():
            log_line(code, f"{_called(item, arguments)}: {_why(item, error, arguments)}")
        return signed(code)

    def answer(*arguments: object) -> int:
        try:
            call(*arguments)
        except TooSmallError as error:
            return failed(error.hresult, error, arguments) if str(error) else signed(error.hresult)
        except VmSavedStateError as error:
            return failed(error.hresult, error, arguments)
        except MemoryError as error:
            return failed(E_OUTOFMEMORY, error, arguments)
        except KeyboardInterrupt:
            return INTERRUPTED
        except BaseException as error:  # SystemExit too: the host decides when it ends
            return failed(E_UNEXPECTED, error, arguments)
        return DONE

    return answer


def _called(item: Function, arguments: tuple[object, ...]) -> str:
    """The name under which it was called: the first argument of those with wide strings is the bytes of a character."""
    return variant(item.name, cast(int, arguments[0])) if item.wide else item.name


def variant(name: str, width: int) -> str:
    """The name of the variant of a function for strings with so many bytes a character."""
    return name + {1: "U8", 2: " (of UTF-16 strings)", 4: "W32"}[width]


def _why(item: Function, error: BaseException, arguments: tuple[object, ...]) -> str:
    if isinstance(error, NullPointerError):
        names = [name for _, name in item.parameters]
        values = arguments[1:] if item.wide else arguments
        return next(
            (f"{name} is NULL" for name, value in zip(names, values, strict=True) if value is error.pointer), str(error)
        )
    return str(error) or type(error).__name__


def signed(code: int) -> int:
    """The code of a failure as C has it."""
    return code - (1 << 32)
