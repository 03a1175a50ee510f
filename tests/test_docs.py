"""Every command and every example of the documents, run: what they show is what comes out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "docs/cli.md", "docs/api.md", "docs/translation.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[tuple[str, str]]:
    return FENCE.findall((ROOT / name).read_text())


def commands() -> list[tuple[str, str]]:
    """(command, what it prints) of all console blocks."""
    found = []
    for name in DOCUMENTS:
        for kind, text in blocks(name):
            if kind == "console":
                for piece in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                    command, _, expected = piece.partition("\n")
                    found.append((command, expected))
    return found


def examples() -> list[tuple[str, str]]:
    """(program, what it prints) of all Python blocks; the plain block behind each is its output."""
    found = []
    for name in DOCUMENTS:
        parts = blocks(name)
        for (kind, program), (following, expected) in zip(parts, [*parts[1:], ("end", "")], strict=True):
            if kind == "python":
                assert following == "", f"{name}: a Python block without its output"
                found.append((program, expected))
    return found


@pytest.mark.parametrize(("command", "expected"), commands())
def test_command(command: str, expected: str) -> None:
    line = re.sub(r"\bvmrs\b(?= \w+ )", f"{sys.executable} -m vmsavedstate", command, count=1)
    run = subprocess.run(["/bin/sh", "-c", line], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.stdout == expected


@pytest.mark.parametrize(("program", "expected"), examples())
def test_example(program: str, expected: str) -> None:
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout == expected


def test_there_are_enough_of_both() -> None:
    assert len(commands()) >= 7
    assert len(examples()) >= 7


def test_links_lead_somewhere() -> None:
    more = ["docs/architecture.md", "docs/formats.md", "docs/provider.md", "docs/porting.md"]
    for name in [*DOCUMENTS, *more, "CONTRIBUTING.md", "examples/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
