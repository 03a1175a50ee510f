"""Makes the sample: builds the guest beside this file, boots it under QEMU, freezes it, and writes what it finds.

Needs gcc, binutils and qemu-system-x86_64 (Debian: gcc binutils qemu-system-x86). Writes ``sample-guest.vmrs``, and
``sample-guest.json`` with what QEMU itself says about the frozen machine, for the tests to compare with.

The guest is its own firmware, so nothing in its memory was written by anybody but this project: the sample has the
project's licence.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import vmsavedstate
from vmsavedstate import SavedStateWriter, Screen
from vmsavedstate.registers import parse_qemu_text

HERE = Path(__file__).parent
MEMORY = 16 << 20
RANGES = ((0x0, 0xA0000), (0x100000, MEMORY - 0x100000))  # between them: the frame buffer's window and the ROM
PROBES = (0x0, 0x1FFFFF, 0x200000, 0x400000, 0x400010, 0x401FF8, 0x402000, 0xFEE00000, 0xFFFFFFFF80000000,
          0xFFFFFFFF80100092, 0xFFFFFFFF80200000, 0x0000800000000000)  # fmt: skip
AMD = 0


def build(work: Path) -> Path:
    """Assemble the guest; the ROM image."""
    compile_ = ["gcc", "-c", "-O2", "-Wall", "-Wextra", "-ffreestanding", "-fno-pic", "-fno-stack-protector"]
    compile_ += ["-fno-asynchronous-unwind-tables", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-m64"]
    link = ["ld", "-z", "noexecstack", "--no-warn-rwx-segments"]
    guest = HERE / "guest"
    steps: list[list[str | Path]] = [
        [*compile_, "-o", work / "entry.o", guest / "entry.S"],
        [*compile_, "-o", work / "kernel.o", guest / "kernel.c"],
        [*link, "-T", guest / "kernel.ld", "-o", work / "kernel.elf", work / "entry.o", work / "kernel.o"],
        ["objcopy", "-O", "binary", work / "kernel.elf", work / "kernel.bin"],
        ["gcc", "-c", "-m32", f"-Wa,-I{work}", "-o", work / "boot.o", guest / "boot.S"],
        [*link, "-m", "elf_i386", "-T", guest / "rom.ld", "-o", work / "rom.elf", work / "boot.o"],
        ["objcopy", "-O", "binary", work / "rom.elf", work / "rom.bin"],
    ]
    for step in steps:
        subprocess.run(step, check=True)
    return work / "rom.bin"


class Machine:
    """A QEMU process and its monitor."""

    def __init__(self, rom: Path) -> None:
        self._process = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-vga", "std", "-bios", rom, "-m", f"{MEMORY >> 20}M", "-smp", "2",
             "-cpu", "max,la57=off", "-accel", "tcg", "-display", "none", "-qmp", "stdio"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._receive()  # the greeting
        self.ask("qmp_capabilities")

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("QEMU ended unexpectedly")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str, **arguments: object) -> Any:
        """One command of the machine protocol."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        while True:
            answer = self._receive()
            if "error" in answer:
                raise SystemExit(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def monitor(self, line: str, cpu: int | None = None) -> str:
        """One command of the human monitor."""
        chosen = {} if cpu is None else {"cpu-index": cpu}
        return str(self.ask("human-monitor-command", **{"command-line": line}, **chosen)).replace("\r", "")

    def __enter__(self) -> Machine:
        """The machine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End QEMU."""
        self._process.kill()
        self._process.wait()


def freeze(machine: Machine) -> None:
    """Wait until the guest has reached its end, and stop it there."""
    for _ in range(300):
        time.sleep(0.1)
        machine.ask("stop")
        if re.search(r"CPU#0.*HLT=1.*CPU#1.*CPL=3", machine.monitor("info registers -a"), re.DOTALL):
            return
        machine.ask("cont")
    raise SystemExit("the guest does not reach its end")


def read_memory(machine: Machine, work: Path) -> list[tuple[int, bytes]]:
    """(start, bytes) of each range of memory."""
    memory = []
    for start, size in RANGES:
        path = work / f"memory-{start:x}"
        machine.ask("pmemsave", val=start, size=size, filename=str(path))
        memory.append((start, path.read_bytes()))
    return memory


def read_screen(machine: Machine, work: Path) -> Screen:
    """The picture QEMU shows."""
    machine.ask("screendump", filename=str(work / "screen.ppm"))
    _, size, _, rgb = (work / "screen.ppm").read_bytes().split(b"\n", 3)
    width, height = map(int, size.split())
    return Screen(width, height, rgb)


def _slice(data: bytes, offset: int, size: int) -> bytes:
    return data[offset : offset + size]


def translations(machine: Machine) -> list[dict[str, Any]]:
    """QEMU's own answers to virtual addresses on both processors, None where they are not mapped."""
    answers = []
    for vp in (0, 1):
        for gva in PROBES:
            text = machine.monitor(f"gva2gpa {gva:#x}", cpu=vp)
            found = re.search(r"gpa: (\w+)", text)
            answers.append({"vp": vp, "gva": hex(gva), "gpa": hex(int(found[1], 0)) if found else None})
    return answers


def main() -> None:
    """Make the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=HERE / "sample-guest.vmrs", help="the .vmrs; the .json goes beside it"
    )
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        with Machine(build(work)) as machine:
            freeze(machine)
            text = machine.monitor("info registers -a")
            memory, screen, answers = read_memory(machine, work), read_screen(machine, work), translations(machine)
            version = machine.monitor("info version").strip()
    processors = [piece for piece in re.split(r"^CPU#\d+\s*$", text, flags=re.MULTILINE) if piece.strip()]
    with SavedStateWriter(out, vendor=AMD, compress=True, overwrite=True) as writer:
        for index, piece in enumerate(processors):
            writer.add_processor(index, parse_qemu_text(piece))
        for start, data in memory:
            writer.add_memory(start, len(data), partial(_slice, data))
        writer.set_screen(screen)
    raw = b"".join(data for _, data in memory)
    truth = {
        "qemu": version,
        "registers": processors,
        "chunks": [{"start": hex(start), "size": len(data)} for start, data in memory],
        "memory_sha256": hashlib.sha256(raw).hexdigest(),
        "screen_sha256": hashlib.sha256(screen.rgb).hexdigest(),
        "translations": answers,
    }
    out.with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n")
    with vmsavedstate.open(out, strict=True) as state:
        print(f"{out}: {out.stat().st_size} bytes, {state!r}")


if __name__ == "__main__":
    main()
