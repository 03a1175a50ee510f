"""The public names: each there, documented, and loaded only when it is used."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vmsavedstate
from vmsavedstate import errors


@pytest.mark.parametrize("name", vmsavedstate.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(vmsavedstate, name)
    if name != "__version__":
        assert inspect.getdoc(value)
    for part, member in vars(value).items() if inspect.isclass(value) else ():
        if not part.startswith("_") and (callable(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"{name}.{part}"


def test_a_name_that_is_none() -> None:
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = vmsavedstate.nothing_here  # type: ignore[attr-defined]
    assert set(dir(vmsavedstate)) == set(vmsavedstate.__all__)
    assert not hasattr(vmsavedstate.datatypes, "Nothing")


def test_every_error_is_one_tree_with_an_hresult() -> None:
    for name, value in vars(errors).items():
        if inspect.isclass(value) and name.endswith("Error"):
            assert issubclass(value, vmsavedstate.VmSavedStateError)
            assert 0x80000000 <= value.hresult <= 0xFFFFFFFF
            assert getattr(vmsavedstate, name) is value


def test_an_error_tells_its_story_in_one_line() -> None:
    error = errors.CorruptFileError("it is broken", file="x.vmrs", offset=0x2000, remedy="try another copy")
    assert str(error) == "x.vmrs: at 0x2000: it is broken (try another copy)"
    assert str(errors.KeyNotFoundError("no key 'x'")) == "no key 'x'", "not quoted as KeyError does"


def test_every_module_says_what_it_is_for() -> None:
    folder = Path(vmsavedstate.__file__).parent
    for module in pkgutil.walk_packages([str(folder)], "vmsavedstate."):
        if module.name.endswith((".__main__", "._extension")):
            continue
        __import__(module.name)
        assert sys.modules[module.name].__doc__, module.name


@pytest.mark.parametrize("heavy", ["numpy", "rich", "ctypes.util", "asyncio", "concurrent.futures"])
def test_a_state_that_is_looked_at_imports_nothing_heavy(sample_guest: Path, heavy: str) -> None:
    program = (
        "import sys, vmsavedstate\n"
        f"with vmsavedstate.open({str(sample_guest)!r}) as state:\n"
        "    state.memory.read(0, 1), dict(state.processors[0].registers)\n"
        "    vp = state.processors[0]\n"
        "    vp.read(0xFFFFFFFF80100700, 4), [vp.translate(0xFFFFFFFF80100000 + n) for n in range(4096)]\n"
        f"assert {heavy!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_state_shows_itself(sample_guest: Path) -> None:
    with vmsavedstate.open(sample_guest) as state:
        assert "2 processors" in repr(state)
        assert "VirtualProcessor 0" in repr(state.processors[0])
        assert "GuestPhysicalMemory" in repr(state.memory)
        assert "registers" in repr(state.processors[0].registers).lower()
        assert "rip" in dir(state.processors[0].registers)
        assert state.store is not None
        assert "/savedstate" in repr(state.store["/savedstate"])


def test_the_evidence_is_closed_when_the_state_is_dropped(sample_guest: Path) -> None:
    import gc

    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    gc.collect()
    before = len(list(folder.iterdir()))
    for _ in range(5):
        vmsavedstate.open(sample_guest)
    gc.collect()
    assert len(list(folder.iterdir())) == before


def test_only_one_module_opens_evidence() -> None:
    """``opening`` opens evidence, ``new_file`` makes what is new, ``app`` opens the null device. Nobody maps a file.

    ``apply_log`` writes into a file on request: Microsoft's ApplyPendingSavedStateFileReplayLog does nothing else.
    ``log`` appends lines to a log of its own, ``sparing`` asks the kernel how large this process is.
    """
    folder = Path(vmsavedstate.__file__).parent
    opening = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "os.open", "io.open", "Path.open"):
                opening.add(path.relative_to(folder).as_posix())
            assert not (isinstance(node, ast.Import) and any(item.name == "mmap" for item in node.names)), path
    others = {
        "files/new_file.py",
        "cli/app.py",
        "containers/hvstorage/apply_log.py",
        "provider/library/log.py",
        "paging/sparing.py",
    }
    assert opening == {"files/opening.py", *others}
