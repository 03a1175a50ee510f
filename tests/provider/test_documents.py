"""docs/provider.md names every function and type with a test that is there; docs/porting.md shows what comes out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmsavedstate import datatypes
from vmsavedstate.provider.library.signatures import FUNCTIONS, GENERATIONS

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTING = FENCE.findall((ROOT / "docs/porting.md").read_text())


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = (ROOT / "docs/provider.md").read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_function_has_a_row() -> None:
    listed = {(cells[0].strip("`"), cells[2]) for cells in rows("Functions")}
    names = {2018: "2018", 2021: "2021"}
    expected = {
        (item.name, "both" if item.generations == GENERATIONS else names[item.generations[0]]) for item in FUNCTIONS
    }
    assert listed == expected
    assert len({name for name, _ in listed}) == 43


def test_every_type_has_a_row() -> None:
    listed = {cells[2].strip("`").removeprefix("datatypes.") for cells in rows("Types")}
    ours = set(datatypes.__all__) - {"CEnum"}
    assert ours <= listed
    header = (ROOT / "src/vmsavedstate/provider/library/include/vmsavedstatedumpdefs.h").read_text()
    declared = set(re.findall(r"^typedef (?:enum|union|struct) _?(\w+)", header, re.MULTILINE))
    assert declared <= {cells[0].strip("`") for cells in rows("Types")}


@pytest.mark.parametrize("heading", ["Functions", "Types"])
def test_the_tests_that_are_named_exist(heading: str) -> None:
    for cells in rows(heading):
        path, name = cells[-1].strip("`").split("::")
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), cells


@pytest.fixture(scope="module")
def copied(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(prefix, tmp_path_factory.mktemp("porting") / "provider"))


def shell(command: str, copied: Path) -> str:
    """A command of the page, where ``provider`` is the library that was built for the tests."""
    line = re.sub(r"(?<![\w./])provider/", f"{copied}/", command)
    run = subprocess.run(["/bin/sh", "-c", line], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return run.stdout


def test_two_commands(copied: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not here")
    commands = PORTING[0][1].splitlines()
    assert commands[0] == "make library"
    assert len(commands) == 2
    answer = shell(commands[1].replace("make", "make -s"), copied)
    assert answer.startswith(PORTING[1][1])
    for text in [text for kind, text in PORTING if kind == "console"]:
        command, _, expected = text.removeprefix("$ ").partition("\n")
        assert shell(command, copied) == expected


def test_python_programs_of_the_page(copied: Path) -> None:
    pairs = [(text, PORTING[at + 1][1]) for at, (kind, text) in enumerate(PORTING) if kind == "python"]
    assert len(pairs) == 2
    for program, expected in pairs:
        text = program.replace('"provider/', f'"{copied}/')
        run = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True)
        assert (run.stdout, run.stderr) == (expected, "")
