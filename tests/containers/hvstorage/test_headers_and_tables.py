"""Header copies and object tables (format specification, 2.1 to 2.5)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from support.container import (
    FILE_OBJECT,
    FREE_OBJECT,
    INT,
    KEY_TABLE,
    OBJECT_TABLE,
    Container,
    header,
    key_entry,
    key_table,
    object_entry,
    object_table,
    small_tree,
)
from vmsavedstate.errors import CorruptFileError, FormatError
from vmsavedstate.findings import Severity
from vmsavedstate.hvstorage import Store

LOG_AT = Container([key_table(1, small_tree())]).places()[2]


def with_headers(first: bytes, second: bytes, **changes: bytes) -> Container:
    return Container([key_table(1, small_tree())], headers=(first, second), **changes)  # type: ignore[arg-type]


def opened(tmp_path: Path, container: Container, *, strict: bool = False) -> Store:
    return Store.open(container.write(tmp_path / "file.vmrs"), strict=strict)


def messages(store: Store) -> list[str]:
    return [item.message for item in store.findings]


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [(2, 1, 0), (1, 2, 0x1000), (9, 3, 0), (3, 9, 0x1000), (0xFFFF, 0, 0x1000), (0, 0xFFFF, 0), (0xFFFF, 0xFFFE, 0)],
)
def test_choice_between_the_copies(tmp_path: Path, first: int, second: int, chosen: int) -> None:
    with opened(tmp_path, with_headers(header(first, LOG_AT), header(second, LOG_AT)), strict=True) as store:
        assert store.header.offset == chosen
        assert store.findings == ()


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("how", ["crc", "signature"])
def test_one_bad_copy_is_a_note_even_in_strict_mode(tmp_path: Path, broken: int, how: str) -> None:
    bad = header(9, LOG_AT, **{how: 0x1234})
    copies = (bad, header(1, LOG_AT)) if broken == 0 else (header(1, LOG_AT), bad)
    with opened(tmp_path, with_headers(*copies), strict=True) as store:
        assert store.header.sequence == 1
        assert [(item.severity, item.offset) for item in store.findings] == [(Severity.NOTE, broken * 0x1000)]


def test_two_bad_copies(tmp_path: Path) -> None:
    bad = header(1, LOG_AT, crc=7)
    with pytest.raises(CorruptFileError, match=r"no valid HyperVStorage header.*0x00000007") as caught:
        opened(tmp_path, with_headers(bad, bad))
    assert caught.value.hresult == 0x80070570
    assert caught.value.file is not None


def test_same_sequence_and_same_content_is_read_on(tmp_path: Path) -> None:
    with opened(tmp_path, with_headers(header(4, LOG_AT), header(4, LOG_AT))) as store:
        assert "same sequence" in messages(store)[0]
        assert store["/int"].value == -5
    with pytest.raises(CorruptFileError, match="same sequence"):
        opened(tmp_path, with_headers(header(4, LOG_AT), header(4, LOG_AT)), strict=True)


def test_same_sequence_and_other_content_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="same sequence"):
        opened(tmp_path, with_headers(header(4, LOG_AT), header(4, LOG_AT, log_size=1)))


def test_format_versions(tmp_path: Path) -> None:
    def container(version: int) -> Container:
        return with_headers(header(2, LOG_AT, version=version), header(1, LOG_AT, version=version))

    for old in (0x0100, 0x0301):
        with pytest.raises(FormatError, match=f"{old:#06x}"):
            opened(tmp_path, container(old))
    with opened(tmp_path, container(0x0401)) as store:
        assert "newer" in messages(store)[0]
        assert store["/int"].value == -5
    with pytest.raises(FormatError, match="newer"):
        opened(tmp_path, container(0x0500), strict=True)


@pytest.mark.parametrize("alignment", [0, 0x800, 0x20000, 0xFFFFFFFF])
def test_illegal_alignment(tmp_path: Path, alignment: int) -> None:
    copies = (header(2, LOG_AT, alignment=alignment), header(1, LOG_AT, alignment=alignment))
    with opened(tmp_path, with_headers(*copies)) as store:
        assert any("alignment" in text for text in messages(store))


def chained(entries: list[bytes], chain_size: int, *, chain: bytes | None = None, slot: int = 226) -> Container:
    """A container whose key table is named by a second object table of ``chain_size`` bytes."""
    container = Container([key_table(1, small_tree())], [b"placeholder"])
    tables, objects, _ = container.places()
    second = object_table([object_entry(KEY_TABLE, tables[0], 0x1000), *entries], size=chain_size, chain=chain)
    container.file_objects = [second]
    link = object_entry(OBJECT_TABLE, objects[0], chain_size)
    filler = [object_entry(FREE_OBJECT, 0x9000000, 0x1000)] * slot
    container.first_table = object_table(filler, chain=link) if slot == 226 else object_table([*filler, link])
    return container


@pytest.mark.parametrize("size", [0x1000, 0x2000, 0x5000])
@pytest.mark.parametrize("slot", [226, 3])
def test_chained_tables_of_any_size(tmp_path: Path, size: int, slot: int) -> None:
    """A table of 0x2000 bytes has 454 entries (2.5); the chain may stand in any slot."""
    with opened(tmp_path, chained([], size, slot=slot), strict=True) as store:
        assert store["/int"].value == -5
        assert len(store.objects.tables) == 2


def test_a_chain_in_a_loop_ends(tmp_path: Path) -> None:
    loop = object_entry(OBJECT_TABLE, 0x2000, 0x1000)
    with opened(tmp_path, chained([], 0x1000, chain=loop)) as store:
        assert any("loop" in text for text in messages(store))
        assert store["/int"].value == -5


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (object_entry(OBJECT_TABLE, 0x7FFFF000, 0x1000), "outside of the file"),
        (object_entry(OBJECT_TABLE, 0x3000, 0x1000), "chained object table"),
        (object_entry(OBJECT_TABLE, (1 << 64) - 1, 0xFFFFFFFF), "outside of the file"),
    ],
)
def test_a_chain_that_leads_nowhere_ends(tmp_path: Path, chain: bytes, expected: str) -> None:
    with opened(tmp_path, chained([], 0x1000, chain=chain)) as store:
        assert any(expected in text for text in messages(store)), messages(store)
        assert store["/int"].value == -5


def test_first_table_with_another_signature_is_corrupt(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    container.first_table = object_table(container.default_entries(), signature=0x01110002)
    with pytest.raises(CorruptFileError, match="first object table"):
        opened(tmp_path, container)


@pytest.mark.parametrize("count", [0xFFFFFFFF, 3, 0])
def test_absurd_number_of_entries(tmp_path: Path, count: int) -> None:
    container = Container([key_table(1, small_tree())])
    container.first_table = object_table(container.default_entries(), count=count)
    with opened(tmp_path, container) as store:
        assert store.findings


def test_entry_with_a_wrong_checksum_is_used_and_listed(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    container.object_entries = [object_entry(KEY_TABLE, 0x3000, 0x1000, crc=1)]
    with opened(tmp_path, container) as store:
        assert [(item.severity, item.offset) for item in store.findings] == [(Severity.DAMAGE, 0x2008)]
        assert store["/int"].value == -5


@pytest.mark.parametrize("flags", [0, 1, 0xFF])
def test_entries_are_judged_by_type_not_by_flag(tmp_path: Path, flags: int) -> None:
    container = Container([key_table(1, small_tree())])
    container.object_entries = [object_entry(KEY_TABLE, 0x3000, 0x1000, flags=flags)]
    with opened(tmp_path, container, strict=True) as store:
        assert store["/int"].value == -5


def test_unknown_object_type_is_a_note(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    container.object_entries = [*container.default_entries(), object_entry(9, 0x3000, 0x1000)]
    with opened(tmp_path, container, strict=True) as store:
        assert [item.severity for item in store.findings] == [Severity.NOTE]


def test_overlapping_objects_are_damage(tmp_path: Path) -> None:
    container = Container([key_table(1, small_tree())])
    container.object_entries = [*container.default_entries(), object_entry(FILE_OBJECT, 0x3000, 0x1000)]
    with opened(tmp_path, container) as store:
        assert any("overlap" in text for text in messages(store))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 5, 0])
def test_key_table_of_absurd_size(tmp_path: Path, size: int) -> None:
    sound = key_table(2, [key_entry(INT, "good", struct.pack("<q", 1))])
    container = Container([key_table(1, small_tree()), sound])
    container.object_entries = [object_entry(KEY_TABLE, 0x3000, size), object_entry(KEY_TABLE, 0x4000, 0x1000)]
    with opened(tmp_path, container) as store:
        assert store.findings
        assert store["/good"].value == 1


def test_not_this_container(tmp_path: Path) -> None:
    path = tmp_path / "text.vmrs"
    path.write_text("hello")
    with pytest.raises(FormatError, match="not a HyperVStorage file"):
        Store.open(path)


def test_truncated_at_every_structure(tmp_path: Path) -> None:
    """Whatever the length, opening either fails with a CorruptFileError or lists damage; never anything else."""
    whole = Container([key_table(1, small_tree())], [b"x" * 5000]).build()
    path = tmp_path / "file.vmrs"
    log_end = len(whole)
    lengths = {0, 3, 4, 45, 46, 0x1000, 0x1004, 0x102D, 0x2000, 0x2004, 0x2008, 0x2010, 0x2FFF, 0x3000, 0x3005, 0x300A}
    lengths |= {0x3020, 0x3100, 0x3FFF, 0x4000, 0x5000, log_end - 0x1000, log_end - 0xFE0}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        try:
            with Store.open(path) as store:
                assert any(item.severity is Severity.DAMAGE for item in store.findings), hex(length)
        except (CorruptFileError, FormatError) as error:
            assert error.file == str(path)


def test_file_that_ends_inside_its_replay_log_is_sound(tmp_path: Path) -> None:
    """Trap 2: Windows ends the file behind the last payload ever written."""
    whole = Container([key_table(1, small_tree())]).build()
    path = tmp_path / "file.vmrs"
    path.write_bytes(whole[: LOG_AT + 34])
    with Store.open(path, strict=True) as store:
        assert store.findings == ()
