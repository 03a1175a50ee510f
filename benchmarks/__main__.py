"""Runs the benchmarks and prints one line per limit; exit code 1 when one is missed."""

from __future__ import annotations

import importlib
import os
import platform
import sys

from vmsavedstate import __version__, codec

NAMES = ("info_large", "decode", "reads", "blocks", "translation", "provider")


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    serving, python = codec.active().name, platform.python_version()
    print(f"vmsavedstate {__version__}, codec {serving}, Python {python}, {os.cpu_count()} cores")
    missed = 0
    for name in names or NAMES:
        for result in importlib.import_module(f".{name}", __package__).run():
            print(result, flush=True)
            missed += not result.holds
    print(f"{missed} limits missed" if missed else "all limits hold")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
