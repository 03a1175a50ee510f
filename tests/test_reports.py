"""Summaries and reports as objects: what the command prints, and for states without processors why."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

import vmsavedstate
from support.command import vmrs
from support.samples import Samples
from support.states import damaged_state, write_state
from vmsavedstate import NoVirtualProcessorError, Report, Summary
from vmsavedstate import state as state_module
from vmsavedstate.formats import detect
from vmsavedstate.provider import LoadSavedStateFile
from vmsavedstate.snapshot import Snapshot


def printed(command: str, *arguments: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = vmrs(command, *arguments, "--json").json
    assert content.pop("schema") == f"vmrs/{command}/1"
    return content


def as_json(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value))


@pytest.fixture(params=["sample", "damaged", "real"])
def path(request: pytest.FixtureRequest, tmp_path: Path, sample_guest: Path, samples: Samples) -> Path:
    if request.param == "sample":
        return sample_guest
    return damaged_state(tmp_path / "x.vmrs") if request.param == "damaged" else samples("no-os-252mib.vmrs")


def test_the_command_prints_the_objects(path: Path) -> None:
    with vmsavedstate.open(path) as state:
        summary = state.summary()
        seen: list[int] = []
        report = state.verify(seen.append)
    assert isinstance(summary, Summary) and isinstance(report, Report)
    assert printed("info", path) == as_json(summary.to_dict())
    assert printed("verify", path) == as_json(report.to_dict()) == as_json(vmsavedstate.verify(path).to_dict())
    assert seen == sorted(seen) and seen[-1] >= summary.memory_size == report.memory_size
    items: list[Any] = [summary, report, summary.cpu, *summary.processors]
    for item in items:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, dataclasses.fields(item)[0].name, ())


def test_a_report_of_damage(tmp_path: Path) -> None:
    report = vmsavedstate.verify(damaged_state(tmp_path / "x.vmrs"))
    assert not report.sound and report.error is None
    assert [gap[:] for gap in report.unreadable] == [(1 << 20, 2 << 20, "missing")]
    assert [item.code for item in report.findings] == ["memory.block.missing"]


def test_a_report_of_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing of the kind" * 100)
    for given in (tmp_path / "x", io.BytesIO(b"nothing of the kind" * 100)):
        report = vmsavedstate.verify(given)
        assert not report.sound and isinstance(report.error, vmsavedstate.FormatError)
        assert report.checked is None and report.processors is None
    assert printed("verify", tmp_path / "x") == as_json(vmsavedstate.verify(tmp_path / "x").to_dict())
    assert isinstance(vmsavedstate.verify(tmp_path / "absent").error, FileNotFoundError)


def test_a_store_without_a_saved_state_has_a_report(samples: Samples) -> None:
    report = vmsavedstate.verify(samples("config-v9.vmcx"))
    assert report.sound and report.processors is None and "no saved state" in str(report.checked)


@pytest.fixture
def no_processors(monkeypatch: pytest.MonkeyPatch, sample_guest: Path) -> Path:
    """Opens the bundled sample as a format would that holds no processor."""
    original = detect.open_snapshot

    def without(*arguments: Any) -> Snapshot:
        return original(*arguments)._replace(processors=(), no_processors="a raw image holds memory alone")

    monkeypatch.setattr(state_module, "open_snapshot", without)
    return sample_guest


def test_info_and_memory_work_without_processors(no_processors: Path) -> None:
    with vmsavedstate.open(no_processors) as state:
        assert state.processors == () and state.no_processors == "a raw image holds memory alone"
        assert state.memory.read(0x100700, 12) == b"VMSAVEDSTATE"
        summary = state.summary()
        assert summary.processors == () and summary.to_dict()["no_processors"] == state.no_processors
        assert state.verify().sound


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["info", "FILE"], 0), (["verify", "FILE"], 0), (["chunks", "FILE"], 0), (["keys", "FILE"], 0),
        (["find", "FILE", "VMSAVEDSTATE"], 0), (["read", "FILE", "--gpa", "0x100700", "--size", "4", "--hex"], 0),
        (["regs", "FILE"], 1), (["maps", "FILE"], 1), (["translate", "FILE", "0x1000"], 1),
        (["read", "FILE", "--gva", "0", "--size", "1"], 1), (["find", "FILE", "x", "--virtual"], 1),
        (["convert", "FILE", "OUT"], 1),
    ],
)  # fmt: skip
def test_commands_without_processors(
    no_processors: Path,
    tmp_path: Path,
    arguments: list[str],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from vmsavedstate.cli import app

    places = {"FILE": str(no_processors), "OUT": str(tmp_path / "out.vmrs")}
    monkeypatch.setattr("sys.argv", ["vmrs", *(places.get(item, item) for item in arguments)])
    assert app._run() == expected
    said = capsys.readouterr()
    if expected:
        assert "there is no" in said.err or "there is none" in said.err
        assert "a raw image holds memory alone" in said.err
        assert not (tmp_path / "out.vmrs").exists()
    elif arguments[0] == "info":
        assert "a raw image holds memory alone" in said.out


def test_the_provider_answers_that_there_is_no_processor(no_processors: Path) -> None:
    with pytest.raises(NoVirtualProcessorError) as caught:
        LoadSavedStateFile(no_processors)
    assert caught.value.hresult == 0xC0370502


def test_ranges_have_start_end_and_size(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        space = state.processors[0].space
        run = next(space.mappings(0x400000))
        lost = vmsavedstate.LostTable(0x400000, 0x200000, 0x3000, vmsavedstate.Reason.MISSING)
        gap = next(state.memory.gaps(0x9F000, 0x2000))
        items: list[Any] = [*state.memory.chunks, *state.memory.runs(0, 1 << 24), *state.memory.ranges, gap, run, lost,
                 *state.memory.blocks()]  # fmt: skip
        for item in items:
            assert item.end - item.start == item.size > 0
            assert all(type(value) is int for value in (item.start, item.end, item.size))
        assert (run.start, run.gva, lost.start, lost.end) == (0x400000, 0x400000, 0x400000, 0x600000)
        assert (gap.start, gap.end) == (0xA0000, 0xA1000)


def test_to_dict_can_be_json(tmp_path: Path, sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        vp = state.processors[0]
        items: list[Any] = [state.memory, vp, vp.registers, vp.walk(0x400000), next(vp.mappings()), state.chunks[0],
                 state.memory.chunks[0], state.memory.ranges[0], state.guest_os()]  # fmt: skip
        for item in items:
            assert as_json(item.to_dict())
    with vmsavedstate.open(write_state(tmp_path / "x.vmrs")) as state:
        assert as_json(state.summary().to_dict())["memory"]["size"] == 1 << 20
