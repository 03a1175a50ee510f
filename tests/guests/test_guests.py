"""Real guests, frozen under QEMU: a saved state written from each must say what QEMU says.

``make test-all`` runs the kinds marked ``often``, ``make test-guests`` all of them. The closing lines of pytest tell how
many answers of QEMU were compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

import vmsavedstate
from provider.doors import CDoor, Failure
from support.library import built
from vmsavedstate import SavedState, provider
from vmsavedstate.provider.library.build import library_file

from .addresses import choose
from .capture import Frozen
from .compare import (
    Verdict,
    check_answers,
    check_listed,
    check_memory,
    check_registers,
    pattern_errors,
    translated,
    write_state,
)
from .kinds import KINDS, Kind, start, user_regions

pytestmark = [pytest.mark.slow, pytest.mark.guest]
Report = Callable[[str, object], None]
ANSWERS = 6000  # asked about each guest
THROUGH_C = ("long", "long-la57", "pae", "32bit", "arm64")

PARAMETERS = [pytest.param(kind, marks=() if kind.often else pytest.mark.rare_guest, id=kind.name) for kind in KINDS]


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_guest(kind: Kind, tmp_path: Path, record_property: Report) -> None:
    with start(kind, tmp_path) as machine:
        frozen = Frozen(machine, kind.processors, tmp_path)
        compress = kind.name in ("long", "pae", "uefi", "arm64", "xen")
        path = write_state(frozen, tmp_path / "guest.vmrs", compress=compress)
        with vmsavedstate.open(path, strict=True) as state:
            assert check_memory(state, frozen) == state.memory.size
            verdict = check_guest(kind, state, frozen)
            state.check_memory()
            assert state.findings == ()
            if kind.name == "uefi":
                check_images(path, state)
    record_property("qemu_answers", verdict.answers)
    record_property("qemu_listed", verdict.listed)
    record_property("qemu_denied", verdict.denied)
    record_property("guest", kind.name)
    assert verdict.wrong == ()
    assert verdict.mapped > 0
    assert verdict.mapped < verdict.answers or kind.form.startswith("none"), "both mapped and unmapped answers"
    library = built(tmp_path / "library") if kind.name in THROUGH_C else None
    if isinstance(library, Path):  # where it cannot be built, tests/provider says what is missing
        with vmsavedstate.open(path) as state:
            check_c_library(path, state, library)


def check_c_library(path: Path, state: SavedState, library: Path) -> None:
    """The C library says of every address and byte what Python says, which was compared with QEMU's answers before."""
    door = CDoor(2021, library / "lib" / library_file(2021))
    handle = door.load(path)
    chance = random.Random(path.name)
    for vp in state.processors:
        space = vp.address_space(ignore_pg=True)
        addresses = [run.gva + chance.randrange(run.size) for run in islice(space.mappings(), 3000)]
        addresses += [address ^ 1 << chance.randrange(12, 48) for address in addresses[:1000]]
        mapped = 0
        for address in addresses:
            found = translated(space, address)
            mapped += found is not None
            if found is not None:
                assert door.translate(handle, vp.id, address) == found
                continue
            with pytest.raises(Failure):
                door.translate(handle, vp.id, address)
        assert 0 < mapped < len(addresses)
    for offset in range(0, state.memory.size, 16 << 20):
        assert door.read_raw(handle, offset, 16 << 20) == state.memory.read_raw(offset, 16 << 20)
    door.call("ReleaseSavedStateFiles", handle)


def check_images(path: Path, state: SavedState) -> None:
    """What the provider finds in memory full of UEFI programs is what pefile, an independent reader, takes for images."""
    pefile = pytest.importorskip("pefile")
    vp, end = state.processors[0], 128 << 20
    expected: dict[int, tuple[int, int]] = {}
    for run in vp.mappings(0, end):
        for base in range(run.gva, run.gva + run.size, 4096):
            head = vp.read(base, 4096, fill=0)
            if not head.startswith(b"MZ"):
                continue
            try:
                image = pefile.PE(data=head, fast_load=True)
            except (pefile.PEFormatError, ValueError):
                continue
            expected[base] = (image.OPTIONAL_HEADER.SizeOfImage, image.FILE_HEADER.TimeDateStamp)
    found: list[provider.DosImage] = []
    handle = provider.LoadSavedStateFile(path)
    provider.ScanMemoryForDosImages(handle, 0, end, 0, found.append)
    provider.ReleaseSavedStateFiles(handle)
    assert {item.base: (item.size, item.timestamp) for item in found} == expected
    assert len(expected) > 50
    assert [item.base for item in found] == sorted(expected, reverse=True)


def check_guest(kind: Kind, state: SavedState, frozen: Frozen) -> Verdict:
    """Every processor of a guest; one verdict of all."""
    verdicts: list[Verdict] = []
    narrow = kind.name in ("pae", "32bit", "real", "protected", "seabios", "uboot32")
    for cpu, vp in enumerate(state.processors):
        assert check_registers(vp, frozen, cpu) > 40
        tlb = frozen.tlb(cpu) if vp.family == "x86" else []
        verdicts.append(check_listed(vp, tlb, mask=(1 << 52) - 1))
        values = [value for value in vp.registers.values() if isinstance(value, int) and value < 1 << 64]
        where = user_regions(kind)
        limit = ANSWERS // kind.processors
        addresses = choose(vp, tlb, values, where, limit=limit, narrow=narrow, seed=f"{kind.name} {cpu}")
        verdicts.append(check_answers(vp, list(frozen.answers(cpu, addresses))))
        if kind.linux is not None:
            verdicts.append(Verdict(0, 0, 0, 0, tuple(pattern_errors(vp, where, kind.linux[0]))))
    columns = list(zip(*verdicts, strict=True))
    wrong = tuple(text for column in columns[4] for text in column)
    return Verdict(sum(columns[0]), sum(columns[1]), sum(columns[2]), sum(columns[3]), wrong)
