"""``vmrs chunks``: the map of guest physical memory, and on request that of the partition state."""

from __future__ import annotations

from itertools import accumulate

import click

from ..sizes import human_size
from ..state import SavedState
from .arguments import Evidence, json_option, opened, state_arguments
from .output import show_json, show_table


@click.command()
@state_arguments
@click.option(
    "--partition-state", is_flag=True, help="List the chunks of the partition state instead, unknown ones too."
)
@json_option
def command(evidence: Evidence, partition_state: bool, as_json: bool) -> None:
    """The map of the guest's physical memory: every run of pages the state holds."""
    with opened(evidence) as state:
        if partition_state:
            _show_partition_state(state, as_json)
        else:
            _show_memory(state, as_json)


def _show_memory(state: SavedState, as_json: bool) -> None:
    memory = state.memory
    if as_json:
        show_json("chunks", memory.to_dict())
        return
    chunks = memory.chunks
    raw = accumulate((item.size for item in chunks), initial=0)
    show_table(
        f"Guest physical memory: {human_size(memory.size)}, pages of {memory.page_size} bytes",
        ("Start", "End", "Size", "First page", "Pages", "Raw offset"),
        (
            (
                hex(item.start),
                hex(item.end - 1),
                human_size(item.size),
                hex(item.start_page),
                hex(item.page_count),
                hex(offset),
            )
            for item, offset in zip(chunks, raw, strict=False)
        ),
    )


def _show_partition_state(state: SavedState, as_json: bool) -> None:
    if as_json:
        show_json("partition-state", {"chunks": [item.to_dict() for item in state.chunks]})
        return
    show_table(
        "Chunks of the partition state",
        ("Offset", "Id", "Name", "VP", "VTL", "Bytes"),
        (
            (
                hex(item.offset),
                f"{item.id:#010x}",
                item.name,
                "-" if item.vp is None else item.vp,
                item.vtl,
                len(item.data),
            )
            for item in state.chunks
        ),
    )
