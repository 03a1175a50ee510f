"""``vmrs info``: what is in a saved state, on one page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ..datatypes import PagingMode
from ..errors import RegisterNotAvailableError, ScreenError
from ..processor import VirtualProcessor
from ..registers.values import SegmentRegister
from ..state import SavedState
from .arguments import Evidence, json_option, opened, state_arguments
from .output import findings_json, human_size, show_fields, show_findings, show_json, show_table

SHOWN_CHUNKS = 8
SHOWN_FINDINGS = 10
LONG_CODE = 0x2000  # bit 13 of the attributes


@click.command()
@state_arguments
@json_option
def command(evidence: Evidence, as_json: bool) -> None:
    """What is in a saved state: guest, processors, memory, screen, and whether anything is wrong with the file."""
    with opened(evidence, quiet=True) as state:
        if as_json:
            show_json("info", _as_json(state))
            return
        show_fields("Saved state", _fields(state))
        click.echo()
        _show_processors(state)
        click.echo()
        _show_memory(state)
        click.echo()
        show_findings(state.findings, SHOWN_FINDINGS)
        click.echo("The content of memory is checked by `vmrs verify`.")


def _fields(state: SavedState) -> Iterator[tuple[str, object]]:
    for path in state.files:
        yield "File", path
    version = state.vm_version
    yield "Format", state.format
    if version is not None:
        yield "VM version", f"{version >> 8}.{version & 0xFF} ({version:#06x})"
    if state.saved_state_type is not None:
        yield "Type", state.saved_state_type
    if state.writer_version is not None:
        yield "Written by", f"worker process {state.writer_version}"
    yield "CPU", _cpu(state)
    for vtl in state.enabled_vtls:
        yield ("Guest OS" if state.enabled_vtls == (0,) else f"Guest OS, VTL {vtl}"), _guest_os_text(state, vtl)
    if state.nested:
        yield "Nested", "a processor carries state of nested virtualization, which is not interpreted"
    yield "Screen", _screen_text(state)


def _guest_os_text(state: SavedState, vtl: int) -> str:
    try:
        return str(state.guest_os(vtl))
    except RegisterNotAvailableError:
        return "not in this kind of file"


def _cpu(state: SavedState) -> str:
    vendor = state.cpuid.vendor or state.processor_vendor.name.lower()
    signature = f", signature {state.cpuid.signature:#x}" if state.cpuid.signature is not None else ""
    brand = f"{state.cpuid.brand}, " if state.cpuid.brand else ""
    return f"{brand}{vendor}{signature}"


def _screen_text(state: SavedState) -> str:
    try:
        screen = state.screen
    except ScreenError as error:
        return f"cannot be shown: {error.message}"
    return "none saved" if screen is None else f"{screen.width} x {screen.height}, see `vmrs screen`"


def _show_processors(state: SavedState) -> None:
    several = state.enabled_vtls != (0,)
    sparse = any(vp.index != vp.id for vp in state.processors)
    names = ["VP", *(["Index"] if sparse else []), "Arch", "Paging", "Mode", "IP", "Page table"]
    names += ["VTL"] if several else []
    rows = []
    for vp in state.processors:
        row: list[object] = [vp.id, *([vp.index] if sparse else []), *(_or_dash(vp, reader) for reader in _COLUMNS)]
        if several:
            row.append(f"{vp.active_vtl} of {', '.join(map(str, vp.enabled_vtls))}")
        rows.append(row)
    show_table(f"Virtual processors: {len(state.processors)}", names, rows)
    if any(_arm(vp) and not vp.registers.pc and not vp.registers.cpsr for vp in state.processors):
        click.echo(
            "  PC 0 with CPSR 0: the writer of this state probably did not save them, nor the exception level (EL)."
        )


def _or_dash(vp: VirtualProcessor, reader: Any) -> object:
    """A cell of the table; a dash where the state lacks the register it comes from."""
    try:
        return reader(vp)
    except RegisterNotAvailableError:
        return "-"


def _arm(vp: VirtualProcessor) -> bool:
    return "pc" in vp.registers


def _paging(vp: VirtualProcessor) -> str:
    """The mode, with the levels where the mode does not imply them."""
    mode = vp.paging_mode
    if mode in (PagingMode.LONG, PagingMode.ARMV8):
        return f"{mode.name.lower()}, {vp.paging_levels} levels"
    return {PagingMode.NON_PAGED: "off", PagingMode.X86_32BIT: "32 bit", PagingMode.PAE: "PAE"}[mode]


def _instruction_pointer(vp: VirtualProcessor) -> str:
    """Where the processor is; with the selector and the linear address where the code segment has a base."""
    if _arm(vp):
        return hex(vp.registers.pc)
    ip = vp.registers.rip
    cs = vp.registers.get("cs")
    if isinstance(cs, SegmentRegister) and cs.base and not cs.attributes & LONG_CODE:
        return f"{cs.selector:04x}:{ip:04x} ({(cs.base + ip) & 0xFFFFFFFF:#x})"
    return hex(ip)


def _page_table(vp: VirtualProcessor) -> str:
    return f"{vp.registers.ttbr0_el1:#x}, {vp.registers.ttbr1_el1:#x}" if _arm(vp) else hex(vp.registers.cr3)


_COLUMNS = (
    lambda vp: vp.architecture.name.lower(),
    _paging,
    lambda vp: f"{'EL' if _arm(vp) else 'ring '}{vp.cpl}",
    _instruction_pointer,
    _page_table,
)


def _show_memory(state: SavedState) -> None:
    chunks = state.memory.chunks
    show_table(
        f"Guest memory: {human_size(state.memory.size)} in {len(chunks)} {'chunk' if len(chunks) == 1 else 'chunks'}",
        ("Start", "End", "Size"),
        ((hex(item.start), hex(item.start + item.size - 1), human_size(item.size)) for item in chunks[:SHOWN_CHUNKS]),
    )
    if len(chunks) > SHOWN_CHUNKS:
        click.echo(f"  and {len(chunks) - SHOWN_CHUNKS} more: see `vmrs chunks`")
    stored = state.storage()
    if "segments" in stored:
        count = stored["segments"]
        click.echo(f"  Stored as {count} segment{'s' * (count != 1)}; {human_size(stored['stored_bytes'])} in the file")
        return
    unreadable = f", {stored['unreadable']} that cannot be read" if stored["unreadable"] else ""
    click.echo(
        f"  Stored as {stored['blocks']} blocks of 1 MiB, {stored['compressed']} compressed, {stored['plain']} plain"
        f"{unreadable}; {human_size(stored['stored_bytes'])} in the file"
    )


def _as_json(state: SavedState) -> dict[str, Any]:
    memory = state.memory
    return {
        "files": list(state.files),
        "format": state.format,
        "vm_version": state.vm_version,
        "saved_state_type": state.saved_state_type,
        "writer_version": state.writer_version,
        "cpu": {
            "vendor": state.processor_vendor.name.lower(),
            "cpuid_vendor": state.cpuid.vendor,
            "brand": state.cpuid.brand,
            "signature": state.cpuid.signature,
        },
        "enabled_vtls": list(state.enabled_vtls),
        "guest_os": {str(vtl): _guest_os_json(state, vtl) for vtl in state.enabled_vtls},
        "nested": state.nested,
        "screen": _screen_json(state),
        "processors": [_processor_json(vp) for vp in state.processors],
        "memory": {
            "page_size": memory.page_size,
            "size": memory.size,
            "chunks": [{"start": hex(item.start), "size": item.size} for item in memory.chunks],
            "stored": state.storage(),
        },
        "findings": findings_json(state.findings),
    }


def _guest_os_json(state: SavedState, vtl: int) -> dict[str, Any] | None:
    try:
        guest = state.guest_os(vtl)
    except RegisterNotAvailableError:
        return None
    return {"raw": hex(guest.raw), "vendor": guest.vendor, "os": guest.os, "version": guest.version}


def _screen_json(state: SavedState) -> dict[str, Any] | None:
    try:
        screen = state.screen
    except ScreenError as error:
        return {"error": error.message}
    return None if screen is None else {"width": screen.width, "height": screen.height}


def _processor_json(vp: VirtualProcessor) -> dict[str, Any]:
    def value(reader: Any) -> Any:
        found = _or_dash(vp, reader)
        return None if found == "-" else found

    return {
        "id": vp.id,
        "index": vp.index,
        "architecture": value(lambda vp: vp.architecture.name.lower()),
        "paging_mode": value(lambda vp: vp.paging_mode.name.lower()),
        "paging_levels": value(lambda vp: vp.paging_levels),
        "privilege_level": value(lambda vp: vp.cpl),
        "active_vtl": vp.active_vtl,
        "enabled_vtls": list(vp.enabled_vtls),
    }
