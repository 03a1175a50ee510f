"""C programs that use the library as people do, on real states; what they read must be what Python reads, byte for byte."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import vmsavedstate
from provider.test_build import COMPILERS, GENERATIONS, SDK, run
from support.samples import Samples
from vmsavedstate import SavedState, SegmentRegister, TableRegister
from vmsavedstate.provider.library import build as builder

CLIENTS = Path(__file__).parent / "clients"
Program = Callable[..., Path]
GENERAL = "Rax Rcx Rdx Rbx Rsp Rbp Rsi Rdi R8 R9 R10 R11 R12 R13 R14 R15 Rip RFlags"
CONTROL = "Cr0 Cr2 Cr3 Cr4 Cr8 Efer Dr0 Dr1 Dr2 Dr3 Dr6 Dr7"
NOTHING: Mapping[str, str] = MappingProxyType({})


@pytest.fixture(scope="session")
def program(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Compiles a program against a generation, once."""
    folder = tmp_path_factory.mktemp("programs")
    known: dict[object, Path] = {}

    def compiled(
        source: Path, generation: int, compiler: str = COMPILERS[0], *flags: str, library: Path = prefix
    ) -> Path:
        key = (source, generation, compiler, flags, library)
        if key not in known:
            known[key] = folder / f"{source.stem}-{len(known)}"
            command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-DVMSAVEDSTATE_SDK={SDK[generation]}",
                       *flags, f"-I{library}/include", str(source), "-o", str(known[key]), f"-L{library}/lib",
                       f"-Wl,-rpath,{library}/lib", f"-l{builder.library_name(generation)}"]  # fmt: skip
            run(*command)
        return known[key]

    return compiled


def digest(state: SavedState) -> str:
    """Of the raw stream, which is also all chunks one after another."""
    sha = hashlib.sha256()
    for offset in range(0, state.memory.size, 1 << 20):
        sha.update(state.memory.read_raw(offset, 1 << 20))
    return sha.hexdigest()


def spent_digest(path: Path) -> str:
    """Of a memory a program wrote; the file goes, because a hundred of them would fill a disk."""
    with open(path, "rb") as stream:
        path.unlink()
        sha = hashlib.sha256()
        while piece := stream.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest()


@pytest.mark.parametrize("flags", [(), ("-DVMSAVEDSTATE_UTF16",)], ids=["wchar_t", "utf-16"])
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_patterns_of_known_clients(
    program: Program, paths: list[Path], tmp_path: Path, generation: int, compiler: str, flags: tuple[str, ...]
) -> None:
    client = program(CLIENTS / "patterns.c", generation, compiler, *flags)
    check_patterns(client, paths, tmp_path)


def check_patterns(client: Path, paths: list[Path], folder: Path, options: Mapping[str, str] = NOTHING) -> None:
    """Run it, and compare everything it read with Python's answers."""
    physical, raw = folder / "physical", folder / "raw"
    lines = run(client, physical, raw, *paths, environment=options).splitlines()
    with vmsavedstate.open(*paths) as state:
        assert {spent_digest(physical), spent_digest(raw)} == {digest(state)}
        first = state.memory.chunks[0].start
        assert lines.pop() == state.memory.read(first + 4091, 12).hex()
        for line, vp in zip(lines, state.processors, strict=True):
            values = (vp.id, int(vp.architecture), vp.registers.cr3, vp.registers.rip)
            assert line == "{:d} {:d} {:x} {:x}".format(*values)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_raw_memory_to_a_file(program: Program, paths: list[Path], tmp_path: Path, generation: int) -> None:
    client, out = program(builder.EXAMPLES / "rawmemory.c", generation), tmp_path / "memory.raw"
    assert run(client, *paths, out) == ""
    again = subprocess.run([client, *paths, out], capture_output=True)
    assert again.returncode == 1, "a file that exists is not overwritten"
    with vmsavedstate.open(*paths) as state:
        assert spent_digest(out) == digest(state)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_dump_of_everything(program: Program, paths: list[Path], generation: int, compiler: str) -> None:
    lines = run(program(builder.EXAMPLES / "dumpstate.c", generation, compiler), *paths).splitlines()
    with vmsavedstate.open(*paths) as state:
        assert lines == list(expected_dump(state, generation))


def expected_dump(state: SavedState, generation: int) -> list[str]:
    """What the program must print, from the Python API alone."""
    paging = {2: "32 bit", 3: "PAE", 4: "long"}
    lines = []
    for vp in state.processors:
        mode = paging[vp.address_space(ignore_pg=True).paging_mode]
        arch = {1: "x86", 2: "x64"}[vp.architecture]
        lines.append(f"VP {vp.id}: {arch}, paging {mode}, in {'kernel' if vp.cpl == 0 else 'user'} space")
        lines += registers_2021(vp) if generation == 2021 else registers_2018(vp)
    lines += [f"Memory {chunk.start:#x}, {chunk.page_count} pages of 4096" for chunk in state.memory.chunks]
    lines.append(f"Raw size {state.memory.size}")
    if generation == 2021:
        lines += ["Virtual trust levels 0x1", f"Guest OS id {state.guest_os().raw:#x}"]
    return lines


def registers_2021(vp: vmsavedstate.VirtualProcessor) -> list[str]:
    wide = [*(f"Xmm{n}" for n in range(16)), *(f"FpMmx{n}" for n in range(8))]
    names = f"{GENERAL} {CONTROL} Es Cs Ss Ds Fs Gs Ldtr Tr Idtr Gdtr {' '.join(wide)}"
    lines = []
    for name in names.split():
        value = vp.registers[name.lower()]
        if isinstance(value, SegmentRegister):
            text = f"{value.selector:#x} base {value.base:#x} limit {value.limit:#x} attributes {value.attributes:#x}"
        elif isinstance(value, TableRegister):
            text = f"base {value.base:#x} limit {value.limit:#x}"
        else:
            assert isinstance(value, int)
            text = f"0x{value:032x}" if name in wide else f"0x{value:x}"
        lines.append(f"  {name:8} {text}")
    fpu = vp.registers.fpu
    control = struct.pack("<HHBBHQ", fpu.control, fpu.status, fpu.tag, 0, fpu.opcode, fpu.ip)
    state = struct.pack("<QII", fpu.dp, fpu.mxcsr, fpu.mxcsr_mask)
    lines += [f"  {name:8} 0x{data[::-1].hex()}" for name, data in (("FpState", control), ("XmmState", state))]
    return lines


def registers_2018(vp: vmsavedstate.VirtualProcessor) -> list[str]:
    r = vp.registers
    rows = [(name, r.integer(name.lower())) for name in GENERAL.split()]
    low = (1 << 64) - 1
    for n in range(16):
        value = r.integer(f"xmm{n}")
        rows += [(f"#{18 + 2 * n}", value & low), (f"#{19 + 2 * n}", value >> 64)]
    fpu = r.fpu
    rows += [("#50", fpu.dp), ("#51", fpu.mxcsr | fpu.mxcsr_mask << 32)]
    rows += [("#52", fpu.control | fpu.status << 16 | fpu.tag << 32 | fpu.opcode << 48), ("#53", fpu.ip)]
    rows += [(name, r.integer(name.lower())) for name in CONTROL.split()]
    rows += [("GsBase", r.gs.base), ("FsBase", r.fs.base)]
    segments = ["Cs", "Ds", "Es", "Fs", "Gs", "Ss", "Tr", "Ldtr"]
    rows += [(name, getattr(r, name.lower()).selector) for name in segments]
    rows += [
        ("IdtrBase", r.idtr.base),
        ("IdtrLimit", r.idtr.limit),
        ("GdtrBase", r.gdtr.base),
        ("GdtrLimit", r.gdtr.limit),
    ]
    return [f"  {name:9} {value:#x}" for name, value in rows]


@pytest.mark.real
def test_dump_of_an_arm64_guest(program: Program, samples: Samples) -> None:
    lines = run(program(builder.EXAMPLES / "dumpstate.c", 2021), samples("guest-uboot-arm64.vmrs")).splitlines()
    with vmsavedstate.open(samples("guest-uboot-arm64.vmrs")) as state:
        r = state.processors[0].registers
        assert lines[0].startswith("VP 0: armv8, paging armv8")
        assert f"  Ttbr0El1 {r.ttbr0_el1:#x}" in lines
        assert [f"  X{n:<7} {r.integer(f'x{n}'):#x}" in lines for n in range(29)] == [True] * 29


def test_programs_that_fail_say_so(program: Program, tmp_path: Path) -> None:
    for name in ("dumpstate", "rawmemory"):
        out = [tmp_path / "out"] if name == "rawmemory" else []
        done = subprocess.run(
            [program(builder.EXAMPLES / f"{name}.c", 2021), "/nowhere", *out], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "0x80070002" in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("seed", [pytest.param(1, id="short"), pytest.param(7, id="long", marks=pytest.mark.slow)])
def test_random_calls(program: Program, sample_guest: Path, tmp_path: Path, generation: int, seed: int) -> None:
    """A bounded time of calls from three threads with wrong and right arguments finds nothing."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(bytes(range(256)) * 40)
    seconds = 2 if seed == 1 else 20
    fuzzer = program(CLIENTS / "fuzz.c", generation)
    answer = run(fuzzer, str(seconds), str(seed), sample_guest, garbage, tmp_path, tmp_path / "missing")
    assert int(answer.split()[0]) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("generation", GENERATIONS)
def test_under_address_sanitizer(
    program: Program, sample_guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    """The library and the programs, instrumented; what Python itself allocates once and keeps is no leak of ours."""
    flags = "-fsanitize=address,undefined"
    monkeypatch.setenv("CFLAGS", f"{flags} -g")
    monkeypatch.setenv("LDFLAGS", flags)
    library = tmp_path / "instrumented"
    builder.build(library)
    monkeypatch.undo()
    options = {"ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1", "UBSAN_OPTIONS": "halt_on_error=1"}
    client = program(CLIENTS / "patterns.c", generation, COMPILERS[0], *flags.split(), library=library)
    check_patterns(client, [sample_guest], tmp_path, options)
    fuzzer = program(CLIENTS / "fuzz.c", generation, COMPILERS[0], *flags.split(), library=library)
    assert int(run(fuzzer, "10", "3", sample_guest, tmp_path, environment=options).split()[0]) > 1000
