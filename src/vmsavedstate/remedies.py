"""What to do about an error, where Python and the command say it in different words: a code, worded twice.

A remedy that is the same for both is plain text. Errors show Python's words; the command asks for its own.
"""

from __future__ import annotations

from typing import NamedTuple


class Remedy(NamedTuple):
    """A remedy: ``code`` for programs, and its words for callers of Python and for users of the command."""

    code: str
    python: str
    command: str


FILL_BYTE = Remedy(
    "fill-byte",
    "pass fill=0 (or another byte) to put it into such ranges",
    "--fill 0 puts a byte of your choice there instead",
)
FILL_OR_INTACT = Remedy(
    "fill-or-intact",
    "pass fill=0 (or another byte) for what cannot be read, or use an intact file",
    "choose a byte for what cannot be read (--fill), or use an intact file",
)
FORCE_PAGING_MODE = Remedy("force-paging-mode", "force a mode (paging_mode=)", "force a mode (--paging-mode)")
GIVE_REGISTERS = Remedy(
    "give-registers",
    "pass what a dump of QEMU lacks as registers=",
    "dumps of QEMU take what they lack from --registers",
)
GIVE_REGISTERS_OR_FORCE = Remedy(
    "give-registers-or-force",
    "pass what a dump of QEMU lacks as registers=; a forced paging_mode= with root= needs none of them",
    "dumps of QEMU take what they lack from --registers; a forced paging mode with --root needs none of them",
)
LIST_KEYS = Remedy("list-keys", "walk() yields all keys", "`vmrs keys FILE` lists all keys")
REGISTER_FORMS = Remedy(
    "register-forms",
    "give the output of QEMU's `info registers -a`, or JSON: processor index, names and values",
    "give the output of QEMU's `info registers -a`, or JSON as `vmrs regs --json` prints it",
)
REGISTER_JSON = Remedy(
    "register-json",
    'give {"0": {"efer": "0xd01"}}: processor index, names and values',
    'give {"0": {"efer": "0xd01"}}, processor index and names, or what `vmrs regs --json` prints',
)
NOT_A_FILE = Remedy("not-a-file", "name a regular file", "name a file; without --out the bytes go to the pipe")
REPLACE_FILE = Remedy(
    "replace-file",
    "choose another name, or pass overwrite=True where the function has it",
    "choose another name, or replace the file with --force where the command has it",
)
DUMP_HAS_NO_KEYS = Remedy(
    "dump-has-no-keys",
    "open() shows what a dump of QEMU has; its notes are the state's chunks",
    "of a dump of QEMU `vmrs info` and `vmrs chunks --partition-state` show what it has",
)
RAW_VALUES = Remedy("raw-values", "the store has the raw values", "`vmrs keys` shows the raw values")
CUT_SHORT = Remedy(
    "cut-short",
    "the state was cut short or is damaged; the error's findings list what was found",
    "the state was cut short or is damaged; `vmrs verify` lists what was found",
)
LIST_FINDINGS = Remedy(
    "list-findings", "the error's findings list what was found", "`vmrs verify` lists what was found in the file"
)
USE_INTACT_COPY = Remedy(
    "use-intact-copy",
    "use an intact copy; the error's findings list the damage, open_store() shows what is left",
    "use an intact copy; `vmrs verify` lists the damage, `vmrs keys` what is left",
)
CONFIGURATION = Remedy(
    "configuration",
    "this is the configuration of a VM: open_store() shows it; its memory is in the .vmrs beside it",
    "this is the configuration of a VM: `vmrs keys` shows it; its memory is in the .vmrs beside it",
)
NAME_COMPANION = Remedy(
    "name-companion",
    "put it beside this file, or pass it as companion=",
    "put it beside this file, or name it with --companion",
)
GIVE_COMPANION_OBJECT = Remedy(
    "give-companion",
    "a file object has no folder to look in: pass the other file as companion=",
    "name the other file with --companion",
)
QEMU_DUMP = "name a dump that QEMU's dump-guest-memory or `virsh dump --memory-only` wrote"
