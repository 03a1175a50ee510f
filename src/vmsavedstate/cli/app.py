"""The entry point: finds the command, and turns every way to fail into a message and an exit code.

Exit codes: 0 done, 1 the input is at fault (or the output cannot be written), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import sys

import click

from ..errors import InvalidArgumentError, VmSavedStateError
from .output import Outcome, ReaderGoneError, printable

COMMANDS = {
    "info": "What is in a saved state: processors, memory, guest, findings.",
    "regs": "Registers of the virtual processors.",
    "chunks": "The map of the guest's physical memory.",
    "translate": "Where virtual addresses are in physical memory.",
    "maps": "All that the page tables of a processor map.",
    "keys": "The keys and values of any .vmrs, .vmcx, .bin or .vsv file.",
    "read": "Bytes of guest memory, by physical or virtual address.",
    "find": "Find text, bytes or a regular expression in memory.",
    "screen": "The picture the console showed when the VM was saved.",
    "convert": "Write a .vmrs from a QEMU/KVM dump, or from any other saved state.",
    "library": "Build the C library that drops in for Microsoft's DLL.",
    "verify": "Check every structure and decode all memory.",
    "completion": "Print the completion script of a shell.",
}
COMPLETION_VARIABLE = "_VMRS_COMPLETE"
DONE, INPUT_AT_FAULT, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class LazyGroup(click.Group):
    """Imports a command's module when the command is run, not when the program starts."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f".{cmd_name}", __package__).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands on the help page, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .. import __version__, codec

        name = codec.active().name
        which = "compiled extension" if name == "rust" else "pure Python, slower; the compiled extension is not in use"
        click.echo(f"vmrs {__version__} (codec: {name}, {which})")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Version, codec."
)
def cli() -> None:
    """Read Hyper-V saved states (.vmrs, or .bin and .vsv) and ELF dumps of QEMU and KVM. Files are only ever read.

    Numbers are decimal or hex (0x1000), sizes may end in KiB, MiB, GiB, TiB, powers of 1024.
    """


def main() -> None:
    """Run the command line and exit."""
    gc.disable()  # a short process; what it opens is not garbage, and may be 65,536 keys to walk over again and again
    _occupy_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names that the terminal cannot show must not end the program
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run()
        sys.stdout.flush()
    except OSError as error:  # the output: everything about input is a VmSavedStateError
        code = _output_failed(error)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    # All is written and closed. To free 65,536 keys one by one would take as long as most commands.
    os._exit(code)


def _occupy_standard_descriptors() -> None:
    """Where the caller closed one of descriptors 0 to 2, open the null device there, before evidence could get it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        click.echo("vmrs: cannot write the output: it is closed", err=True)
        os._exit(INPUT_AT_FAULT)


def _invoke(arguments: list[str]) -> object:
    """What ``Command.main`` of click does, but for its ways out: errors of the output shall reach :func:`main`."""
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "vmrs", COMPLETION_VARIABLE, instruction)
    with cli.make_context("vmrs", arguments, obj=Outcome()) as context:
        answer = cli.invoke(context)
        return max(answer if isinstance(answer, int) else DONE, context.obj.least)


def _run() -> int:
    try:
        answer = _invoke(sys.argv[1:])
    except VmSavedStateError as error:
        click.echo(f"vmrs: {printable(error.for_command())}", err=True)
        return WRONG_USAGE if isinstance(error, InvalidArgumentError) else INPUT_AT_FAULT
    except click.ClickException as error:
        error.show()
        return WRONG_USAGE if isinstance(error, click.UsageError) else INPUT_AT_FAULT
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("vmrs: interrupted", err=True)
        return INTERRUPTED
    except OSError:
        raise
    except Exception as error:
        if os.environ.get("VMRS_TRACEBACK"):
            raise
        click.echo(
            f"vmrs: this should not happen: {type(error).__name__}: {printable(str(error))}\n"
            "vmrs: please report it with the output of the same command under VMRS_TRACEBACK=1",
            err=True,
        )
        return INPUT_AT_FAULT
    return answer if isinstance(answer, int) else DONE


def _output_failed(error: OSError) -> int:
    """A reader that closed its end of a pipe has what it wanted; anything else has lost output."""
    closed = isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)
    with contextlib.suppress(OSError, ValueError):  # what is still buffered would fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if closed:
        return error.code if isinstance(error, ReaderGoneError) else DONE
    click.echo(f"vmrs: cannot write the output: {error.strerror or error}", err=True)
    return INPUT_AT_FAULT
