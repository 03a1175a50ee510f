"""Fetches the real saved states: published test data of the Rust crate ``vmsavedstatedump_rs``, through cargo.

    python tools/fetch_samples.py FOLDER

Every file is checked by its SHA-256 before it takes its name. Point ``VMSAVEDSTATE_SAMPLES`` at the folder (``make test``
does so for ``.samples``), and the tests of real states take part. The data is under MIT or Apache-2.0, and is not part of
this project.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CRATE, VERSION = "vmsavedstatedump_rs", "0.2.0"
# name in the crate -> name here, SHA-256
FILES = {
    "tests/test_file.VMRS": ("no-os-252mib.vmrs", "c556c6b84e8992be00d29a5e131fccfb530ad5ee666b5d5ed31b5906e5e85936"),
    "tests/test_file.bin": ("no-os-252mib.bin", "5dc06f3f0d72bc01e80ab7f74732ee805053d7addb95b1605f756218bcf2f32c"),
    "tests/test_file.vsv": ("no-os-252mib.vsv", "ddca9935d7bec59dc37c015b716f779d676aff2d658bcf3dca25415582af78f6"),
}


def download(work: Path) -> Path:
    """The unpacked crate, as cargo's registry delivers it."""
    (work / "src").mkdir()
    (work / "src" / "lib.rs").write_text("")
    manifest = (
        f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n\n[dependencies]\n{CRATE} = "={VERSION}"\n'
    )
    (work / "Cargo.toml").write_text(manifest)
    vendor = ["cargo", "vendor", "--quiet", "--versioned-dirs", "vendor"]
    subprocess.run(vendor, cwd=work, check=True, stdout=subprocess.DEVNULL)
    return work / "vendor" / f"{CRATE}-{VERSION}"


def take(source: Path, target: Path, expected: str) -> None:
    """Copy one file if it is the right one."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != expected:
        raise SystemExit(f"{source.name} has the SHA-256 {digest}, expected {expected}: nothing is taken from it")
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(source, partial)
    os.replace(partial, target)
    print(f"{target}: {target.stat().st_size} bytes, SHA-256 {digest[:16]}...")


def main() -> None:
    """Fetch the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    if shutil.which("cargo") is None:
        raise SystemExit(
            "cargo is needed to fetch the real states (https://rustup.rs); the tests run without them, too"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        try:
            crate = download(Path(work))
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"cargo failed ({error}); is crates.io reachable?") from error
        for name, (target, digest) in FILES.items():
            take(crate / name, folder / target, digest)
    print(f"set VMSAVEDSTATE_SAMPLES={folder.resolve()} (make test does it for .samples)", file=sys.stderr)


if __name__ == "__main__":
    main()
