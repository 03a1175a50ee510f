"""Each command on the bundled sample and on small states: output, JSON shape, exit codes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.command import vmrs
from support.container import INT, Container, key_entry, key_table, small_tree
from support.partition import envelope, epilog, general, metadata, partition_vtl, prolog, vp, vp_indices, vp_vtl
from support.states import BLOCK, legacy_pair, numbered_pages, write_state

EXAMPLES = Path(__file__).parents[2] / "examples"
SAMPLE = EXAMPLES / "sample-guest.vmrs"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Block 1 of two is cut short."""
    block = vmsavedstate.codec.active().encode_block(numbered_pages(256))[:3000]
    return write_state(tmp_path / "damaged.vmrs", ranges=[metadata(512)], blocks={0: numbered_pages(0), 1: block})


def test_info() -> None:
    answer = vmrs("info", SAMPLE)
    assert answer.code == 0
    for text in ("10.0 (0x0a00)", "x64", "long", "ring 0", "ring 3", "15.62 MiB", "640 x 400", "Findings: none"):
        assert text in answer.text
    assert "\x1b" not in answer.text, "no colours in a pipe"


def test_info_json() -> None:
    content = vmrs("info", SAMPLE, "--json").json
    assert content["schema"] == "vmrs/info/1"
    assert content["vm_version"] == 0x0A00
    assert content["memory"]["chunks"][1] == {"start": "0x100000", "size": 15 << 20}
    assert content["screen"] == {"width": 640, "height": 400}
    assert content["findings"] == []
    assert content["processors"][1] == {
        "id": 1, "index": 1, "architecture": "x64", "paging_mode": "long", "paging_levels": 4, "privilege_level": 3,
        "ip": "0x40000c", "page_tables": ["0x1000"], "active_vtl": 0, "enabled_vtls": [0],
    }  # fmt: skip


def test_info_of_states_that_lack_things(tmp_path: Path) -> None:
    blob = envelope(prolog() + vp_indices([0]) + vp(0) + general(1) + epilog())
    path = write_state(tmp_path / "x.vmrs", blob=blob)
    assert re.search(r"0 +- +- +- +0x0 +-", vmrs("info", path).text)
    content = vmrs("info", "--json", path).json
    assert content["processors"][0]["paging_mode"] is None
    assert content["screen"] is None


def test_info_of_many_runs_and_findings(tmp_path: Path) -> None:
    ranges = [metadata(1, gpa=2 * number, backing=0) for number in range(20)]
    path = write_state(tmp_path / "x.vmrs", ranges=ranges)
    answer = vmrs("info", path)
    assert "and 12 more: see `vmrs chunks`" in answer.text


def test_info_with_vtls(tmp_path: Path) -> None:
    row = vp(0) + vp_vtl(0) + general(1) + vp_vtl(1) + general(2)
    blob = envelope(prolog() + partition_vtl(0) + partition_vtl(1) + vp_indices([0]) + row + epilog())
    path = write_state(tmp_path / "x.vmrs", blob=blob)
    assert "0 of 0, 1" in vmrs("info", path).text
    assert vmrs("regs", path, "--vtl", "1", "--json").json["processors"][0]["registers"]["rax"] == "0x2"
    refused = vmrs("regs", path, "--vtl", "2")
    assert refused.code == 2
    assert "VTL 2 is not enabled" in refused.err


def test_regs() -> None:
    text = vmrs("regs", SAMPLE).text
    assert text.count("VP ") == 2
    assert "rax    1111111111111111" in text
    one = vmrs("regs", SAMPLE, "--vp", "1").text
    assert "rbx    5555555555555555" in one
    assert "1111111111111111" not in one


def test_regs_json() -> None:
    content = vmrs("regs", SAMPLE, "--vp", "0", "--json").json
    assert content["schema"] == "vmrs/regs/1"
    (one,) = content["processors"]
    registers = one["registers"]
    assert registers["rip"] == "0xffffffff80100092"
    assert registers["cs"] == {"base": "0x0", "limit": "0xffffffff", "selector": "0x18", "attributes": "0xa09b"}
    assert registers["gdtr"]["limit"] == "0x2f"
    assert registers["fpu"]["st"][0] == "0x4000c90fdaa22168c235"


def test_regs_of_a_processor_that_is_not_there() -> None:
    answer = vmrs("regs", SAMPLE, "--vp", "2")
    assert answer.code == 2
    assert "there is no VP 2" in answer.err


def test_chunks() -> None:
    text = vmrs("chunks", SAMPLE).text
    assert re.search(r"0x100000 +0xffffff +15 MiB +0x100 +0xf00 +0xa0000", text)
    content = vmrs("chunks", "--json", SAMPLE).json
    assert content["schema"] == "vmrs/chunks/1"
    assert content["chunks"][0] == {"start": "0x0", "size": 0xA0000, "start_page": 0, "page_count": 160}
    assert content["size"] == 0xFA0000
    assert [item["page_count"] for item in content["ranges"]] == [160, 3840]


def test_chunks_of_the_partition_state() -> None:
    text = vmrs("chunks", "--partition-state", SAMPLE).text
    assert re.search(r"0x28 +0x00000000 +prolog +- +0 +4064", text)
    content = vmrs("chunks", "--partition-state", "--json", SAMPLE).json
    assert content["schema"] == "vmrs/partition-state/1"
    assert content["chunks"][-1]["name"] == "epilog"


def test_keys() -> None:
    text = vmrs("keys", SAMPLE).text
    assert "/savedstate/savedVM/partition_state" in text
    assert re.search(r"/savedstate/VmVersion +int +8 +2560 \(0xa00\)", text)
    content = vmrs("keys", SAMPLE, "--json").json
    assert content["schema"] == "vmrs/keys/1"
    entries = {item["path"]: item for item in content["keys"]}
    assert entries["/savedstate/type"] == {
        "path": "/savedstate/type", "unique_path": "/savedstate/type", "type": "string", "size": 12, "value": "Normal",
    }  # fmt: skip
    assert entries["/savedstate"]["value"] is None
    assert len(entries["/savedstate/RamBlock3"]["value"]) == 32, "the first 16 bytes"


def test_one_key() -> None:
    assert vmrs("keys", SAMPLE, "/savedstate/type").text == "Normal\n"
    below = vmrs("keys", SAMPLE, "/savedstate/savedVM").text
    assert "partition_state" in below
    assert "RamBlock" not in below
    dump = vmrs("keys", SAMPLE, "/savedstate/RamMemoryBlock0").text
    assert dump.splitlines()[0].startswith("0000  03 00 00 00 00 00 00 00")
    whole = vmrs("keys", SAMPLE, "/savedstate/RamMemoryBlock0", "--json").json["keys"]
    assert len(whole) == 1
    assert len(whole[0]["value"]) == 96
    missing = vmrs("keys", SAMPLE, "/savedstate/none")
    assert missing.code == 1
    assert "no key" in missing.err


def test_raw_value_of_a_key(tmp_path: Path) -> None:
    with vmsavedstate.open_store(SAMPLE) as store:
        expected = store["/savedstate/savedVM/partition_state"].value
    assert vmrs("keys", SAMPLE, "/savedstate/savedVM/partition_state", "--raw").out == expected
    target = tmp_path / "blob"
    assert vmrs("keys", SAMPLE, "/savedstate/savedVM/partition_state", "--out", target).code == 0
    assert target.read_bytes() == expected
    for wrong in (["--raw"], ["/savedstate", "--raw"], ["/savedstate/type", "--raw", "--json"]):
        assert vmrs("keys", SAMPLE, *wrong).code == 2


def test_keys_and_verify_without_saved_state(tmp_path: Path) -> None:
    path = Container([key_table(1, small_tree())]).write(tmp_path / "x.vmcx")
    assert "/node/child" in vmrs("keys", path).text
    answer = vmrs("verify", path)
    assert answer.code == 0
    assert "there is no saved state in this file" in answer.text
    assert vmrs("info", path).code == 1


def test_keys_of_one_half_of_a_pair(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    vsv_path.unlink()
    assert "/RamBlock/0" in vmrs("keys", bin_path).text
    assert vmrs("verify", bin_path).code == 1


def test_pair_through_the_commands(tmp_path: Path) -> None:
    bin_path, vsv_path = legacy_pair(tmp_path)
    assert "bin+vsv" in vmrs("info", vsv_path).text
    assert vmrs("verify", bin_path).code == 0
    moved = vsv_path.rename(tmp_path / "elsewhere")
    assert vmrs("info", bin_path).code == 1
    assert vmrs("info", bin_path, "--companion", moved).code == 0


def test_read_bytes_into_a_pipe() -> None:
    with vmsavedstate.open(SAMPLE) as state:
        assert vmrs("read", SAMPLE, "--gpa", "0x100000", "--size", "3MiB").out == state.memory.read(0x100000, 3 << 20)


@pytest.mark.parametrize(
    ("gpa", "size"), [("1048576", "4096"), ("0x100000", "0x1000"), ("1MiB", "4KiB"), ("1m", "4k"), ("1_048_576", "4K")]
)
def test_forms_of_numbers(gpa: str, size: str) -> None:
    with vmsavedstate.open(SAMPLE) as state:
        assert vmrs("read", SAMPLE, "--gpa", gpa, "--size", size).out == state.memory.read(0x100000, 4096)


@pytest.mark.parametrize("number", ["", "x", "0x", "-1", "1.5MiB", "4KB", "0b11", "1__0 apples", "_"])
def test_what_is_no_number(number: str) -> None:
    answer = vmrs("read", SAMPLE, f"--gpa={number}", "--size", "1")
    assert answer.code == 2
    assert "is not a number" in answer.err


def test_read_as_hex() -> None:
    lines = vmrs("read", SAMPLE, "--gpa", "0xfff8", "--size", "0x48", "--hex").text.splitlines()
    assert lines[0].startswith("0000fff8  00 00")
    assert lines[1] == "*"
    assert lines[-1].startswith("00010038")
    text = vmrs("read", SAMPLE, "--gpa", "0x100700", "--size", "25", "--hex").text
    assert "|VMSAVEDSTATE SAM|" in text


def test_read_into_a_file(tmp_path: Path) -> None:
    target = tmp_path / "memory.bin"
    assert vmrs("read", SAMPLE, "--gpa", "0", "--size", "0xa0000", "--out", target) == (0, b"", "")
    with vmsavedstate.open(SAMPLE) as state:
        assert target.read_bytes() == state.memory.read(0, 0xA0000)
    again = vmrs("read", SAMPLE, "--gpa", "0", "--size", "1", "--out", target)
    assert again.code == 1
    assert "exists already" in again.err
    assert vmrs("read", SAMPLE, "--gpa", "0", "--size", "1", "--out", target, "--force").code == 0
    assert target.stat().st_size == 1
    assert [item.name for item in tmp_path.iterdir()] == ["memory.bin"]


def test_read_over_a_hole(tmp_path: Path) -> None:
    answer = vmrs("read", SAMPLE, "--gpa", "0x9f000", "--size", "0x62000")
    assert (answer.code, answer.out) == (1, b""), "nothing goes out before the holes are known"
    assert "0xa0000 to 0xfffff" in answer.err
    assert "--fill" in answer.err
    filled = vmrs("read", SAMPLE, "--gpa", "0x9f000", "--size", "0x62000", "--fill", "204")
    assert filled.out[0x1000:0x61000] == b"\xcc" * 0x60000
    target = tmp_path / "x"
    assert vmrs("read", SAMPLE, "--gpa", "0x9f000", "--size", "2MiB", "--out", target).code == 1
    assert list(tmp_path.iterdir()) == []


def test_read_of_a_damaged_block_leaves_no_half_file(damaged: Path) -> None:
    target = damaged.parent / "out"
    answer = vmrs("read", damaged, "--gpa", "0", "--size", "2MiB", "--out", target)
    assert answer.code == 1
    assert "is damaged" in answer.err
    assert not target.exists()
    assert not target.with_name("out.partial").exists()


EXAMPLE_VSV_MAGIC = bytes.fromhex("03201802")  # of a .bin or .vsv


def test_evidence_is_never_an_output(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    digest = hashlib.sha256(path.read_bytes()).digest()
    link = tmp_path / "link"
    link.symlink_to(path)
    for target in (path, link, tmp_path / "." / "x.vmrs"):
        answer = vmrs("read", path, "--gpa", "0", "--size", "1", "--out", target, "--force")
        assert answer.code == 1
        assert "never overwritten" in answer.err
    assert vmrs("keys", path, "/savedstate/VmVersion", "--out", path, "--force").code == 1
    assert hashlib.sha256(path.read_bytes()).digest() == digest


@pytest.mark.parametrize("what", ["header", "table", "half", "both headers", "companion"])
def test_damaged_evidence_is_never_an_output(tmp_path: Path, what: str) -> None:
    """A container that cannot be opened is evidence all the same, and so is one whose header is lost."""
    source, target = write_state(tmp_path / "x.vmrs"), tmp_path / "y.vmrs"
    raw = bytearray(source.read_bytes())
    if what == "header":
        raw[8:40] = bytes(32)
    elif what == "table":
        raw[0x2000:0x2100] = b"\xee" * 0x100
    elif what == "half":
        raw = raw[: 0x2000 + 5]
    elif what == "both headers":
        raw[0:0x2000] = bytes(0x2000)
    else:
        raw = bytearray(EXAMPLE_VSV_MAGIC + bytes(4096))
    target.write_bytes(raw)
    commands: tuple[list[str | Path], ...] = (
        ["read", source, "--gpa", "0", "--size", "1", "--out", target, "--force"],
        ["keys", source, "/savedstate/VmVersion", "--out", target, "--force"],
    )
    for command in commands:
        answer = vmrs(*command)
        assert answer.code == 1 and "never overwritten" in answer.err
        assert target.read_bytes() == raw


def test_screen(tmp_path: Path) -> None:
    target = tmp_path / "screen.png"
    assert vmrs("screen", SAMPLE, "--out", target).code == 0
    with vmsavedstate.open(SAMPLE) as state:
        assert state.screen is not None
        assert target.read_bytes() == state.screen.to_png()
        assert vmrs("screen", SAMPLE, "--out", "-").out == state.screen.to_png()
    lines = vmrs("screen", SAMPLE, "--width", "80").text.splitlines()
    assert len(lines) == 25
    assert "█" in lines[18], "the colour bars"
    assert not lines[0].strip()


def test_no_screen(tmp_path: Path) -> None:
    answer = vmrs("screen", write_state(tmp_path / "x.vmrs"))
    assert answer.code == 1
    assert "no picture" in answer.err


def test_verify() -> None:
    answer = vmrs("verify", SAMPLE)
    assert answer.code == 0
    assert "2 processors, 15.62 MiB of memory, the screen" in answer.text
    content = vmrs("verify", SAMPLE, "--json").json
    assert content["schema"] == "vmrs/verify/1"
    assert (content["sound"], content["error"], content["findings"]) == (True, None, [])


def test_verify_finds_damage_in_memory(damaged: Path) -> None:
    answer = vmrs("verify", damaged)
    assert answer.code == 1
    assert "Findings: 1 damage" in answer.text
    content = vmrs("verify", damaged, "--json").json
    assert content["sound"] is False
    (finding,) = content["findings"]
    assert finding["severity"] == "damage"
    assert finding["file"] == str(damaged)
    assert finding["offset"].startswith("0x")


def test_verify_does_not_fail_for_notes(tmp_path: Path) -> None:
    entries = [key_entry(17, "strange", b"\1\2\3\4\5"), *small_tree()[1:]]
    path = Container([key_table(1, [key_entry(INT, "x", bytes(8)), *entries[:1]])]).write(tmp_path / "x.vmcx")
    answer = vmrs("verify", path)
    assert answer.code == 0
    assert "0 damage, 1 note" in answer.text


def test_verify_of_what_cannot_be_opened(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", ranges=[metadata(0)])
    answer = vmrs("verify", path)
    assert answer.code == 1
    assert "Cannot be read" in answer.text
    assert "1 damage" in answer.text, "what was found before the end is told as well"
    content = vmrs("verify", path, "--json").json
    assert "no guest memory" in content["error"]


def test_strict(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", properties=0x0900)
    assert "disagree" in vmrs("info", path).text
    for command in (["info"], ["regs"], ["chunks"], ["screen"], ["read", "--gpa", "0", "--size", "1"]):
        answer = vmrs(command[0], path, "--strict", *command[1:])
        assert answer.code == 1
        assert "disagree" in answer.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_VMRS_COMPLETE" in vmrs("completion", shell).text


def test_completion_knows_commands_and_options() -> None:
    answer = vmrs(_VMRS_COMPLETE="bash_complete", COMP_WORDS="vmrs re", COMP_CWORD="1")
    assert {line.split(",")[1] for line in answer.text.split()} == {"regs", "read"}
    answer = vmrs(_VMRS_COMPLETE="bash_complete", COMP_WORDS="vmrs read --g", COMP_CWORD="2")
    assert "--gpa" in answer.text


def test_every_command_on_what_is_no_saved_state(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for name in ("info", "regs", "chunks", "keys", "screen", "verify"):
        for path in (text, tmp_path / "none", tmp_path):
            answer = vmrs(name, path)
            assert answer.code == 1, name
            assert answer.err or "Cannot be read" in answer.text


def test_json_of_the_whole_tree_is_readable_for_any_name(tmp_path: Path) -> None:
    entries: list[Any] = [key_entry(INT, b"\xff\x1b[31m", bytes(8))]
    path = Container([key_table(1, entries)]).write(tmp_path / "x.vmcx")
    assert "\x1b" not in vmrs("keys", path).text, "names out of evidence must not steer the terminal"
    assert vmrs("keys", path, "--json").json["keys"][0]["path"] == "/\udcff\x1b[31m"
    assert BLOCK == 1 << 20


def test_fills_are_told(damaged: Path) -> None:
    answer = vmrs("read", damaged, "--gpa", "0", "--size", "3MiB", "--fill", "0xCC")
    assert len(answer.out) == 3 << 20
    assert answer.code == 1, "damage was filled, not only a hole"
    assert "(damaged)" in answer.err
    assert "filled 0x200000 to 0x2fffff (hole)" in answer.err
    only_hole = vmrs("read", SAMPLE, "--gpa", "0x9f000", "--size", "0x2000", "--fill", "0")
    assert only_hole.code == 0
    assert only_hole.err == "vmrs: filled 0xa0000 to 0xa0fff (hole)\n"


def test_strict_reads_fill_no_damage(damaged: Path) -> None:
    target = damaged.parent / "o"
    answer = vmrs("read", damaged, "--strict", "--gpa", "1MiB", "--size", "1MiB", "--fill", "0", "--out", target)
    assert answer.code == 1
    assert "is damaged" in answer.err
    assert not target.exists()


def test_verify_names_the_guest_memory_that_is_lost(damaged: Path) -> None:
    assert "to 0x1fffff cannot be read (damaged)" in vmrs("verify", damaged).text
    (gap,) = vmrs("verify", damaged, "--json").json["unreadable"]
    assert int(gap["start"], 16) + gap["size"] == 2 << 20
    assert gap["reason"] == "damaged"


def test_other_commands_say_that_there_are_findings(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", properties=0x0900)
    for command in (["regs"], ["chunks"], ["read", "--gpa", "0", "--size", "1"]):
        assert "1 damage, 0 note: `vmrs verify` lists them" in vmrs(command[0], path, *command[1:]).err
    assert vmrs("info", path).err == ""


def test_verify_looks_at_every_value(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    assert vmrs("verify", path).code == 0
    raw = key_entry(INT, "x", bytes(8))
    container = Container([key_table(1, [raw, key_entry(6, "odd", b"\3\0\0\0abc", sequence=2)])])
    answer = vmrs("verify", container.write(tmp_path / "y.vmcx"))
    assert answer.code == 1
    assert "string of odd size" in answer.text


def test_same_named_siblings(tmp_path: Path) -> None:
    first = key_entry(9, "d", bytes(12), sequence=1)
    children = [
        key_entry(INT, "n", bytes([number]) + bytes(7), parent=(1, at))
        for number, at in ((1, 10), (2, 10 + len(first)))
    ]
    path = Container([key_table(1, [first, key_entry(9, "d", bytes(12), sequence=2), *children])]).write(
        tmp_path / "x.vmcx"
    )
    text = vmrs("keys", path, "/d/n").text
    assert "/d[1]/n" in text
    assert "/d[2]/n" in text
    assert vmrs("keys", path, "/d[2]/n").text == "2\n"
    refused = vmrs("keys", path, "/d/n", "--raw")
    assert refused.code == 2
    assert "2 keys have this path" in refused.err
    assert vmrs("keys", path, "/d[1]/n", "--raw").out == b"\1" + bytes(7)
    assert [item["unique_path"] for item in vmrs("keys", path, "--json").json["keys"]] == [
        "/d[1]",
        "/d[1]/n",
        "/d[2]",
        "/d[2]/n",
    ]


def test_real_mode_shows_where_the_code_is(tmp_path: Path) -> None:
    row = vp_indices([0]) + vp(0) + general(*[0] * 16, 0x5BA9)
    segments = b"".join((0xF0000 if n == 1 else 0).to_bytes(8, "little") + b"\xff\xff\0\0" + (0xF000).to_bytes(2, "little")
                        + b"\x9b\0" for n in range(8)) + bytes(16)  # fmt: skip
    from support.partition import chunk

    path = write_state(tmp_path / "x.vmrs", blob=envelope(prolog() + row + chunk(0x30009000, segments) + epilog()))
    assert "f000:5ba9 (0xf5ba9)" in vmrs("info", path).text
