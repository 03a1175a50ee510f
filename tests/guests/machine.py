"""A QEMU process: its machine protocol, its human monitor, and just enough of gdb's protocol for registers."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pytest


class GdbRegister(NamedTuple):
    """A register as gdb's protocol numbers it."""

    number: int
    name: str
    bits: int


class Machine:
    """A running guest; a context manager that ends it. Its RAM is the file ``ram``."""

    def __init__(self, binary: str, arguments: Sequence[str | Path], *, machine: str, memory: int) -> None:
        if shutil.which(binary) is None:
            pytest.skip(f"{binary} is not here (Debian: qemu-system-x86, qemu-system-arm, seabios, ovmf)")
        self.folder = Path(tempfile.mkdtemp(prefix="guest-"))
        self.ram, self.serial = self.folder / "ram", self.folder / "serial"
        backend = f"memory-backend-file,id=guestram,size={memory},mem-path={self.ram},share=on"
        command: list[str | Path] = [binary, "-M", f"{machine},memory-backend=guestram", "-accel", "tcg"]
        command += ["-m", f"{memory >> 20}M", "-object", backend, "-nodefaults", "-no-reboot", "-display", "none"]
        command += ["-serial", f"file:{self.serial}"]
        for name in ("qmp", "gdb"):
            command += [f"-{name}", f"unix:{self.folder / name},server=on,wait=off"]
        quiet = subprocess.DEVNULL
        with open(self.folder / "errors", "wb") as errors:
            self._process = subprocess.Popen([*command, *arguments], stdin=quiet, stdout=errors, stderr=errors)
        try:
            self._qmp = self._dial("qmp").makefile("rw")
            self._qmp.readline()  # the greeting
            self.ask("qmp_capabilities")
        except BaseException:
            self._end()
            raise

    def _dial(self, name: str) -> socket.socket:
        for _ in range(600):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(300)
            try:
                link.connect(str(self.folder / name))
                return link
            except OSError:
                link.close()
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError(f"QEMU does not answer: {(self.folder / 'errors').read_text()}")

    @cached_property
    def gdb(self) -> Gdb:
        """QEMU's gdb stub; to connect stops the machine."""
        return Gdb(self._dial("gdb"))

    def ask(self, command: str, **arguments: object) -> Any:
        """One command of the machine protocol."""
        try:
            self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._qmp.flush()
        except OSError as error:
            raise RuntimeError(f"QEMU is gone: {(self.folder / 'errors').read_text()}") from error
        while line := self._qmp.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError(f"QEMU is gone: {(self.folder / 'errors').read_text()}")

    def monitor(self, line: str, cpu: int = 0) -> str:
        """One command of the human monitor."""
        text = self.ask("human-monitor-command", **{"command-line": line, "cpu-index": cpu})
        return str(text).replace("\r", "")

    def translate(self, gva: int, cpu: int = 0) -> int | None:
        """QEMU's own answer to a virtual address."""
        found = re.match(r"gpa: (?:0x)?([0-9a-f]+)", self.monitor(f"gva2gpa {gva:#x}", cpu))
        return int(found[1], 16) if found else None

    def wait_for(self, text: str | None, seconds: float) -> None:
        """Until the serial port has said ``text``; without one just so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if text is not None and self.serial.exists() and text.encode() in self.serial.read_bytes():
                time.sleep(0.5)
                return
            if self._process.poll() is not None:
                raise RuntimeError(f"QEMU ended early: {(self.folder / 'errors').read_text()}")
            time.sleep(0.1)
        if text is not None:
            raise RuntimeError(
                f"no {text!r} on the serial port within {seconds} s: {self.serial.read_bytes()[-500:]!r}"
            )

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()


class Gdb:
    """QEMU's gdb stub."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._received = b""
        self.registers = list(self._describe())

    def _send(self, command: str) -> str:
        raw = command.encode()
        self._link.sendall(b"$%s#%02x" % (raw, sum(raw) & 255))
        while (answer := self._packet()).startswith("T"):  # tells that the machine was stopped in the meantime
            pass
        return answer

    def _packet(self) -> str:
        while (packet := re.search(rb"\$([^#]*)#..", self._received)) is None:
            more = self._link.recv(65536)
            if not more:
                raise RuntimeError("the gdb stub closed")
            self._received += more
        self._received = self._received[packet.end() :]
        self._link.sendall(b"+")
        unrun = re.sub(rb"(.)\*(.)", lambda run: run[1] * (run[2][0] - 28), packet[1], flags=re.DOTALL)
        plain: bytes = re.sub(rb"\}(.)", lambda byte: bytes([byte[1][0] ^ 32]), unrun, flags=re.DOTALL)
        return plain.decode("latin-1")

    def _text(self, name: str) -> str:
        text = ""
        while True:
            answer = self._send(f"qXfer:features:read:{name}:{len(text):x},800")
            text += answer[1:]
            if answer[:1] != "m":
                return re.sub(r"(?s)<!--.*?-->", "", text)

    def _describe(self) -> Any:
        number = 0
        for part in re.findall(r'href="([^"]+)"', self._text("target.xml")):
            for entry in re.finditer(r"<reg ([^>]*)/>", self._text(part)):
                attributes = dict(re.findall(r'(\w+)="([^"]*)"', entry[1]))
                number = int(attributes.get("regnum", number))
                yield GdbRegister(number, attributes["name"], int(attributes["bitsize"]))
                number += 1

    def read(self, cpu: int, names: Collection[str] | None = None) -> dict[str, int]:
        """Registers of a processor by name: all that the stub gives, or some (newer ARM processors have a thousand)."""
        self._send(f"Hg{cpu + 1:x}")
        values = {}
        for register in self.registers:
            if names is not None and register.name not in names:
                continue
            answer = self._send(f"p{register.number:x}")
            if re.fullmatch(r"([0-9a-f]{2})+", answer):
                values[register.name] = int.from_bytes(bytes.fromhex(answer)[: register.bits // 8], "little")
        return values

    def write(self, name: str, value: int) -> None:
        """Set a register of the first processor."""
        register = next(item for item in self.registers if item.name == name)
        answer = self._send(f"P{register.number:x}={value.to_bytes(register.bits // 8, 'little').hex()}")
        assert answer == "OK", (name, answer)
