"""Opens an ELF dump of QEMU as a snapshot."""

from __future__ import annotations

from functools import partial

from ...errors import FormatError, GuestMemoryNotFoundError, NoVirtualProcessorError
from ...files.source import Source
from ...findings import FindingLog
from ...registers.register_file import load_registers
from ...registers.table import registers_of
from ...registers.values import GivenRegisters, RegisterValue
from ...remedies import QEMU_DUMP
from ...snapshot import ProcessorRecord, Snapshot
from ..detect import Inputs
from . import layout
from .headers import ElfCore, read_headers
from .long_mode import with_long_mode
from .notes import Processor, privilege_level, read_processors
from .register_file import add_registers
from .segments import Segments

VENDOR_ARM = 0x10


def open_source(source: Source, inputs: Inputs, log: FindingLog) -> Snapshot:
    """The snapshot in an ELF dump; takes over the source.

    What the notes do not hold is absent: EFER, CR8, debug, x87 and SSE registers on x86, all system registers on ARM64.
    ``inputs.registers`` can add it. Raises FormatError, CorruptFileError, NoVirtualProcessorError, GuestMemoryNotFoundError.
    """
    core = read_headers(source, log)
    if not core.loads:
        raise GuestMemoryNotFoundError("the dump holds no memory", file=source.path)
    family = "arm64" if core.machine == layout.EM_AARCH64 else "x86"
    processors, chunks = read_processors(core, source.path, log)
    no_processors = None if processors else _why_none(core, source)  # what is given beside the dump may be all there is
    if inputs.registers is not None:
        given = load_registers(inputs.registers, family)
        if processors:
            processors = _completed(processors, given, source.path, log)
        else:
            processors = tuple(Processor(index, dict(given[index]), None) for index in sorted(given))
    if family == "x86":
        processors = with_long_mode(processors, core.machine, source.path, log)
    segments = Segments(source, core.loads, log)
    return Snapshot(
        format="qemu-elf",
        files=(source.path,),
        log=log,
        vm_version=None,
        saved_state_type=None,
        writer_version=None,
        store=None,
        processors=tuple(_record(processor, family) for processor in processors),
        enabled_vtls=(0,),
        guest_os_ids=None,
        vendor=VENDOR_ARM if family == "arm64" else None,
        cpuid=(),
        nested=False,
        ranges=segments.ranges,
        backing=segments,
        load_screen=lambda: None,
        chunks=chunks,
        close=source.close,
        no_processors=no_processors,
    )


def _why_none(core: ElfCore, source: Source) -> str:
    """Why the dump has no processor that can be read. Raises NoVirtualProcessorError where it should have one."""
    held = sum((note.owner, note.type) == layout.VBOX_CPU for note in core.notes)
    if held or any((note.owner, note.type) == layout.VBOX_CORE for note in core.notes):
        return (
            f"this is a core of VirtualBox (dumpvmcore): its memory can be read, its {held} processors cannot, since their "
            "layout depends on the version of VirtualBox"
        )
    raise NoVirtualProcessorError("the dump holds no processor", file=source.path, remedy=QEMU_DUMP)


def _completed(
    processors: tuple[Processor, ...], given: GivenRegisters, file: str, log: FindingLog
) -> tuple[Processor, ...]:
    indices = {processor.vp_index for processor in processors}
    foreign = sorted(set(given) - indices)
    if foreign:
        raise FormatError(
            f"registers were given for processor {foreign[0]}, which the dump does not have", file=file,
            remedy=f"the dump has {', '.join(map(str, sorted(indices)))}",
        )  # fmt: skip
    return tuple(add_registers(item, given.get(item.vp_index, {}), file, log) for item in processors)


def _ordered(registers: dict[str, RegisterValue], family: str) -> dict[str, RegisterValue]:
    """The registers in their usual order, whichever note they stand in."""
    return {name: registers[name] for name in registers_of(family) if name in registers}


def _record(processor: Processor, family: str) -> ProcessorRecord:
    return ProcessorRecord(
        index=processor.vp_index,
        family=family,
        vtls=(0,),
        active_vtl=0,
        registers={0: partial(_ordered, processor.registers, family)},
        cpl={0: privilege_level(processor.registers)},
        long_mode=processor.long_mode,
    )
