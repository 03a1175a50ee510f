"""Kernels and firmware from Debian's packages, unpacked into a cache; nothing is installed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ARCHITECTURES = ("amd64", "i386", "arm64")
CACHE = Path(os.environ.get("VMSAVEDSTATE_GUEST_CACHE", Path.home() / ".cache" / "vmsavedstate-guests"))


def package(architecture: str, name: str) -> Path:
    """The root of an unpacked package; a metapackage gives the kernel it depends on. Skips the test without apt."""
    target = CACHE / f"{name}-{architecture}"
    if target.is_dir():
        return target
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("the guests' kernels come from Debian's packages: apt-get and dpkg are not here")
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not target.is_dir():
            _fetch(name, architecture, target)
    return target


def _fetch(name: str, architecture: str, target: Path) -> None:
    options = _private_apt()
    real = _depends_on_kernel(f"{name}:{architecture}", options)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        subprocess.run(["apt-get", *options, "-qq", "download", real], cwd=work, timeout=600, check=True)
        (archive,) = Path(work).glob("*.deb")
        subprocess.run(["dpkg", "-x", archive, Path(work, "root")], timeout=300, check=True)
        os.replace(Path(work, "root"), target)


def _private_apt() -> list[str]:
    """Options for an apt of our own, which knows all architectures and changes nothing of the system's."""
    state = CACHE / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    settings = {"Dir::State": state, "Dir::State::Lists": state / "lists", "Dir::State::status": state / "status",
                "Dir::Cache": state, "APT::Sandbox::User": "root", "APT::Architecture": "amd64"}  # fmt: skip
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    for architecture in ARCHITECTURES:
        options += ["-o", f"APT::Architectures::={architecture}"]
    if not list((state / "lists").glob("*Packages*")):
        subprocess.run(["apt-get", *options, "-qq", "update"], timeout=300, stderr=subprocess.DEVNULL)
    return options


def _depends_on_kernel(name: str, options: list[str]) -> str:
    answer = subprocess.run(["apt-cache", *options, "depends", name], capture_output=True, text=True, timeout=120)
    kernel = re.search(r"Depends: (linux-image-\S+)", answer.stdout)
    if kernel is None or not name.startswith("linux-image"):
        return name
    return kernel[1] if ":" in kernel[1] else f"{kernel[1]}:{name.rpartition(':')[2]}"


def only(root: Path, pattern: str) -> Path:
    """The one file of a package that a pattern names."""
    found = sorted(root.glob(pattern))
    assert found, f"{root} has no {pattern}"
    return found[0]
