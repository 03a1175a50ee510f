"""The guests: what each needs from Debian, and how QEMU starts it."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .machine import Machine
from .packages import only, package
from .programs import READY, Region, boot_sector, initramfs, regions

MIB = 1 << 20
ATTEMPTS = 3
X86, ARM = "qemu-system-x86_64", "qemu-system-aarch64"


class Kind(NamedTuple):
    """A guest.

    Attributes:
        name: of the kind; ``form`` is the paging form it proves.
        cpu, machine, memory (bytes), processors: as QEMU takes them.
        linux: architecture and package of a Linux kernel to boot.
        firmware: architecture, package, file and option of a firmware or program to start instead.
        sector: of a boot sector of our own, whether it goes to protected mode.
        until: what the guest says on its serial port when it is to be frozen; None: after ``wait`` seconds.
        often: whether it is part of ``make test-all``.
    """

    name: str
    form: str
    binary: str = X86
    cpu: str = "max,la57=off"
    machine: str = "pc,smm=off"
    memory: int = 256 * MIB
    processors: int = 2
    linux: tuple[str, str] | None = None
    append: str = ""
    firmware: tuple[str, str, str, tuple[str, ...]] | None = None
    sector: bool | None = None
    until: str | None = READY
    wait: float = 75
    often: bool = False

    @property
    def five_levels(self) -> bool:
        """Whether the processor has five levels of page tables."""
        return "la57=on" in self.cpu


_AMD64, _ARM64 = ("amd64", "linux-image-cloud-amd64"), ("arm64", "linux-image-cloud-arm64")
_BIOS = ("-bios", "{file}", "-net", "none")

KINDS = (
    Kind("long", "long, 4 levels", linux=_AMD64, often=True),
    Kind("long-pti", "long, 4 levels, page-table isolation", cpu="max,la57=off,vendor=GenuineIntel", linux=_AMD64,
         append="pti=on"),
    Kind("long-la57", "long, 5 levels", cpu="max,la57=on", linux=_AMD64, often=True),
    Kind("long-high", "long, memory above 4 GiB", memory=4608 * MIB, processors=4, linux=_AMD64),
    Kind("pae", "PAE", cpu="qemu32,+pae,+nx", linux=("i386", "linux-image-686-pae"), often=True),
    Kind("32bit", "32 bit, 2 levels", cpu="qemu32", linux=("i386", "linux-image-686"), often=True),
    Kind("arm64", "ARM64, 4 KiB", ARM, cpu="cortex-a57", machine="virt", linux=_ARM64, often=True),
    Kind("real", "none, real mode", cpu="max", memory=64 * MIB, processors=1, sector=False, often=True),
    Kind("protected", "none, protected mode", cpu="max", memory=64 * MIB, processors=1, sector=True, often=True),
    Kind("seabios", "none, firmware", cpu="max", memory=64 * MIB, until=None, wait=4),
    Kind("uefi", "long, UEFI shell", machine="q35,smm=off", memory=128 * MIB, until="Shell>", wait=90, often=True,
         firmware=("amd64", "ovmf", "usr/share/OVMF/OVMF_CODE_4M.fd",
                   ("-drive", "if=pflash,format=raw,readonly=on,file={file}", "-net", "none"))),
    Kind("memtest64", "long, large pages", memory=128 * MIB, until=None, wait=10,
         firmware=("amd64", "memtest86+", "boot/memtest86+x64.bin", ("-kernel", "{file}"))),
    Kind("memtest32", "long, 32-bit code", memory=128 * MIB, until=None, wait=10,
         firmware=("amd64", "memtest86+", "boot/memtest86+ia32.bin", ("-kernel", "{file}"))),
    Kind("uboot32", "none, U-Boot", cpu="max", memory=128 * MIB, processors=1, until="=> ", wait=60,
         firmware=("amd64", "u-boot-qemu", "usr/lib/u-boot/qemu-x86/u-boot.rom", _BIOS)),
    Kind("uboot64", "long, U-Boot", cpu="max", memory=128 * MIB, processors=1, until="=> ", wait=60,
         firmware=("amd64", "u-boot-qemu", "usr/lib/u-boot/qemu-x86_64/u-boot.rom", _BIOS)),
    Kind("uboot-arm64", "ARM64, U-Boot", ARM, cpu="cortex-a57", machine="virt", memory=128 * MIB, processors=1,
         until="=> ", wait=60, firmware=("amd64", "u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin", _BIOS)),
    Kind("xen", "long, Xen with Linux", cpu="qemu64,+nx,+smep", memory=512 * MIB, linux=("amd64", "linux-image-amd64"),
         wait=240,
         append="dom0_mem=256M com1=115200,8n1 console=com1",
         firmware=("amd64", "xen-hypervisor-4.17-amd64", "boot/xen-4.17-amd64.gz", ())),
)  # fmt: skip


def start(kind: Kind, work: Path) -> Machine:
    """The machine of a kind, running up to the point where it is to be frozen; stopped there. ``work`` takes its files.

    A boot that hangs is tried again: Linux under emulation does so at times while its clocks are calibrated.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _start_once(kind, work)
        except RuntimeError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def _start_once(kind: Kind, work: Path) -> Machine:
    arguments: list[str | Path] = ["-cpu", kind.cpu, "-smp", str(kind.processors), "-seed", "1"]
    arguments += ["-device", "VGA" if kind.binary == X86 else "virtio-rng-pci"]
    arguments += _software(kind, work)
    machine = Machine(kind.binary, arguments, machine=kind.machine, memory=kind.memory)
    try:
        machine.wait_for(kind.until, kind.wait)
        machine.ask("stop")
    except BaseException as error:
        machine.__exit__(type(error), error, None)
        raise
    return machine


def user_regions(kind: Kind) -> list[Region]:
    """The memory that the pattern processes of a kind fill; none for guests without Linux."""
    return [] if kind.linux is None else regions(kind.linux[0], five_levels=kind.five_levels)


def _software(kind: Kind, work: Path) -> Sequence[str | Path]:
    if kind.sector is not None:
        (work / "disk").write_bytes(boot_sector(protected=kind.sector))
        return ["-drive", f"file={work / 'disk'},format=raw,if=ide"]
    if kind.linux is not None:
        return _linux(kind, work)
    if kind.firmware is None:
        return []
    architecture, name, file, options = kind.firmware
    path = only(package(architecture, name), file)
    return [option.format(file=path) for option in options]


def _linux(kind: Kind, work: Path) -> Sequence[str | Path]:
    assert kind.linux is not None
    architecture, name = kind.linux
    root = package(architecture, name)
    kernel = only(root, "boot/vmlinuz-*")
    xen = kind.firmware is not None
    modules = [] if xen else sorted(root.glob("lib/modules/*/kernel/drivers/firmware/qemu_fw_cfg.ko"))
    busybox = only(package(architecture, "busybox-static"), "bin/busybox")
    disk = work / "initramfs"
    disk.write_bytes(
        initramfs(architecture, busybox, modules[0] if modules else None, kind.processors, user_regions(kind))
    )
    console = "ttyAMA0" if architecture == "arm64" else "hvc0" if xen else "ttyS0"
    line = f"console={console} panic=-1 quiet"
    if not xen:
        return ["-device", "vmcoreinfo", "-kernel", kernel, "-initrd", disk, "-append", f"{line} {kind.append}".strip()]
    assert kind.firmware is not None
    hypervisor = work / "xen"
    hypervisor.write_bytes(gzip.decompress(only(package(*kind.firmware[:2]), kind.firmware[2]).read_bytes()))
    return ["-kernel", hypervisor, "-append", kind.append, "-initrd", f"{kernel} {line},{disk}"]
