"""The C library is built once a session; where it cannot be, its tests skip and say what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provider.doors import CDoor, Door, PythonDoor
from support.library import built
from support.samples import Samples
from vmsavedstate.errors import LibraryBuildError
from vmsavedstate.provider.library.build import library_file

STATES = [
    pytest.param(["sample"], id="sample"),
    pytest.param(["no-os-252mib.vmrs"], id="real-vmrs", marks=pytest.mark.real),
    pytest.param(["no-os-252mib.bin", "no-os-252mib.vsv"], id="real-pair", marks=pytest.mark.real),
    pytest.param(["guest-uboot64.vmrs"], id="real-guest", marks=pytest.mark.real),
]


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library, its headers and examples are."""
    made = built(tmp_path_factory.mktemp("library"))
    if isinstance(made, LibraryBuildError):
        pytest.skip(f"the C library cannot be built here: {made}")
    return made


@pytest.fixture
def libraries(prefix: Path) -> dict[int, CDoor]:
    """The C libraries by generation."""
    return {generation: CDoor(generation, prefix / "lib" / library_file(generation)) for generation in (2018, 2021)}


@pytest.fixture(params=["python-2018", "python-2021", "c-2018", "c-2021"])
def door(request: pytest.FixtureRequest) -> Door:
    """Each way to call each generation."""
    return make_door(request)


@pytest.fixture(params=["python-2021", "c-2021"])
def door_2021(request: pytest.FixtureRequest) -> Door:
    """Each way to call the later generation."""
    return make_door(request)


@pytest.fixture(params=["python-2018", "c-2018"])
def door_2018(request: pytest.FixtureRequest) -> Door:
    """Each way to call the first generation."""
    return make_door(request)


def make_door(request: pytest.FixtureRequest) -> Door:
    kind, _, generation = request.param.partition("-")
    if kind == "python":
        return PythonDoor(int(generation))
    prefix: Path = request.getfixturevalue("prefix")
    return CDoor(int(generation), prefix / "lib" / library_file(int(generation)))


@pytest.fixture
def guest(door: Door, sample_guest: Path) -> Iterator[int]:
    """The bundled sample, loaded."""
    handle = door.load(sample_guest)
    yield handle
    door.call("ReleaseSavedStateFiles", handle)


@pytest.fixture(params=STATES)
def paths(request: pytest.FixtureRequest, sample_guest: Path, samples: Samples) -> list[Path]:
    """The files of each state that client programs read."""
    return [sample_guest if name == "sample" else samples(name) for name in request.param]
