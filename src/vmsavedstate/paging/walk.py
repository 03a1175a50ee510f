"""One address, step by step: what the processor reads on its way through the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import GuestMemoryError
from ..memory import GuestPhysicalMemory
from ..vocabulary import Reason, StepKind
from .access import Access
from .forms import Denial, Field, Form, Level
from .regime import TOP, Regime, Tree

PAGE = 4096


class WalkStep(NamedTuple):
    """One entry that was read.

    Attributes:
        level: the name of the entry in the manuals: ``PML4E``, ``PDPTE``, ``PDE``, ``PTE``, or ``level 0`` to ``3``.
        table: guest physical address of the table, bytes.
        number: of the entry in the table.
        entry_address: guest physical address of the entry, bytes.
        entry: its value; None where the table is outside of the saved memory.
        kind: what the entry does, a :class:`~.vocabulary.StepKind`.
        target: guest physical address of the next table or of the page, None for the other kinds.
        span: bytes of virtual addresses that the entry speaks for.
        access: the rights that are left at this point.
        reserved: the bits that are set and should not be; they are not judged.
        flags: names of the bits that are set, without the address.
    """

    level: str
    table: int
    number: int
    entry_address: int
    entry: int | None
    kind: StepKind
    target: int | None
    span: int
    access: Access
    reserved: int
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The step as JSON has it."""
        return {
            "level": self.level,
            "table": hex(self.table),
            "number": self.number,
            "entry_address": hex(self.entry_address),
            "entry": None if self.entry is None else hex(self.entry),
            "kind": self.kind,
            "target": None if self.target is None else hex(self.target),
            "span": self.span,
            "kernel": self.access.kernel,
            "user": self.access.user,
            "reserved": hex(self.reserved),
            "flags": list(self.flags),
        }


class Walk(NamedTuple):
    """A whole walk.

    Attributes:
        gva: the address asked for.
        gpa: where it is, None where it is not mapped.
        access: the rights of its page; none where it is not mapped.
        size: mapped: bytes of the page. Not mapped: bytes from ``gva`` on that are not mapped for the same reason.
        steps: the entries read, from the root on; empty without paging, and where the address cannot be expressed.
        reason: why it is not mapped, in words; None where it is.
    """

    gva: int
    gpa: int | None
    access: Access
    size: int
    steps: tuple[WalkStep, ...]
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """The walk as JSON has it."""
        return {
            "gva": hex(self.gva),
            "gpa": None if self.gpa is None else hex(self.gpa),
            "size": self.size,
            "kernel": self.access.kernel,
            "user": self.access.user,
            "reason": self.reason,
            "steps": [step.to_dict() for step in self.steps],
        }


def walk(memory: GuestPhysicalMemory, regime: Regime, gva: int) -> Walk:
    """Follow ``gva`` (0 to 2**64 - 1).

    Raises GuestMemoryError for a table whose block is missing or damaged: what it says is not known.
    """
    address = regime.normal(gva)
    if not regime.trees:
        if address < regime.identity:
            return Walk(gva, address, Access(regime.rights), PAGE, (), None)
        return _unmapped(gva, TOP - address, (), f"without paging there is no address above {regime.identity - 1:#x}")
    for tree in regime.trees:
        if tree.start <= address < tree.end:
            return _walk_tree(memory, tree, gva, address)
    return _unmapped(gva, regime.next_tree(gva) - gva, (), _inexpressible(regime))


def _inexpressible(regime: Regime) -> str:
    """Why an address between or behind the trees cannot be mapped."""
    if regime.trees[-1].end < TOP:
        return f"{regime.trees[0].form.name}: there is no address above {regime.trees[-1].end - 1:#x}"
    return f"{regime.trees[0].form.name}: the address is not canonical, or its half of the address space has no tables"


def _walk_tree(memory: GuestPhysicalMemory, tree: Tree, gva: int, address: int) -> Walk:
    steps: list[WalkStep] = []
    walking = _steps(memory, tree, gva, address)
    while True:
        try:
            step = next(walking)
        except GuestMemoryError as error:
            error.steps = tuple(steps)
            raise
        steps.append(step)
        inside = address & step.span - 1
        if step.kind == StepKind.PAGE:
            assert step.target is not None
            return Walk(gva, step.target + inside, step.access, step.span, tuple(steps), None)
        if step.kind != StepKind.TABLE:
            return _unmapped(gva, step.span - inside, tuple(steps), _explained(step))


def visits(
    memory: GuestPhysicalMemory, tree: Tree, gva: int, address: int, levels: tuple[Level, ...]
) -> Iterator[tuple[Level, int, int | None, StepKind, int | None]]:
    """(level, table, entry, kind, target) of a walk through ``levels``, up to the first entry that is not a table.

    A walk never loops: it takes as many steps as there are levels, wherever the tables lead.
    """
    form, table = tree.form, tree.root
    for level in levels:
        at = table + (address >> level.shift & (1 << level.bits) - 1) * form.entry_size
        entry = read_entry(memory, at, form.entry_size, gva, level.name)
        kind, target = classify(form, level, entry)
        yield level, table, entry, kind, target
        if target is None or kind == StepKind.PAGE:
            return
        table = target


def _steps(memory: GuestPhysicalMemory, tree: Tree, gva: int, address: int) -> Iterator[WalkStep]:
    """The same for people: with rights, flags and reserved bits."""
    form, denied = tree.form, 0
    for level, table, entry, kind, target in visits(memory, tree, gva, address, form.levels):
        index = address >> level.shift & (1 << level.bits) - 1
        word = entry or 0
        denied |= denials(word, level.page_denials if kind == StepKind.PAGE else level.table_denials)
        reserved = {StepKind.TABLE: level.table_reserved, StepKind.PAGE: level.page_reserved}.get(kind, 0) & word
        rights = Access(form.rights[denied] if target is not None else 0)
        flags = tuple(name for bit, name in form.flags if word >> bit & 1)
        at = table + index * form.entry_size
        yield WalkStep(level.name, table, index, at, entry, kind, target, 1 << level.shift, rights, reserved, flags)


def read_entry(memory: GuestPhysicalMemory, address: int, size: int, gva: int, name: str) -> int | None:
    """The entry of ``size`` bytes at a guest physical address, None where it is not part of the saved memory."""
    data = read_table(memory, address, size, gva, name)
    return None if data is None else int.from_bytes(data, "little")


def read_table(memory: GuestPhysicalMemory, address: int, size: int, gva: int, name: str) -> bytes | None:
    """``size`` bytes of a page table, None where it is not part of the saved memory.

    Raises GuestMemoryError where its block is missing or damaged; ``gva`` and ``name`` (of the entry) are for the error.
    """
    try:
        return memory.read(address, size)
    except GuestMemoryError as error:
        if error.reason == Reason.HOLE:
            return None
        lost = GuestMemoryError(
            f"the {name} of guest virtual address {gva:#x}, in a page table at {address & ~0xFFF:#x}, cannot be read: "
            f"{error.message}",
            start=error.start,
            end=error.end,
            reason=error.reason,
            file=error.file,
        )
        lost.remedy = "whether the address is mapped is not known; other addresses may be all the same"
        raise lost from error


def classify(form: Form, level: Level, entry: int | None) -> tuple[StepKind, int | None]:
    """The kind of an entry, and the address in it."""
    if entry is None:
        return StepKind.OUTSIDE, None
    if entry & level.is_page.mask == level.is_page.value:
        kind, target = StepKind.PAGE, assemble(entry, level.page)
    elif entry & level.is_table.mask == level.is_table.value:
        kind, target = StepKind.TABLE, assemble(entry, level.table)
    else:
        return StepKind.ABSENT, None
    return (kind, target) if not target >> form.address_bits else (StepKind.TOO_HIGH, None)


def assemble(entry: int, fields: tuple[Field, ...]) -> int:
    """The address whose parts stand in these fields of an entry."""
    return sum((entry & mask) << shift for mask, shift in fields)


def denials(entry: int, rules: tuple[Denial, ...]) -> int:
    """What an entry denies."""
    denied = 0
    for bit, what, when_clear in rules:
        if (entry >> bit & 1) != when_clear:
            denied |= what
    return denied


def _unmapped(gva: int, size: int, steps: tuple[WalkStep, ...], reason: str) -> Walk:
    return Walk(gva, None, Access(0), size, steps, reason)


def _explained(step: WalkStep) -> str:
    if step.kind == StepKind.OUTSIDE:
        return f"its {step.level} at {step.entry_address:#x} is outside of the saved memory"
    assert step.entry is not None
    why = "maps nothing" if step.kind == StepKind.ABSENT else "names an address beyond those of this paging mode"
    return f"its {step.level} at {step.entry_address:#x}, {step.entry:#x}, {why}"
