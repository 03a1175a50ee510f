"""The commands about virtual memory, searching and conversion, run as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import vmrs
from support.elf import X86_64, Segment, cpu_state, elf, prstatus_x86_64
from support.partition import (
    chunk,
    control,
    envelope,
    epilog,
    general,
    metadata,
    prolog,
    segments,
    vp,
    vp_indices,
    vp_vtl,
)
from support.states import numbered_pages, write_state
from support.tables import table
from vmsavedstate.cli.output import progress_bar

KERNEL = 0xFFFFFFFF80100700
MESSAGE = b"VMSAVEDSTATE SAMPLE GUEST"


def test_translate(sample_guest: Path) -> None:
    answer = vmrs("translate", sample_guest, hex(KERNEL), "0x200000", "0xfee00000")
    assert answer.code == 1, "one of them is not mapped"
    assert "0x100700" in answer.text and "0xfee00000 (not saved)" in answer.text
    assert "0x200000 is not mapped: its PDE at 0x3008, 0x0, maps nothing; 0x200000 bytes" in answer.text
    assert vmrs("translate", sample_guest, hex(KERNEL)).code == 0


def test_translate_json_is_what_qemu_says(sample_guest: Path) -> None:
    truth = json.loads(sample_guest.with_suffix(".json").read_text())["translations"]
    for vp_id in ("0", "1"):
        asked = [item for item in truth if str(item["vp"]) == vp_id]
        answer = vmrs("translate", sample_guest, "--vp", vp_id, "--json", *(item["gva"] for item in asked))
        assert answer.json["schema"] == "vmrs/translate/1"
        assert [item["gpa"] for item in answer.json["translations"]] == [item["gpa"] for item in asked]


def test_translate_walk(sample_guest: Path) -> None:
    lines = vmrs("translate", sample_guest, hex(KERNEL), "--walk").text.splitlines()
    assert [line.split()[0] for line in lines[1::2][:3]] == ["PML4E", "PDPTE", "PDE"]
    assert lines[-1] == "  = 0x100700 in a page of 2 MiB, kernel rwx, user ---"
    unmapped = vmrs("translate", sample_guest, "0x0000800000000000", "--walk")
    assert unmapped.code == 1 and "not canonical" in unmapped.text
    off = vmrs("translate", sample_guest, "0x5", "--walk", "--paging-mode", "none")
    assert off.text.splitlines()[-1] == "  = 0x5 without paging, kernel rwx, user rwx"


def test_forced_roots_modes_and_trust_levels(tmp_path: Path) -> None:
    row = [vp_indices([0]), chunk(0x20008000, bytes(16)), chunk(0x20008000, b"\1" + bytes(15)), vp(0)]
    row += [vp_vtl(0), general(1), control(0x80010011, 0, 0x1000, 0x10), segments()]
    row += [vp_vtl(1), general(1), control(0x80010011, 0, 0x2000, 0x10), segments()]
    block = bytearray(numbered_pages(0))
    block[0x1000:0x1004], block[0x2000:0x2004] = b"\xe3\0\0\0", b"\xe3\0\x40\0"
    path = write_state(
        tmp_path / "x.vmrs", blob=envelope(prolog() + b"".join(row) + epilog()), blocks={0: bytes(block)}
    )

    def first(*options: str) -> str | None:
        answer: str | None = vmrs("translate", path, "0x10", "--json", *options).json["translations"][0]["gpa"]
        return answer

    assert first() == first("--vtl", "0") == first("--root", "0x1000", "--vtl", "1") == "0x10"
    assert first("--vtl", "1") == first("--root", "0x2fff") == "0x400010"
    assert first("--paging-mode", "long", "--root", "0x3000") is None
    assert vmrs("translate", path, "0", "--vtl", "2").code == 2
    assert vmrs("translate", path, "0", "--vp", "1").code == 2
    assert vmrs("translate", path, "0x10000000000000000").code == 2
    assert vmrs("translate", path, "0", "--paging-mode", "armv8").code == 2
    assert vmrs("translate", path).code == 2


def test_maps(sample_guest: Path) -> None:
    answer = vmrs("maps", sample_guest)
    lines = answer.text.splitlines()
    assert answer.code == 0 and lines[0].split() == ["Virtual", "Size", "KRN", "USR", "Physical"]
    assert lines[2].split() == ["0x0000000000400000-0x0000000000401fff", "8", "KiB", "rwx", "rwx", "0x140000"]
    content = vmrs("maps", sample_guest, "--json", "--start", "0x400000", "--end", "0x401000").json
    assert content == {
        "schema": "vmrs/maps/1",
        "runs": [{"gva": "0x400000", "gpa": "0x140000", "size": 4096, "kernel": "rwx", "user": "rwx"}],
        "lost": [],
    }


def test_maps_with_a_table_outside_of_memory_is_no_loss(tmp_path: Path) -> None:
    """The processor would find a device or nothing there: told, and no fault of the file."""
    block = bytearray(1 << 20)
    block[0x1000:0x2000] = table({0: 0x500003}, size=4)
    row = [vp_indices([0]), vp(0), general(1), control(0x80010011, 0, 0x1000, 0), segments()]
    path = write_state(
        tmp_path / "x.vmrs", blob=envelope(prolog() + b"".join(row) + epilog()), blocks={0: bytes(block)}
    )
    answer = vmrs("maps", path)
    assert answer.code == 0 and "page table at 0x500000 is outside of the saved memory" in answer.err


@pytest.mark.parametrize("pattern", ["(" * 5000 + "a" + ")" * 5000, "a{99999999999999999999}"])
def test_regular_expressions_that_cannot_be_compiled(sample_guest: Path, pattern: str) -> None:
    answer = vmrs("find", sample_guest, pattern, "--regex")
    assert answer.code == 2 and "is not a valid pattern" in answer.err and len(answer.err) < 400


def test_maps_merge_and_lost_tables(tmp_path: Path) -> None:
    """Pages that lie apart are one run when merged; tables that are lost are told, and the exit code says so."""
    block = bytearray(1 << 20)
    for at, words in ((0x1000, {0: 0x2003, 1: 0x300003, 2: 0x500003}), (0x2000, {0: 0x9003, 1: 0x7003, 2: 0x8001})):
        block[at : at + 4096] = table(words, size=4)
    row = [vp_indices([0]), vp(0), general(1), control(0x80010011, 0, 0x1000, 0), segments()]
    blob = envelope(prolog() + b"".join(row) + epilog())
    blocks = {0: bytes(block), 2: bytes(1 << 20)}
    path = write_state(tmp_path / "x.vmrs", blob=blob, ranges=[metadata(1024)], blocks=blocks)
    answer = vmrs("maps", path, "--merge")
    assert [line.split()[0] for line in answer.text.splitlines()[1:]] == [
        "0x0000000000000000-0x0000000000001fff", "0x0000000000002000-0x0000000000002fff",
    ]  # fmt: skip
    assert len(vmrs("maps", path).text.splitlines()) == 4
    assert answer.code == 1
    assert "page table at 0x300000 cannot be read (missing): what it maps from 0x400000 on" in answer.err
    assert "page table at 0x500000 is outside of the saved memory" in answer.err
    assert vmrs("maps", path, "--json").json["lost"] == [
        {"gva": "0x400000", "size": 0x400000, "table": "0x300000", "reason": "missing"},
        {"gva": "0x800000", "size": 0x400000, "table": "0x500000", "reason": "hole"},
    ]
    told = vmrs("translate", path, "0x400000", "0x10")
    assert told.code == 1 and "0x9010" in told.text, "the others are told all the same"
    assert "0x400000 is not known: the PTE" in told.text and "in a page table at 0x300000, cannot be read" in told.text
    steps = vmrs("translate", path, "0x400000", "--walk").text
    assert "PDE" in steps and "-> table 0x300000" in steps, "what could be read is shown"
    item = vmrs("translate", path, "0x400000", "--json").json["translations"][0]
    assert (item["gpa"], item["size"], len(item["steps"])) == (None, 0, 1) and item["reason"].startswith("not known")
    assert vmrs("find", path, "00", "--hex", "--virtual", "--max", "1", "--start", "0x400000").code == 1


def test_a_processor_without_control_registers(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", blob=envelope(prolog() + vp_indices([0]) + vp(0) + general(1) + epilog()))
    for command in (["translate", "0"], ["maps"], ["read", "--gva", "0", "--size", "1"]):
        answer = vmrs(command[0], path, *command[1:])
        assert answer.code == 1 and "translation needs cr0 of VP 0" in answer.err


def test_read_virtual(sample_guest: Path) -> None:
    assert vmrs("read", sample_guest, "--gva", hex(KERNEL), "--size", "25").out == MESSAGE
    line = vmrs("read", sample_guest, "--gva", hex(KERNEL), "--size", "16", "--hex").text
    assert line.startswith("ffffffff80100700  56 4d 53 41")
    unmapped = vmrs("read", sample_guest, "--gva", "0x401ff0", "--size", "32")
    assert unmapped.code == 1 and not unmapped.out
    assert "0x402000 is not mapped" in unmapped.err and "`vmrs maps` shows" in unmapped.err
    filled = vmrs("read", sample_guest, "--gva", "0x401ff0", "--size", "32", "--fill", "0x55")
    assert filled.code == 0 and filled.out == bytes(16) + b"\x55" * 16
    assert "filled 0x402000 to 0x40200f (unmapped)" in filled.err
    device = vmrs("read", sample_guest, "--gva", "0xfee00000", "--size", "4")
    assert device.code == 1 and "is mapped, but guest physical addresses 0xfee00000" in device.err
    assert vmrs("read", sample_guest, "--size", "1").code == 2
    assert vmrs("read", sample_guest, "--gva", "0", "--gpa", "0", "--size", "1").code == 2
    assert vmrs("read", sample_guest, "--gva", "0x400000", "--size", "16", "--vp", "1").code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["SAMPLE GUEST"], [0x10070D]),
        (["SAMPLE GUEST", "--text"], [0x10070D]),
        (["53414d504c45 20475545", "--hex"], [0x10070D]),
        (["0x53414d504c4520", "--hex"], [0x10070D]),
        ([r"(?i)sample.gu\x45st", "--regex"], [0x10070D]),
        (["SAMPLE GUEST", "--virtual"], [0x10070D, 0xFFFFFFFF8010070D]),
        (["SAMPLE GUEST", "--virtual", "--start", "0xffff000000000000"], [0xFFFFFFFF8010070D]),
        (["SAMPLE GUEST", "--end", "0x100000"], []),
        (["no such text"], []),
        (["SAMPLE", "--utf16"], []),
    ],
)
def test_find(sample_guest: Path, arguments: list[str], expected: list[int]) -> None:
    answer = vmrs("find", sample_guest, *arguments)
    assert answer.code == 0
    assert [int(line.split()[0], 16) for line in answer.text.splitlines()] == expected
    matches = vmrs("find", sample_guest, *arguments, "--json").json["matches"]
    assert [int(item["address"], 16) for item in matches] == expected
    assert all(bytes.fromhex(item["bytes"]).startswith(b"SAMPLE") for item in matches)
    assert ("no match" in answer.err) == (not expected)
    if expected:
        first = answer.text.split()[0]
        assert first.startswith("0x"), "an address that can be given to other commands"


def test_find_tells_what_was_not_searched(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata(768)], blocks={0: bytes(1 << 20), 2: b"\xff" * 100})
    answer = vmrs("find", path, "needle")
    assert answer.code == 1 and "no match" in answer.err
    assert "2 MiB could not be searched, the first at 0x100000 (missing)" in answer.err
    assert vmrs("find", path, "needle", "--json").json["unread"] == [
        {"start": "0x100000", "size": 1 << 20, "reason": "missing"},
        {"start": "0x200000", "size": 1 << 20, "reason": "damaged"},
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["find", "x", "--hex", "--utf16"],
        ["find", "x", "--vp", "1"],
        ["find", "x", "--start", "2", "--end", "1"],
        ["maps", "--start", "0x1000", "--end", "0x1000"],
        ["read", "--gpa", "0", "--size", "1", "--root", "0"],
        ["translate", "ffffffff80100700"],
        ["translate", "000000000010070d"],
        ["translate", "0000000000100700"],
    ],
)
def test_usage_that_cannot_be_meant(sample_guest: Path, arguments: list[str]) -> None:
    command, *rest = arguments
    assert vmrs(command, sample_guest, *rest).code == 2


def test_addresses_as_windbg_writes_them(sample_guest: Path) -> None:
    assert "0x100700" in vmrs("translate", sample_guest, "0xffffffff`80100700").text


def test_find_utf16_max_and_the_end_of_memory(tmp_path: Path) -> None:
    content = "Päßword".encode("utf-16-le").ljust(1 << 20, b"\xff")
    path = write_state(tmp_path / "x.vmrs", blocks={0: content})
    assert vmrs("find", path, "Päßword", "--utf16").text.split()[0] == "0x" + "0" * 16
    answer = vmrs("find", path, "ff", "--hex", "--max", "3").text.splitlines()
    assert len(answer) == 3
    last = vmrs("find", path, "ff", "--hex", "--start", hex((1 << 20) - 1)).text
    assert last.split() == ["0x00000000000fffff", "ff", "|.|"]


@pytest.mark.parametrize(
    "arguments", [["zz", "--hex"], ["535", "--hex"], ["(", "--regex"], ["x*", "--regex"], [""], ["a", "--max", "0"]]
)
def test_patterns_that_are_none(sample_guest: Path, arguments: list[str]) -> None:
    assert vmrs("find", sample_guest, *arguments).code == 2


def test_convert(tmp_path: Path, sample_guest: Path) -> None:
    memory = bytes(0x1000) + table({0: 0x2003}) + table({0: 0x83})
    source = tmp_path / "dump.elf"
    source.write_bytes(elf(X86_64, prstatus_x86_64(0) + cpu_state(), [Segment(0, memory)]))
    answer = vmrs("convert", source, tmp_path / "out.vmrs", "--compress")
    assert answer.code == 0 and not answer.out
    assert "written as zero: cr8" in answer.err
    assert "VP 0: efer is not in the source, written as 0x500" in answer.err
    assert "not taken over: kernel_gs_base" in answer.err
    assert vmrs("info", tmp_path / "out.vmrs", "--json").json["processors"][0]["paging_levels"] == 4
    registers = tmp_path / "r.json"
    registers.write_text('{"0": {"efer": "0xd01", "cr8": 0}}')
    given = vmrs("convert", source, tmp_path / "two.vmrs", "--registers", registers)
    assert given.code == 0 and "efer" not in given.err
    again = vmrs("convert", source, tmp_path / "two.vmrs")
    assert again.code == 1 and "exists already" in again.err
    itself = vmrs("convert", sample_guest, sample_guest)
    assert itself.code == 1 and "exists already" in itself.err


def test_outputs_never_replace_a_dump_or_its_registers(tmp_path: Path) -> None:
    source, other, registers = tmp_path / "a.elf", tmp_path / "b.elf", tmp_path / "r.json"
    content = elf(X86_64, prstatus_x86_64(0) + cpu_state(), [Segment(0, bytes(0x3000))])
    source.write_bytes(content)
    other.write_bytes(content)
    registers.write_text('{"0": {"cr8": 0}}')
    for target in (source, other, registers):
        before = target.read_bytes()
        answer = vmrs(
            "read", source, "--registers", registers, "--gpa", "0", "--size", "16", "--out", target, "--force"
        )
        assert answer.code == 1 and "never overwritten" in answer.err and target.read_bytes() == before


def test_convert_with_memory_missing(tmp_path: Path) -> None:
    source = write_state(tmp_path / "in.vmrs", ranges=[metadata(512)], blocks={0: numbered_pages(0)})
    failed = vmrs("convert", source, tmp_path / "out.vmrs")
    assert failed.code == 1 and "--fill" in failed.err and not (tmp_path / "out.vmrs").exists()
    filled = vmrs("convert", source, tmp_path / "out.vmrs", "--fill", "0")
    assert filled.code == 1 and "1 MiB of memory could not be read and were filled" in filled.err
    assert vmrs("verify", tmp_path / "out.vmrs").code == 0


def test_dumps_in_the_other_commands(tmp_path: Path) -> None:
    source = tmp_path / "dump.elf"
    content = elf(X86_64, prstatus_x86_64(0) + cpu_state(cr4=0x20, long_code=False), [Segment(0, bytes(0x3000))])
    source.write_bytes(content)
    shown = vmrs("info", source).text
    assert "qemu-elf" in shown and "not in this kind of file" in shown and "Stored as 1 segment;" in shown
    content_json = vmrs("info", source, "--json").json
    assert content_json["vm_version"] is None and content_json["guest_os"] == {"0": None}
    assert content_json["memory"]["stored"] == {"segments": 1, "stored_bytes": 0x3000}
    assert vmrs("verify", source).code == 0
    keys = vmrs("keys", source)
    assert keys.code == 1 and "an ELF file, which has no keys" in keys.err
    registers = tmp_path / "r.json"
    registers.write_text('{"0": {"rip": 1, "efer": 0}}')
    noted = vmrs("verify", source, "--registers", registers)
    assert noted.code == 0 and "the register rip that was given differs" in noted.text
    source.write_bytes(content[:-0x1000])
    broken = vmrs("verify", source)
    assert broken.code == 1 and "guest memory 0x2000 to 0x2fff cannot be read (missing)" in broken.text


def test_without_a_terminal_nobody_counts_what_a_bar_would_show() -> None:
    asked: list[int] = []

    def total() -> int:
        asked.append(1)
        return 4096

    with progress_bar("searched", total) as bar:
        bar(4096)
    assert not asked


def test_a_root_outside_of_memory_is_told(sample_guest: Path) -> None:
    """Nothing would be mapped, and an empty answer would look like one."""
    for command in (["maps"], ["find", "--virtual"], ["read", "--size", "16", "--gva", "0x400000"], ["translate"]):
        pattern = {"find": ["SAMPLE"], "translate": ["0x400000"]}.get(command[0], [])
        answer = vmrs(command[0], sample_guest, *pattern, *command[1:], "--root", "0xA0000")
        assert (answer.code, answer.text) == (2, "")
        assert "the page-table root 0xa0000 is not part of the saved memory" in answer.err
