"""Every command and every example of the documents, run: what they show is what comes out."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "docs/cli.md", "docs/api.md", "docs/translation.md", "docs/findings.md"]
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


PAGES = [*(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")), "README.md", "CONTRIBUTING.md",
         "examples/README.md"]  # fmt: skip
SPECIFICATIONS = {
    "format": ROOT / "docs/spec/saved-state-format.md",
    "API": ROOT / "docs/spec/dump-provider-api.md",
}
NUMBER = r"\d+(?:\.\d+)?"
LIST = rf"{NUMBER}(?:(?:, and |, | and | to ){NUMBER})*"
CITATION = re.compile(rf"\b(format|API) specification(?:,)? (?:section(?:s)? )?({LIST})?")
PATH_CITATION = re.compile(rf"docs/spec/([\w-]+\.md), (?:section(?:s)? )?({LIST})")


def test_links_lead_somewhere() -> None:
    for name in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def headings(path: Path) -> set[str]:
    return set(re.findall(rf"^#+ ({NUMBER})\b", path.read_text(), re.MULTILINE))


def test_every_heading_of_a_specification_begins_with_its_number() -> None:
    for path in SPECIFICATIONS.values():
        title, *rest = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        assert title and all(re.match(rf"{NUMBER}\.? ", text) for text in rest)


def sources() -> list[Path]:
    roots = ("src", "tests", "docs", "rust/src", "rust/codec/src", "benchmarks", "examples")
    kinds = {".py", ".md", ".rs", ".c", ".h"}
    found = [path for root in roots for path in (ROOT / root).rglob("*") if path.suffix in kinds]
    return [path for path in found if path != Path(__file__)]


def test_every_citation_of_a_specification_resolves() -> None:
    known = {name: headings(path) for name, path in SPECIFICATIONS.items()}
    count = 0
    for path in sources():
        text = re.sub(r"\n\s*(?://!|#|\*)?\s*", " ", path.read_text())  # a citation may go over the end of a line
        for name, numbers in CITATION.findall(text):
            assert numbers or path.suffix == ".md", f"{path}: {name} specification, without a section"
            for number in re.findall(NUMBER, numbers):
                count += 1
                assert number in known[name], f"{path}: {name} specification, {number}"
        for name, numbers in PATH_CITATION.findall(text):
            for number in re.findall(NUMBER, numbers):
                assert number in headings(ROOT / "docs/spec" / name), f"{path}: {name}, {number}"
    assert count > 70


def test_documents_stand_alone() -> None:
    for path in sources():
        if path.suffix == ".md":
            assert "../shared" not in path.read_text(), path


RECORDING = {  # how FindingLog and what wraps it are called: severity, and what strict mode does
    "note": ("note", "accepted"),
    "refusable": ("note", "refused"),
    "damage": ("damage", "refused"),
    "loss": ("damage", "on reading"),
}


def recorded_codes() -> set[tuple[str, str, str]]:
    """(code, severity, strict) of every call in the sources that records a finding; each must name its code."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            code: ast.expr | None = None
            if isinstance(node.func, ast.Attribute) and node.func.attr in RECORDING and len(node.args) >= 3:
                code, (severity, strict) = node.args[0], RECORDING[node.func.attr]
            elif isinstance(node.func, ast.Name) and node.func.id == "Finding" and path.name != "findings.py":
                code = next(item.value for item in node.keywords if item.arg == "code")
                severity = ast.unparse(node.args[0]).rpartition(".")[2].lower()
                strict = {"note": "accepted", "damage": "on reading"}[severity]
            if code is None or (isinstance(code, ast.Name) and path.name == "state_chunks.py"):  # it passes them on
                continue
            assert isinstance(code, ast.Constant), f"{path}:{node.lineno}: a finding whose code stands elsewhere"
            found.add((str(code.value), severity, strict))
    return found


def documented_codes() -> list[tuple[str, str, str]]:
    rows = re.findall(
        r"^\| `([^`]+)` \| (\w+) \| ([\w ]+) \| .+\. \|$", (ROOT / "docs/findings.md").read_text(), re.MULTILINE
    )
    assert len(rows) == (ROOT / "docs/findings.md").read_text().count("| `")
    return rows


def test_every_finding_code_has_its_row_and_every_row_its_code() -> None:
    documented, recorded = documented_codes(), recorded_codes()
    assert set(documented) == recorded
    codes = [code for code, _, _ in documented]
    assert len(codes) == len(set(codes)) > 90
    assert all(re.fullmatch(r"[a-z0-9.-]+", code) for code in codes)


def test_no_code_searches_in_the_texts_of_messages() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            searched: list[ast.expr] = []
            if isinstance(node, ast.Compare) and any(isinstance(item, (ast.In, ast.NotIn)) for item in node.ops):
                searched = node.comparators
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                searched = [node.func.value] if node.func.attr in ("startswith", "endswith", "find", "index") else []
            for item in searched:
                assert not (isinstance(item, ast.Attribute) and item.attr == "message"), f"{path}:{item.lineno}"
                assert ast.unparse(item) != "str(error)", f"{path}:{item.lineno}"


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    packages = [path.parent for path in (ROOT / "src/vmsavedstate").rglob("__init__.py")]
    for folder in packages:
        if folder.parent == ROOT / "src/vmsavedstate":
            assert f"| `{folder.name}/` |" in text, folder.name
        module = ast.parse((folder / "__init__.py").read_text())
        assert len(ast.get_docstring(module) or "") > 40, folder
    assert len(packages) > 15
