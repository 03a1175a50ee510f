"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.samples import VARIABLE, Samples

EXAMPLES = Path(__file__).parent.parent / "examples"

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The real saved states."""
    return Samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Small inputs on which the product was wrong; they lie beside the samples."""
    return Samples(tmp_path_factory.mktemp("reports"), "../reports")


@pytest.fixture(scope="session")
def sample_guest() -> Path:
    """The bundled saved state."""
    return EXAMPLES / "sample-guest.vmrs"


def pytest_report_header() -> list[str]:
    """Which codec serves, and whether the real states take part."""
    from vmsavedstate import codec

    return [f"codec: {codec.active().name}", f"real states: {os.environ.get(VARIABLE) or 'absent, their tests skip'}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many answers of QEMU were compared, over how many guests."""
    totals: Counter[str] = Counter()
    guests: set[object] = set()
    for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())):
        for name, value in getattr(report, "user_properties", ()):
            if name == "guest":
                guests.add(value)
            elif name.startswith("qemu_"):
                totals[name] += value
    if totals:
        terminalreporter.write_line(
            f"QEMU's answers compared: {totals['qemu_answers']:,} to single addresses (of these {totals['qemu_denied']:,} "
            f"unmapped by rights alone), {totals['qemu_listed']:,} pages of its lists; {len(guests)} kinds of guest, "
            f"{totals['qemu_tables']:,} random sets of tables"
        )
