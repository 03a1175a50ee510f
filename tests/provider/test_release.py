"""A handle that is released while a call uses it: the call ends as if nothing had happened, then the files are closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from provider.doors import Door, Failure
from vmsavedstate import AddressSpace, GuestPhysicalMemory
from vmsavedstate.files.source import Source

KERNEL, TEXT = 0xFFFFFFFF80100700, b"VMSAVEDSTATE"


@pytest.mark.parametrize(
    ("kind", "method", "call"),
    [
        (AddressSpace, "translate", lambda door, handle: door.translate(handle, 0, KERNEL) == 0x100700),
        (GuestPhysicalMemory, "read", lambda door, handle: door.read(handle, 0x100700, 12) == TEXT),
        (GuestPhysicalMemory, "read_into", lambda door, handle: door.read(handle, 0x100700, 1 << 20)[:12] == TEXT),
        (GuestPhysicalMemory, "read", lambda door, handle: door.read_raw(handle, 0xA0700, 12) == TEXT),
        (AddressSpace, "translate", lambda door, handle: door.fix(handle, 0, KERNEL, b"x") is None),
    ],
)  # fmt: skip
def test_released_in_the_middle(
    door: Door, sample_guest: Path, monkeypatch: pytest.MonkeyPatch,
    kind: type, method: str, call: Callable[[Door, int], bool],
) -> None:  # fmt: skip
    handle = door.load(sample_guest)
    real = getattr(kind, method)

    def released_first(self: object, *arguments: object, **named: object) -> object:
        monkeypatch.setattr(kind, method, real)
        door.call("ReleaseSavedStateFiles", handle)
        return real(self, *arguments, **named)

    monkeypatch.setattr(kind, method, released_first)
    assert call(door, handle)
    with pytest.raises(Failure):
        door.call("GetVpCount", handle)


def test_the_files_are_closed_after_the_last_call(
    door: Door, sample_guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    close = Source.close

    def watched(self: Source) -> None:
        if self._fd >= 0:
            closed.append(self.path)
        close(self)

    monkeypatch.setattr(Source, "close", watched)
    handle = door.load(sample_guest)
    assert closed == []
    door.call("ReleaseSavedStateFiles", handle)
    assert closed == [str(sample_guest)]


def test_an_error_that_is_kept_keeps_nothing_open(door: Door, sample_guest: Path, tmp_path: Path) -> None:
    """An exception in a variable, as at a prompt, holds the frames of the call: the files close all the same."""
    copy = tmp_path / "guest.vmrs"
    copy.write_bytes(sample_guest.read_bytes())
    handle = door.load(copy)
    kept: list[BaseException] = []
    for call in (lambda: door.translate(handle, 0, 0x402000), lambda: door.register(handle, 99, 0),
                 lambda: door.fix(handle, 0, 0x402000, b"x")):  # fmt: skip
        try:
            call()
        except Failure as error:
            kept += [error, error.__cause__ or error]
    assert len(kept) == 6
    door.call("ReleaseSavedStateFiles", handle)
    door.apply_log(copy)


def test_many_threads_on_one_handle(door: Door, sample_guest: Path) -> None:
    """Reads, translations, fixes of another page and forced modes of the other processor, all at once."""
    handle = door.load(sample_guest)
    expected = door.read(handle, 0x100000, 1 << 20)
    wrong: list[object] = []

    def reader(number: int) -> None:
        for turn in range(30):
            at = 0x1000 * ((7 * turn + number) % 60)  # below the page that is fixed, 0x140000
            if door.read(handle, 0x100000 + at, 0x1800) != expected[at : at + 0x1800]:
                wrong.append((number, turn))
            if door.translate(handle, 0, KERNEL) != 0x100700:
                wrong.append("translation")

    def changer() -> None:
        for turn in range(30):
            door.fix(handle, 1, 0x400000, bytes([turn]))
            door.call("ForcePagingMode", handle, 1, turn % 5)
            door.call("ForcePagingMode", handle, 1, 0)
            door.call("SetMemoryBlockCacheLimit", handle, turn % 3)

    threads = [threading.Thread(target=reader, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=changer))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    door.call("ReleaseSavedStateFiles", handle)
