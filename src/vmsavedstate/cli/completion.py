"""``vmrs completion``: the script that teaches a shell the commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(vmrs completion bash)"        in ~/.bashrc
    zsh:  eval "$(vmrs completion zsh)"         in ~/.zshrc
    fish: vmrs completion fish | source         in ~/.config/fish/config.fish
    """
    from .app import COMPLETION_VARIABLE, cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "vmrs", COMPLETION_VARIABLE).source())
