"""``vmrs info``: what is in a saved state, on one page. Prints a :class:`~..summary.Summary`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..processor import GuestOs
from ..sizes import human_size
from ..summary import CpuSummary, ProcessorSummary, Summary
from .arguments import Evidence, json_option, opened, state_arguments
from .output import show_fields, show_findings, show_json, show_table

SHOWN_CHUNKS = 8
SHOWN_FINDINGS = 10
PAGING = {"non_paged": "off", "x86_32bit": "32 bit", "pae": "PAE"}  # the others show their levels


@click.command()
@state_arguments
@json_option
def command(evidence: Evidence, as_json: bool) -> None:
    """What is in a saved state: guest, processors, memory, screen, and whether anything is wrong with the file."""
    with opened(evidence, quiet=True) as state:
        summary = state.summary()
        if as_json:
            show_json("info", summary.to_dict())
            return
        show_fields("Saved state", _fields(summary))
        click.echo()
        _show_processors(summary)
        click.echo()
        _show_memory(summary)
        click.echo()
        show_findings(summary.findings, SHOWN_FINDINGS)
        click.echo("The content of memory is checked by `vmrs verify`.")


def _fields(summary: Summary) -> Iterator[tuple[str, object]]:
    for path in summary.files:
        yield "File", path
    version = summary.vm_version
    yield "Format", summary.format
    if version is not None:
        yield "VM version", f"{version >> 8}.{version & 0xFF} ({version:#06x})"
    if summary.saved_state_type is not None:
        yield "Type", summary.saved_state_type
    if summary.writer_version is not None:
        yield "Written by", f"worker process {summary.writer_version}"
    yield "CPU", _cpu(summary.cpu)
    for vtl, guest in summary.guest_os.items():
        yield ("Guest OS" if summary.enabled_vtls == (0,) else f"Guest OS, VTL {vtl}"), _guest_os(guest)
    if summary.nested:
        yield "Nested", "a processor carries state of nested virtualization, which is not interpreted"
    yield "Screen", _screen(summary)


def _guest_os(guest: GuestOs | None) -> str:
    return "not in this kind of file" if guest is None else str(guest)


def _cpu(cpu: CpuSummary) -> str:
    signature = f", signature {cpu.signature:#x}" if cpu.signature is not None else ""
    brand = f"{cpu.brand}, " if cpu.brand else ""
    return f"{brand}{cpu.cpuid_vendor or cpu.vendor}{signature}"


def _screen(summary: Summary) -> str:
    if summary.screen_error is not None:
        return f"cannot be shown: {summary.screen_error}"
    if summary.screen is None:
        return "none saved"
    return f"{summary.screen[0]} x {summary.screen[1]}, see `vmrs screen`"


def _show_processors(summary: Summary) -> None:
    processors = summary.processors
    if not processors:
        click.secho("Virtual processors: none", bold=True)
        click.echo(f"  {summary.no_processors}")
        return
    several = summary.enabled_vtls != (0,)
    sparse = any(item.index != item.id for item in processors)
    names = ["VP", *(["Index"] if sparse else []), "Arch", "Paging", "Mode", "IP", "Page table"]
    names += ["VTL"] if several else []
    rows = []
    for item in processors:
        row: list[object] = [item.id, *([item.index] if sparse else []), *_cells(item)]
        if several:
            row.append(f"{item.active_vtl} of {', '.join(map(str, item.enabled_vtls))}")
        rows.append(row)
    show_table(f"Virtual processors: {len(processors)}", names, rows)
    if not all(item.ip_was_saved for item in processors):
        click.echo(
            "  PC 0 with CPSR 0: the writer of this state probably did not save them, nor the exception level (EL)."
        )


def _cells(item: ProcessorSummary) -> Iterator[str]:
    """Cells of the table; a dash where the state lacks the register they come from."""
    yield item.architecture or "-"
    yield _paging(item)
    yield "-" if item.privilege_level is None else f"{'EL' if item.is_arm64 else 'ring '}{item.privilege_level}"
    yield _instruction_pointer(item)
    yield "-" if item.page_tables is None else ", ".join(map(hex, item.page_tables))


def _paging(item: ProcessorSummary) -> str:
    """The mode, with the levels where the mode does not imply them."""
    if item.paging_mode is None:
        return "-"
    return PAGING.get(item.paging_mode) or (
        f"{item.paging_mode}, {item.paging_levels} levels" if item.paging_levels is not None else "-"
    )


def _instruction_pointer(item: ProcessorSummary) -> str:
    """Where the processor is; with the selector and the linear address where the code segment has a base."""
    if item.ip is None:
        return "-"
    if item.linear_ip is None:
        return hex(item.ip)
    return f"{item.code_selector:04x}:{item.ip:04x} ({item.linear_ip:#x})"


def _show_memory(summary: Summary) -> None:
    chunks = summary.chunks
    show_table(
        f"Guest memory: {human_size(summary.memory_size)} in {len(chunks)} {'chunk' if len(chunks) == 1 else 'chunks'}",
        ("Start", "End", "Size"),
        ((hex(item.start), hex(item.end - 1), human_size(item.size)) for item in chunks[:SHOWN_CHUNKS]),
    )
    if len(chunks) > SHOWN_CHUNKS:
        click.echo(f"  and {len(chunks) - SHOWN_CHUNKS} more: see `vmrs chunks`")
    stored = summary.storage
    if "segments" in stored:
        count = stored["segments"]
        click.echo(f"  Stored as {count} segment{'s' * (count != 1)}; {human_size(stored['stored_bytes'])} in the file")
        return
    unreadable = f", {stored['unreadable']} that cannot be read" if stored["unreadable"] else ""
    click.echo(
        f"  Stored as {stored['blocks']} blocks of 1 MiB, {stored['compressed']} compressed, {stored['plain']} plain"
        f"{unreadable}; {human_size(stored['stored_bytes'])} in the file"
    )
