"""Any damage to a file: a clear error or a finding, never another exception; a flipped bit is never silent."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from support.container import ARRAY, INT, Container, key_entry, key_table, pointer, prefixed, small_tree
from vmsavedstate.containers.keytree import KeyValue
from vmsavedstate.errors import VmSavedStateError
from vmsavedstate.hvstorage import Store


def _valid() -> bytes:
    container = Container([bytes(0x1000), bytes(0x1000)], [b"object" * 900])
    at = container.places()[1][0]
    second = [key_entry(ARRAY, "external", pointer(5400, at), flags=1), key_entry(ARRAY, "inline", prefixed(b"abc"))]
    container.key_tables = [key_table(1, small_tree()), key_table(2, second)]
    return container.build()


VALID = _valid()
END = len(VALID) - 0x1000 + 34


def _read_all(path: Path) -> tuple[dict[str, KeyValue], int]:
    """Every value and the number of findings."""
    with Store.open(path) as store:
        values = {}
        for entry in store.walk():
            try:
                values[entry.path] = entry.value
            except VmSavedStateError as error:
                values[entry.path] = str(error)
        return values, len(store.findings)


def checksummed_bytes() -> list[int]:
    """Offsets of every byte of VALID that a checksum of the format covers, except those of the stale header copy."""
    covered = [*range(46), *range(END - 34, END)]
    covered += range(0x2008, 0x2008 + 18 * 227)
    for table in (0x3000, 0x4000):
        covered += range(table, table + 10)
        at = table + 10
        while at < table + 0x1000:
            kind, flags, size, *_, name_size = struct.unpack_from("<BBIHIIIB", VALID, at)
            if kind != 1:
                data_at = at + 21 + name_size
                prefix = struct.unpack_from("<I", VALID, data_at)[0]
                length = 12 if flags & 1 or kind == 9 else {6: 4 + prefix, 7: 4 + prefix, 8: 4}.get(kind, 8)
                covered += range(at, data_at + length)
            at += size
    return covered


COVERED = checksummed_bytes()


def test_the_valid_counterpart_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(VALID)
    values, findings = _read_all(path)
    assert findings == 0
    assert values["/external"] == b"object" * 900


@given(st.sampled_from(COVERED), st.integers(0, 7))
@settings(max_examples=400)
def test_a_flipped_bit_is_never_silent(tmp_path: Path, at: int, bit: int) -> None:
    spoilt = bytearray(VALID)
    spoilt[at] ^= 1 << bit
    path = tmp_path / "file"
    path.write_bytes(spoilt)
    try:
        _, findings = _read_all(path)
    except VmSavedStateError:
        return
    assert findings > 0, f"bit {bit} of byte {at:#x}"


def _spoil(draw: Callable[..., int], data: bytearray) -> None:
    start = draw(st.integers(0, len(data) - 1))
    for offset in range(draw(st.integers(1, 64))):
        if start + offset < len(data):
            data[start + offset] = draw(st.integers(0, 255))


@given(st.data())
@settings(max_examples=300)
def test_any_damage_at_all(tmp_path: Path, data: st.DataObject) -> None:
    spoilt = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        _spoil(data.draw, spoilt)
    spoilt = spoilt[: data.draw(st.integers(0, len(spoilt)))] if data.draw(st.booleans()) else spoilt
    path = tmp_path / "file"
    path.write_bytes(spoilt)
    for strict in (False, True):
        try:
            with Store.open(path, strict=strict) as store:
                for entry in store.walk():
                    entry.check_extent()
                    _ = entry.value
        except VmSavedStateError:
            pass


@given(st.binary(max_size=200), st.integers(0, 227), st.integers(0, 1 << 32))
@settings(max_examples=200)
def test_entries_with_valid_checksums_and_any_content(tmp_path: Path, junk: bytes, kind: int, size: int) -> None:
    """Damage that the checksums do not give away: hostile files are sealed like honest ones."""
    entry = key_entry(kind % 12, junk[:40], junk, flags=size & 7, parent=(size % 3, size >> 20), size=size % 5000)
    path = Container([key_table(1, [entry[:3000], key_entry(INT, "x", bytes(8))])]).write(tmp_path / "file")
    with suppress(VmSavedStateError):
        _read_all(path)
