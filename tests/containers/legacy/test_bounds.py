"""Bounds of the legacy container."""

from __future__ import annotations

from pathlib import Path

import vmsavedstate
from support.states import legacy_file


def test_legacy_names_are_bounded(tmp_path: Path) -> None:
    values: dict[str, tuple[int, bytes]] = {
        "/a" * 3000: (2, bytes(8)),
        "/deep" * 300: (2, bytes(8)),
        "/fine": (2, b"\7" + bytes(7)),
    }
    path = tmp_path / "x.vsv"
    path.write_bytes(legacy_file(values))
    with vmsavedstate.open_store(path) as store:
        depths = []
        for entry in store.walk():
            above, depth = entry.parent, 1
            while above is not None:
                above, depth = above.parent, depth + 1
            depths.append(depth)
        assert max(depths) == 256
        assert store["/fine"].value == 7
        assert any("absurdly long" in item.message for item in store.findings)
