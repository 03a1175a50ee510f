"""Exit codes, pipes, terminals, odd paths: how the command behaves in the world."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import vmrs
from support.states import write_state

SAMPLE = Path(__file__).parents[2] / "examples" / "sample-guest.vmrs"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["info"], ["info", "--nonsense", "x"], ["read", "x"], ["regs", "x", "--vp", "-1"],
     ["read", "x", "--gpa", "0", "--size", "1", "--hex", "--out", "y"], ["completion", "perl"],
     ["read", "x", "--gpa", "0", "--size", "1", "--fill", "256"]],
)  # fmt: skip
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    answer = vmrs(*arguments)
    assert (answer.code, answer.out) == (2, b"")
    assert "Error" in answer.err


def test_help_and_version() -> None:
    for arguments in (["-h"], ["--help"], ["info", "-h"], ["read", "--help"]):
        assert vmrs(*arguments).code == 0
    assert vmrs("--version").text.startswith("vmrs ")
    assert vmrs("--version", VMSAVEDSTATE_CODEC="python").text.endswith("extension is not in use)\n")
    assert vmrs("--version", VMSAVEDSTATE_CODEC="perl").code == 2


def test_help_lists_every_command_that_exists() -> None:
    from vmsavedstate.cli.app import COMMANDS

    text = vmrs("--help").text
    folder = Path(sys.modules["vmsavedstate.cli.app"].__file__ or "").parent
    for name in COMMANDS:
        assert name in text
        assert (folder / f"{name}.py").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("arguments", [["keys"], ["read", "--gpa", "0x100000", "--size", "15MiB"], ["regs"], ["info"]])
def test_a_reader_that_goes_away(arguments: list[str]) -> None:
    name, *rest = arguments
    command = [sys.executable, "-m", "vmsavedstate", name, str(SAMPLE), *rest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait() == 0
        assert error == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["keys"], ["info"], ["read", "--gpa", "0", "--size", "64KiB"]])
def test_output_that_cannot_be_written(arguments: list[str]) -> None:
    name, *rest = arguments
    command = [sys.executable, "-m", "vmsavedstate", name, str(SAMPLE), *rest]
    with open("/dev/full", "wb") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert run.returncode == 1
    assert b"cannot write the output" in run.stderr
    assert b"Traceback" not in run.stderr


@pytest.mark.skipif(os.name == "nt", reason="paths are text on Windows")
def test_paths_that_are_no_utf8(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.vmrs"
    shutil.copyfile(SAMPLE, odd)
    for name in ("info", "regs", "chunks", "keys", "verify"):
        assert vmrs(name, odd).code == 0
    assert "caf\\udce9" in vmrs("info", odd).text
    assert vmrs("info", "--json", odd).json["files"][0].endswith("caf\udce9.vmrs")
    missing = vmrs("info", odd + b"x")
    assert missing.code == 1
    target = os.fsencode(tmp_path) + b"/\xe8.png"
    assert vmrs("screen", odd, "--out", target).code == 0
    assert os.path.exists(target)


def test_plain_ascii_terminals() -> None:
    answer = vmrs("screen", SAMPLE, PYTHONIOENCODING="ascii")
    assert answer.code == 0
    assert vmrs("info", SAMPLE, PYTHONIOENCODING="ascii", LC_ALL="C").code == 0


def test_read_only_medium(tmp_path: Path) -> None:
    path = tmp_path / "x.vmrs"
    shutil.copyfile(SAMPLE, path)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        for name in ("info", "verify", "keys"):
            assert vmrs(name, path).code == 0
        assert sorted(item.name for item in tmp_path.iterdir()) == ["x.vmrs"]
    finally:
        tmp_path.chmod(0o700)


def test_an_output_folder_that_is_not_there(tmp_path: Path) -> None:
    answer = vmrs("screen", SAMPLE, "--out", tmp_path / "none" / "x.png")
    assert answer.code == 1
    assert "cannot write" in answer.err


def test_a_partial_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "x.png.partial"
    other.write_bytes(b"not ours")
    answer = vmrs("screen", SAMPLE, "--out", tmp_path / "x.png")
    assert answer.code == 1
    assert other.read_bytes() == b"not ours"


@pytest.mark.skipif(shutil.which("script") is None, reason="needs script(1)")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("info", "━"), ("chunks", "━"), ("screen", "▀"), ("verify", "Findings: none"),
     ("read --gpa 0x100700 --size 16", "|VMSAVEDSTATE SAM|")],
)  # fmt: skip
def test_on_a_terminal(arguments: str, expected: str) -> None:
    """Tables, colours, a hex dump instead of bytes: what a person at a terminal gets."""
    name, *rest = arguments.split()
    command = " ".join([sys.executable, "-m", "vmsavedstate", name, str(SAMPLE), *rest])
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    run = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        capture_output=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    text = run.stdout.decode()
    assert expected in text or (expected == "━" and "─" in text)
    if name in ("info", "screen"):
        assert "\x1b[" in text


def test_a_bug_shows_no_traceback_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vmsavedstate.cli import app

    def broken(*_: object) -> None:
        raise RuntimeError("oops\x1b[2J")

    monkeypatch.setattr(app, "_invoke", broken)
    assert app._run() == 1
    said = capsys.readouterr().err
    assert "this should not happen: RuntimeError" in said
    assert "\x1b" not in said
    monkeypatch.setenv("VMRS_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        app._run()


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from vmsavedstate.cli import app

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_invoke", interrupted)
    assert app._run() == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_fallback_gives_the_same(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs")
    for arguments in (
        ["verify", str(SAMPLE)],
        ["read", str(SAMPLE), "--gpa", "0x100000", "--size", "1MiB"],
        ["info", str(path)],
    ):
        assert vmrs(*arguments, VMSAVEDSTATE_CODEC="python").out == vmrs(*arguments).out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_only_regular_files_are_ever_replaced(tmp_path: Path, force: list[str]) -> None:
    """A device node named by --out must survive, also for root and with --force; a FIFO stands for it here."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = fifo.stat()
    answer = vmrs("screen", SAMPLE, "--out", fifo, *force)
    assert answer.code == 1
    assert "not a regular file" in answer.err
    assert fifo.stat() == before
    assert vmrs("screen", SAMPLE, "--out", tmp_path, *force).code == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX links")
def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    assert vmrs("screen", SAMPLE, "--out", link).code == 1
    assert vmrs("screen", SAMPLE, "--out", link, "--force").code == 0
    assert link.is_symlink()
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.name == "nt", reason="POSIX shells")
@pytest.mark.parametrize(("closed", "code"), [(">&-", 1), ("2>&- >/dev/null", 0), ("<&-", 0), (">&- 2>&-", 1)])
def test_closed_standard_streams(closed: str, code: int) -> None:
    """Whoever closed them: no traceback, and evidence never gets their descriptors."""
    line = f"{sys.executable} -m vmsavedstate info {SAMPLE} {closed}"
    run = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False)
    assert run.returncode == code
    assert b"Traceback" not in run.stderr
    assert b"should not" not in run.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_verify_tells_its_verdict_even_if_nobody_listens(tmp_path: Path) -> None:
    path = write_state(tmp_path / "x.vmrs", properties=0x0900)
    command = [sys.executable, "-m", "vmsavedstate", "verify", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 1


@pytest.mark.skipif(shutil.which("script") is None, reason="needs script(1)")
@pytest.mark.parametrize("columns", [20, 40, 60, 80])
def test_no_number_is_cropped_on_a_narrow_terminal(columns: int) -> None:
    command = f"{sys.executable} -m vmsavedstate chunks {SAMPLE}"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    run = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        capture_output=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    words = run.stdout.decode().split()
    assert {"0x100000", "0xffffff", "0xf00", "0xa0000"} <= set(words)


def test_the_companion_is_evidence_too(tmp_path: Path) -> None:
    from support.states import legacy_pair

    bin_path, vsv_path = legacy_pair(tmp_path)
    before = bin_path.read_bytes()
    for name, rest in (("keys", ["/savedstate/VmwpVersion"]), ("read", ["--gpa", "0", "--size", "1"])):
        answer = vmrs(name, vsv_path, *rest, "--out", bin_path, "--force")
        assert answer.code == 1
        assert "never overwritten" in answer.err
    assert bin_path.read_bytes() == before
    other = shutil.copyfile(SAMPLE, tmp_path / "other.vmrs")
    assert vmrs("screen", SAMPLE, "--out", other, "--force").code == 1
    assert other.read_bytes() == SAMPLE.read_bytes()


def test_a_dash_is_the_pipe(tmp_path: Path) -> None:
    read = ["read", str(SAMPLE), "--gpa", "0x100700", "--size", "25"]
    assert vmrs(*read, "--out", "-", cwd=tmp_path).out == b"VMSAVEDSTATE SAMPLE GUEST"
    assert vmrs("keys", SAMPLE, "/savedstate/VmVersion", "--out", "-", cwd=tmp_path).out == (0x0A00).to_bytes(
        8, "little"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_key_in_other_case_does_not_blame_the_file() -> None:
    answer = vmrs("keys", SAMPLE, "/SAVEDSTATE/vmversion")
    assert (answer.text, answer.err) == ("2560 (0xa00)\n", "")
