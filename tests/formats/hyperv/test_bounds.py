"""Bounds of a saved state: absurd counts, numbers and sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

import vmsavedstate
from support import partition as p
from support.command import vmrs
from support.states import legacy_file, write_state
from vmsavedstate.errors import CompanionError


def test_a_huge_list_of_processors(tmp_path: Path) -> None:
    listed = p.chunk(0x30000000, bytes(4) + b"\1" + bytes(1 << 20) + b"\1")
    blob = p.envelope(p.prolog() + listed + p.vp(0) + p.general(1) + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert any("list of processors goes beyond" in item.message for item in state.findings)
        assert len(state.processors) == 1


def test_a_processor_of_an_absurd_number(tmp_path: Path) -> None:
    row = p.vp_indices([0]) + p.vp(0) + p.general(1) + p.vp(0xFFFFFFFF) + p.general(2) + p.epilog()
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=p.envelope(p.prolog() + row))) as state:
        assert [vp.index for vp in state.processors] == [0]
        assert any("absurd number" in item.message for item in state.findings)


def test_many_unknown_chunks_of_one_id_are_one_note(tmp_path: Path) -> None:
    unknown = b"".join(p.chunk(0x2FFFFFF0, bytes([number])) for number in range(200))
    blob = p.envelope(p.prolog() + unknown + p.vp_indices([0]) + p.vp(0) + p.general(1) + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert len(state.findings) == 1
        assert sum(item.name == "unknown" for item in state.chunks) == 200


def test_block_numbers_beyond_any_memory(tmp_path: Path) -> None:
    """int() refuses more than 4,300 digits; nobody may see that."""
    values = {f"RamBlock/{'9' * 5000}/": (1, b"x" * 20), "RamBlock/0/": (1, bytes(0x100000))}
    (tmp_path / "x.bin").write_bytes(legacy_file(values))
    state = {"/savedVM/partition_state": (1, p.simple_blob()), "RamMemoryBlock/0/": (1, p.metadata(256))}
    (tmp_path / "x.vsv").write_bytes(legacy_file(state))
    with vmsavedstate.open(tmp_path / "x.bin") as opened:
        assert opened.memory.read(0, 1) == b"\0"


def test_verify_of_an_absurd_page_count(tmp_path: Path) -> None:
    """2**44 blocks are claimed and one is there: what is missing is one range, found in one step."""
    path = write_state(tmp_path / "x.vmrs", ranges=[p.metadata((1 << 52) - 1)])
    answer = vmrs("verify", path, "--json")
    assert answer.code == 1
    assert answer.json["unreadable"] == [{"start": "0x100000", "size": (1 << 64) - 0x101000, "reason": "missing"}]


def test_many_ranges_over_the_same_blocks(tmp_path: Path) -> None:
    ranges = [p.metadata(1 << 40, gpa=number << 41, backing=0) for number in range(200)]
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", ranges=ranges)) as state:
        missing = [item for item in state.findings if "are missing" in item.message]
        assert len(missing) == 1


def test_one_wrong_metadata_value_does_not_part_a_pair(tmp_path: Path) -> None:
    from support.states import legacy_pair

    bin_path, vsv_path = legacy_pair(tmp_path)
    content = {
        "/savedVM/partition_state": (1, p.simple_blob()),
        "RamMemoryBlock/0/": (1, p.metadata(256)),
        "RamMemoryBlock/1/": (1, p.metadata(1 << 60)),
    }
    vsv_path.write_bytes(legacy_file(content))
    with vmsavedstate.open(bin_path) as state:
        assert state.findings
    content["RamMemoryBlock/1/"] = (1, p.metadata(256, gpa=0x1000, backing=256))
    vsv_path.write_bytes(legacy_file(content))
    with pytest.raises(CompanionError, match="needs 2 memory blocks"):
        vmsavedstate.open(bin_path)


def test_zeros_instead_of_an_epilog_are_not_walked(tmp_path: Path) -> None:
    """Sixteen zero bytes read as an empty Prolog: 4 MiB of them would be 262,144 findings."""
    blob = p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(1) + bytes(4 << 20))
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert ["second Prolog" in item.message for item in state.findings] == [True]
        assert state.processors[0].registers.rax == 1


def test_the_number_of_chunks_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmsavedstate.formats.hyperv import state_chunks as chunks

    monkeypatch.setattr(chunks, "MAX_CHUNKS", 50)
    blob = p.envelope(p.prolog() + p.vp_indices([0]) + p.vp(0) + p.general(1) + p.chunk(0x2BADBAD0) * 100 + p.epilog())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs", blob=blob)) as state:
        assert len(state.chunks) == 50
        assert any("too many chunks" in item.message for item in state.findings)
