"""Runs ``vmrs`` as a user does: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a command said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def vmrs(*arguments: str | bytes | Path, cwd: Path | None = None, **environment: str) -> Answer:
    """Run the command; no traceback may ever show."""
    run = subprocess.run(
        [sys.executable, "-m", "vmsavedstate", *arguments],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
    )
    answer = Answer(run.returncode, run.stdout, run.stderr.decode(errors="backslashreplace"))
    assert "Traceback" not in answer.err, answer.err
    assert "should not happen" not in answer.err, answer.err
    return answer
