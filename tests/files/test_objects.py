"""Saved states behind file objects: in memory, in archives, in compressed streams, behind disk images."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.samples import Samples
from support.states import legacy_pair, numbered_pages, write_state
from vmsavedstate import InvalidArgumentError, SourceError
from vmsavedstate.files.objects import open_evidence


class Least:
    """An object with ``read`` and ``seek`` and nothing else; it may deliver less than is asked for."""

    def __init__(self, content: bytes, *, at_most: int = 1 << 30) -> None:
        self._content = content
        self._at_most = at_most
        self._position = 0

    def read(self, size: int, /) -> bytes:
        data = self._content[self._position : self._position + min(size, self._at_most)]
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset + (0, self._position, len(self._content))[whence]
        return self._position


class Image(Least):
    """Reads by position, as the objects of disk image libraries do; moving its position would be noticed."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads = 0

    def pread(self, size: int, offset: int) -> bytes:
        self.reads += 1
        return self._content[offset : offset + size][: 1 << 16]


def answers(state: vmsavedstate.SavedState) -> tuple[object, ...]:
    return (
        state.format,
        [dict(vp.registers) for vp in state.processors],
        [state.memory.read(chunk.start, chunk.size, fill=0) for chunk in state.memory.chunks],
        [entry.path for entry in state.store.walk()] if state.store is not None else None,
        state.findings,
    )


def zip_member(content: bytes) -> Any:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("evidence/guest.vmrs", content)
    return zipfile.ZipFile(archive).open("evidence/guest.vmrs")


def tar_member(content: bytes) -> Any:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        entry = tarfile.TarInfo("guest.vmrs")
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    archive.seek(0)
    return tarfile.open(fileobj=archive).extractfile("guest.vmrs")


def temporary(content: bytes, make: Callable[..., Any] = tempfile.TemporaryFile, **options: Any) -> Any:
    file = make(**options)
    file.write(content)
    return file


KINDS: dict[str, Callable[[bytes], Any]] = {
    "BytesIO": io.BytesIO,
    "zip": zip_member,
    "tar": tar_member,
    "lzma": lambda content: lzma.open(io.BytesIO(lzma.compress(content, preset=0))),  # noqa: SIM115
    "gzip": lambda content: gzip.open(io.BytesIO(gzip.compress(content, 1))),  # noqa: SIM115
    "bz2": lambda content: bz2.open(io.BytesIO(bz2.compress(content, 1))),  # noqa: SIM115
    "file": temporary,
    "unbuffered file": lambda content: temporary(content, buffering=0),
    "spooled": lambda content: temporary(content, make=tempfile.SpooledTemporaryFile),
    "read and seek": Least,
    "short reads": lambda content: Least(content, at_most=5000),
    "pread": Image,
}


@pytest.mark.parametrize("kind", KINDS)
def test_objects_answer_as_the_file(sample_guest: Path, kind: str) -> None:
    with vmsavedstate.open(sample_guest) as state:
        expected = answers(state)
    file = KINDS[kind](sample_guest.read_bytes())
    with vmsavedstate.open(file) as state:
        assert answers(state) == expected
    with vmsavedstate.open_store(file) as store:
        assert [entry.path for entry in store.walk()] == expected[3]
    assert not getattr(file, "closed", False), "the object belongs to the caller"
    assert file.seek(0, 2) == sample_guest.stat().st_size


def test_an_object_that_reads_by_position_is_never_moved(sample_guest: Path) -> None:
    image = Image(sample_guest.read_bytes())
    with vmsavedstate.open(image) as state:
        image.seek(7)
        state.memory.read(0, 1 << 19)
        assert image.reads > 10
        assert image.seek(0, 1) == 7


def test_the_caller_may_move_the_position_between_reads(sample_guest: Path) -> None:
    file = io.BytesIO(sample_guest.read_bytes())
    with vmsavedstate.open(sample_guest) as state:
        expected = state.memory.read(0x100000, 1 << 20)
    with vmsavedstate.open(file) as state:
        for at in range(0, 1 << 20, 0x10000):
            file.seek(random.randrange(1 << 24))
            assert state.memory.read(0x100000 + at, 0x10000) == expected[at : at + 0x10000]
            assert state.store is not None and state.store["/savedstate/VmVersion"].value == 0x0A00


@pytest.mark.parametrize("kind", ["BytesIO", "short reads", "unbuffered file"])
def test_threads_take_turns(tmp_path: Path, kind: str) -> None:
    path = write_state(tmp_path / "x.vmrs", blocks={0: numbered_pages(0)})
    file = KINDS[kind](path.read_bytes())
    wrong: list[int] = []
    with vmsavedstate.open(file) as state, vmsavedstate.open(file) as other:
        whole = state.memory.read(0, 1 << 20)

        def work(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(200):
                at, size = draw.randrange(1 << 20), draw.randrange(1, 9000)
                size = min(size, (1 << 20) - at)
                if (state if seed % 2 else other).memory.read(at, size) != whole[at : at + size]:
                    wrong.append(at)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_both_halves_of_a_pair_and_registers(tmp_path: Path, sample_guest: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    with vmsavedstate.open(bin_path) as state:
        expected = answers(state)
    first, second = io.BytesIO(bin_path.read_bytes()), io.BytesIO(vsv_path.read_bytes())
    for one, two in ((first, second), (second, first), (bin_path, second), (first, vsv_path)):
        with vmsavedstate.open(one, two) as state:
            assert answers(state)[1:3] == expected[1:3]
    with pytest.raises(vmsavedstate.CompanionError, match="companion=") as caught:
        vmsavedstate.open(first)
    assert "--companion" in caught.value.for_command()
    with pytest.raises(vmsavedstate.CompanionError):
        vmsavedstate.open(first, io.BytesIO(sample_guest.read_bytes()))
    with pytest.raises(vmsavedstate.CompanionError):
        vmsavedstate.open(first, first)


def test_names_in_errors(tmp_path: Path) -> None:
    with pytest.raises(vmsavedstate.FormatError, match=r"^<BytesIO>: "):
        vmsavedstate.open(io.BytesIO(b"nothing of the kind" * 100))
    path = tmp_path / "text.vmrs"
    path.write_bytes(b"nothing of the kind" * 100)
    with path.open("rb") as file, pytest.raises(vmsavedstate.FormatError) as caught:
        vmsavedstate.open(file)
    assert caught.value.file == str(path) == str(caught.value).partition(": ")[0]
    with path.open("rb", buffering=0) as raw:
        descriptor = os.fdopen(os.dup(raw.fileno()), "rb")  # its name is a number
    with descriptor, pytest.raises(vmsavedstate.FormatError, match=r"^<BufferedReader>: "):
        vmsavedstate.open(descriptor)


def pipe_end() -> Any:
    read_end, write_end = os.pipe()
    os.close(write_end)
    return os.fdopen(read_end, "rb")


def closed_object() -> Any:
    file = io.BytesIO(b"x")
    file.close()
    return file


class SeekReturnsNothing(Least):
    def seek(self, offset: int, whence: int = 0, /) -> int:
        super().seek(offset, whence)
        return None  # type: ignore[return-value]


class ReadsText(Least):
    def read(self, size: int, /) -> bytes:
        return "text"[:size]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: io.StringIO("text"), "text file object"),
        (lambda: open(__file__), "text file object"),  # noqa: SIM115
        (lambda: ReadsText(b"x"), "text file object"),
        (pipe_end, "cannot seek"),
        (closed_object, "is closed"),
        (lambda: SeekReturnsNothing(b"x" * 100), "not the position"),
    ],
)
@pytest.mark.parametrize("opener", [vmsavedstate.open, vmsavedstate.open_store, vmsavedstate.verify])
def test_what_is_no_file_of_evidence_is_refused_in_one_line(
    make: Callable[[], Any], message: str, opener: Callable[..., Any]
) -> None:
    file = make()
    if opener is vmsavedstate.verify:
        error = vmsavedstate.verify(file).error
    else:
        with pytest.raises(SourceError, match=message) as caught:
            opener(file)
        error = caught.value
    assert error is not None and message in str(error) and "\n" not in str(error) and error.remedy
    if not file.closed if hasattr(file, "closed") else False:
        file.close()


@pytest.mark.parametrize("given", [None, 5, 3.5, [], object(), {"read": 1}])
def test_what_is_neither_path_nor_object(given: Any) -> None:
    for opener in (vmsavedstate.open, vmsavedstate.open_store, vmsavedstate.verify):
        with pytest.raises(InvalidArgumentError, match="neither a path nor a binary file object"):
            opener(given)


class Failing(Least):
    """Works until it is told to fail, with an error of its own."""

    error: Exception | None = None

    def read(self, size: int, /) -> bytes:
        if self.error is not None and size:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize(
    ("error", "number"),
    [(OSError(5, "the medium"), 5), (PermissionError(13, "no"), 13), (EOFError("cut"), 5), (ValueError("odd"), 5)],
)
def test_errors_of_the_object_name_it_and_keep_its_number(sample_guest: Path, error: Exception, number: int) -> None:
    file = Failing(sample_guest.read_bytes())
    with vmsavedstate.open(file) as state:
        file.error = error
        with pytest.raises(SourceError, match="<Failing>") as caught:
            state.memory.read(0x100000, 8)
    assert caught.value.errno == number and caught.value.filename == "<Failing>"
    assert caught.value.__cause__ is error


class TooMuch(Least):
    def read(self, size: int, /) -> bytes:
        return super().read(size + 1)


def test_objects_that_break_the_rules(sample_guest: Path) -> None:
    with pytest.raises(SourceError, match=r"where 0x.* were asked for"):
        vmsavedstate.open(TooMuch(sample_guest.read_bytes()))


def test_an_object_that_ends_too_early(sample_guest: Path) -> None:
    file = io.BytesIO(sample_guest.read_bytes())
    with vmsavedstate.open(file) as state:
        file.truncate(0x3000)
        with pytest.raises(SourceError, match="too early"):
            state.memory.read(0x100000, 1 << 20)


def test_a_source_that_is_closed_says_so_and_leaves_the_object(sample_guest: Path) -> None:
    file = io.BytesIO(sample_guest.read_bytes())
    source = open_evidence(file)
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.read(0, 4)
    assert file.read(0) == b""


def test_an_object_closed_by_the_caller(sample_guest: Path) -> None:
    file = io.BytesIO(sample_guest.read_bytes())
    with vmsavedstate.open(file) as state:
        file.close()
        with pytest.raises(SourceError, match="closed"):
            state.memory.read(0x100000, 1 << 20)


def test_locks_are_for_files_only(tmp_path: Path, sample_guest: Path) -> None:
    with vmsavedstate.open(io.BytesIO(sample_guest.read_bytes())) as state:
        state.lock()
    bin_path, vsv_path = legacy_pair(tmp_path)
    with vmsavedstate.open(bin_path, io.BytesIO(vsv_path.read_bytes())) as state:
        state.lock()


@pytest.mark.parametrize("name", ["no-os-252mib.vmrs", "no-os-252mib.bin"])
def test_real_states_behind_objects(samples: Samples, name: str) -> None:
    path = samples(name)
    companion = samples("no-os-252mib.vsv") if name.endswith(".bin") else None
    with vmsavedstate.open(path, companion) as state, path.open("rb") as file:
        other = None if companion is None else io.BytesIO(companion.read_bytes())
        with vmsavedstate.open(file, other) as same:
            assert same.summary().to_dict()["processors"] == state.summary().to_dict()["processors"]
            chunk = state.memory.chunks[0]
            assert same.memory.read(chunk.start, 1 << 20) == state.memory.read(chunk.start, 1 << 20)


class _ReaderOfImages:
    """As pyewf and other readers of forensic images: ``seek`` returns nothing, ``tell`` says the position."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def seek(self, offset: int, whence: int = 0) -> None:
        self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int) -> bytes:
        return self._stream.read(size)


def test_a_reader_whose_seek_returns_nothing(sample_guest: Path) -> None:
    handle: Any = _ReaderOfImages(sample_guest.read_bytes())
    with vmsavedstate.open(handle) as state, vmsavedstate.open(sample_guest) as expected:
        assert state.memory.read(0, 0x1000) == expected.memory.read(0, 0x1000)


def test_an_encase_image(sample_guest: Path, tmp_path: Path) -> None:
    """A saved state inside of an E01, as the error for an E01 advises."""
    pyewf = pytest.importorskip("pyewf", reason="libewf-python is not installed")
    acquire = shutil.which("ewfacquirestream")
    if acquire is None:
        pytest.skip("ewfacquirestream is not here (Debian: ewf-tools)")
    options = ["-t", "image", "-c", "deflate:fast", "-C", "1", "-D", "x", "-E", "1", "-e", "x", "-N", "x"]
    subprocess.run([acquire, *options], input=sample_guest.read_bytes(), cwd=tmp_path, capture_output=True, check=True)
    image = tmp_path / "image.E01"
    with pytest.raises(vmsavedstate.FormatError, match=r"EnCase image \(E01\).*pyewf.handle"):
        vmsavedstate.open(image)
    handle = pyewf.handle()
    handle.open([str(image)])
    with vmsavedstate.open(handle) as state:
        assert state.verify().sound
