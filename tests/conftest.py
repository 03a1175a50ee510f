"""Fixtures that every test may use."""

from __future__ import annotations

import os
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
def sample_guest() -> Path:
    """The bundled saved state."""
    return EXAMPLES / "sample-guest.vmrs"


def pytest_report_header() -> list[str]:
    """Which codec serves, and whether the real states take part."""
    from vmsavedstate import codec

    return [f"codec: {codec.active().name}", f"real states: {os.environ.get(VARIABLE) or 'absent, their tests skip'}"]
