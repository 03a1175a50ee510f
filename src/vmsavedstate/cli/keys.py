"""``vmrs keys``: the key tree of any container, with or without a saved state."""

from __future__ import annotations

import sys

import click

from ..containers.keytree import LONG_TEXT, PREVIEW, KeyEntry, KeyTree
from ..errors import CorruptFileError, InvalidArgumentError, KeyNotFoundError
from ..state import open_store
from .arguments import FILE, file_argument, json_option, strict_option
from .output import hex_lines, output_file, printable, refuse_terminal, report_findings, show_table, stream_json

PIECE = 1 << 20
LONGEST_CELL = 512  # characters of a cell of the table


@click.command()
@file_argument
@click.argument("path", required=False)
@click.option("--raw", is_flag=True, help="The bytes of the value at PATH, for a pipe.")
@click.option("--out", type=FILE, help="Write the bytes of the value at PATH to a new file; `-` is the pipe.")
@click.option("--force", is_flag=True, help="Let --out replace an existing file.")
@strict_option
@json_option
def command(file: str, path: str | None, raw: bool, out: str | None, force: bool, strict: bool, as_json: bool) -> None:
    """The keys of a .vmrs, .vmcx, .bin or .vsv file; with PATH, that key with all its value, or the keys below it.

    Of same-named siblings PATH means all; name[2] is the second of them.
    """
    if (raw or out is not None) and path is None:
        raise click.UsageError("--raw and --out need the PATH of a key")
    if as_json and (raw or out is not None):
        raise click.UsageError("--json does not go with --raw and --out")
    with open_store(file, strict=strict) as store:
        report_findings(store.findings)
        chosen = _choose(store, path, file)
        single = chosen[0] if len(chosen) == 1 and chosen[0].type != "node" else None
        if raw or out is not None:
            _copy_value(store, single, chosen, out, force)
        elif single is not None and not as_json:
            _show_value(single)
        else:
            if as_json:
                rows = store.list_of_dicts(chosen or None) if single is None else [store.to_dict(single, whole=True)]
                stream_json("keys", "keys", rows, dict)
            else:
                _show_list(chosen or None, store)


def _choose(store: KeyTree, path: str | None, file: str) -> list[KeyEntry]:
    """The keys PATH means; none for the whole tree."""
    if path is None or not path.strip("/"):
        return []
    found = store.find_all(path)
    if found:
        return found
    entry = store.find(path)  # in other case
    if entry is None:
        raise KeyNotFoundError(f"there is no key {path!r}", file=file, remedy="without PATH all keys are listed")
    return [entry]


def _show_list(chosen: list[KeyEntry] | None, store: KeyTree) -> None:
    rows = [
        (_cut(path), entry.type, "-" if entry.type == "node" else entry.size, _cut(_preview(entry)))
        for entry, _, path in store.walk_paths(chosen)
    ]
    show_table(f"Keys: {len(rows)}", ("Path", "Type", "Bytes", "Value"), rows)


def _cut(text: str) -> str:
    """A cell of the table: the middle of what is very long is left out, JSON has it."""
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL // 2]}...{text[-LONGEST_CELL // 2 :]}"


def _preview(entry: KeyEntry) -> str:
    try:
        if entry.type == "array":
            data = entry.read(0, min(PREVIEW, entry.size))
            return data.hex(" ") + (" ..." if entry.size > PREVIEW else "")
        if entry.type == "string" and entry.size > LONG_TEXT:
            return f"{entry.text_start(LONG_TEXT)} ..."
        value = entry.value
    except CorruptFileError as error:
        return f"unreadable: {error.message}"
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and not -10 < value < 10:
        return f"{value} ({value:#x})"
    return str(value)


def _show_value(entry: KeyEntry) -> None:
    if entry.type != "array":
        click.echo(printable(_preview(entry)))
        return
    width = max(4, len(f"{entry.size:x}"))
    for at in range(0, entry.size, PIECE):
        for line in hex_lines(entry.read(at, min(PIECE, entry.size - at)), at, width):
            click.echo(line)


def _copy_value(store: KeyTree, entry: KeyEntry | None, chosen: list[KeyEntry], out: str | None, force: bool) -> None:
    if len(chosen) > 1:
        names = ", ".join(store.unique_path(item) for item in chosen[:4])
        raise InvalidArgumentError(f"{len(chosen)} keys have this path; name one of them: {names}")
    if entry is None:
        raise InvalidArgumentError(
            "this is a node, it has no value of its own",
            file=store.sources[0].path,
            remedy="name a key below it",
        )
    pieces = (entry.read(at, min(PIECE, entry.size - at)) for at in range(0, entry.size, PIECE))
    if out is None or out == "-":
        refuse_terminal()
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    with output_file(out, evidence=[source.path for source in store.sources], force=force) as stream:
        for piece in pieces:
            stream.write(piece)
