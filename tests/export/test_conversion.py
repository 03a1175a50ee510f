"""Converting to ``.vmrs``: everything that can be taken over is, and what cannot is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.elf import AARCH64, X86_64, Segment, cpu_state, elf, prstatus_aarch64, prstatus_x86_64, vectors
from support.partition import (
    chunk,
    control,
    control_page,
    debug,
    envelope,
    epilog,
    general,
    metadata,
    os_id,
    partition_vtl,
    prolog,
    segments,
    tables,
    vp,
    vp_indices,
    vp_vtl,
)
from support.states import legacy_pair, numbered_pages, write_state
from support.structure_check import StructureCheck
from support.tables import table
from vmsavedstate import GuestMemoryError, RegisterNotAvailableError, SourceError
from vmsavedstate.export import Conversion, write_vmrs

TABLES = bytes(0x1000) + table({0: 0x2003}) + table({0: 0x3003}) + table({0: 0x83})
NX_TABLES = bytes(0x1000) + table({0: 0x2003}) + table({0: 0x3003}) + table({0: 0x83, 1: 0x83 | 1 << 63})
MEMORY = [(0, 0x4000), (0x100000, 0x3000)]


def dump(path: Path, notes: bytes, low: bytes = TABLES) -> Path:
    path.write_bytes(elf(X86_64, notes, [Segment(0, low), Segment(0x100000, b"high".ljust(0x3000, b"h"))]))
    return path


def converted(source: Path, target: Path, **options: Any) -> Conversion:
    with vmsavedstate.open(source) as state:
        return write_vmrs(state, target, **options)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("low", "efer"), [(TABLES, 0x500), (NX_TABLES, 0xD00)])
def test_a_dump(tmp_path: Path, compress: bool, low: bytes, efer: int) -> None:
    """EFER is written as far as it follows, and told; so is everything else that the two files do not share."""
    source = dump(tmp_path / "dump", prstatus_x86_64(0) + cpu_state(), low)
    done: list[int] = []
    report = converted(source, tmp_path / "out.vmrs", compress=compress, progress=done.append)
    assert done[-1] == 0x7000
    assert {(item.name, item.source, item.written) for item in report.changes} == {
        ("efer", None, efer), ("cr8", None, 0), ("kernel_gs_base", 0xFFFF800000001000, None),
    }  # fmt: skip
    assert (report.filled, report.left_behind) == (0, ())
    assert StructureCheck((tmp_path / "out.vmrs").read_bytes()).check_saved_state() == []
    with vmsavedstate.open(source) as old, vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as new:
        assert [(item.start, item.size) for item in new.memory.chunks] == MEMORY
        assert new.memory.read_raw(0, new.memory.size) == old.memory.read_raw(0, old.memory.size)
        assert (new.vm_version, new.findings) == (0x0A00, ())
        before, after = old.processors[0], new.processors[0]
        assert (after.registers.rip, after.registers.cs, after.cpl) == (
            before.registers.rip,
            before.registers.cs,
            before.cpl,
        )
        assert [run[:3] for run in after.mappings()] == [run[:3] for run in before.mappings()]
        assert [str(run.access) for run in after.mappings()] == [str(run.access) for run in before.mappings()]


def test_given_registers_are_taken_over(tmp_path: Path) -> None:
    source = dump(tmp_path / "dump", prstatus_x86_64(0) + cpu_state())
    given = {0: {"efer": 0xD01, "cr8": 3, "xmm3": 5, "dr7": 0x400}}
    with vmsavedstate.open(source, registers=given) as state:
        report = write_vmrs(state, tmp_path / "out.vmrs")
    assert "efer" not in {item.name for item in report.changes}
    with vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as new:
        r = new.processors[0].registers
        assert (r.efer, r.cr8, r.xmm3, r.dr7) == (0xD01, 3, 5, 0x400)


def test_arm64(tmp_path: Path) -> None:
    """No control registers in the dump, none in the state: absent stays absent."""
    path = tmp_path / "dump"
    path.write_bytes(elf(AARCH64, prstatus_aarch64(0) + vectors(), [Segment(0x40000000, bytes(0x10000))]))
    converted(path, tmp_path / "out.vmrs")
    with vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as new:
        (vp_,) = new.processors
        assert (vp_.registers.pc, vp_.registers.q31, vp_.registers.sp_el1) == (0x1234, 32, 0x5000)
        with pytest.raises(RegisterNotAvailableError, match="sctlr_el1"):
            vp_.translate(0)


def test_trust_levels_sparse_processors_and_the_screen(tmp_path: Path, sample_guest: Path) -> None:
    row = [os_id(0x8100010000000000), partition_vtl(0), partition_vtl(1), vp_indices([3, 70])]
    for index in (3, 70):
        row += [vp(index), control_page(0), vp_vtl(0), general(index), control(cr3=0x1000), debug(1), segments(cpl=3)]
        row += [tables(), vp_vtl(1), control_page(1), general(9), control(cr3=0x2000), debug(1), segments(), tables()]
        row += [chunk(0x12345678, b"odd")]
    source = write_state(
        tmp_path / "in.vmrs",
        blob=envelope(prolog() + b"".join(row) + epilog()),
        blocks={0: numbered_pages(0), 1: numbered_pages(256)},
        version=0x0C03,
        properties=0x0C03,
        ranges=[metadata(256), metadata(160, 0x1000, 256, node=1)],
    )
    report = converted(source, tmp_path / "out.vmrs", compress=True)
    assert report.changes == () and report.left_behind == ("unknown",)
    with vmsavedstate.open(source) as old, vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as new:
        assert (new.vm_version, new.enabled_vtls, new.guest_os().raw) == (0x0C03, (0, 1), 0x8100010000000000)
        assert [(item.start_page, item.page_count, item.node) for item in new.memory.ranges] == [
            (0, 256, 0),
            (0x1000, 160, 1),
        ]
        assert new.memory.read_raw(0, new.memory.size) == old.memory.read_raw(0, old.memory.size)
        for a, b in zip(old.processors, new.processors, strict=True):
            assert (a.index, a.active_vtl, a.enabled_vtls) == (b.index, b.active_vtl, b.enabled_vtls)
            for vtl in (0, 1):
                assert dict(a.vtl(vtl).registers) == dict(b.vtl(vtl).registers) and a.vtl(vtl).cpl == b.vtl(vtl).cpl
    converted(sample_guest, tmp_path / "sample.vmrs")
    with vmsavedstate.open(sample_guest) as old, vmsavedstate.open(tmp_path / "sample.vmrs", strict=True) as new:
        assert new.screen is not None and old.screen is not None and new.screen.rgb == old.screen.rgb


def test_a_pair_becomes_one_file(tmp_path: Path) -> None:
    source, _ = legacy_pair(tmp_path)
    converted(source, tmp_path / "out.vmrs")
    with vmsavedstate.open(source) as old, vmsavedstate.open(tmp_path / "out.vmrs", strict=True) as new:
        assert new.memory.read_raw(0, new.memory.size) == old.memory.read_raw(0, old.memory.size)
        assert dict(new.processors[0].registers) == dict(old.processors[0].registers)
        assert new.vm_version == 0x0A00


def test_memory_that_cannot_be_read(tmp_path: Path) -> None:
    """An error that leaves nothing behind; with a fill byte an account of it."""
    source = write_state(tmp_path / "in.vmrs", ranges=[metadata(512)], blocks={0: numbered_pages(0)})
    target = tmp_path / "out.vmrs"
    with pytest.raises(GuestMemoryError, match="0x100000 to 0x1fffff"):
        converted(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.vmrs"]
    assert converted(source, target, fill=0xEE).filled == 0x100000
    with vmsavedstate.open(target, strict=True) as new:
        assert new.memory.read(0x100000, 3) == b"\xee" * 3
    with pytest.raises(SourceError, match="exists already"):
        converted(source, target, fill=0)
