"""``faust -A streams.agents completion``: click's script, by which the shell completes our commands and their options.

Faust's command of that name needs another package and knows nothing of ``-A``; this one takes its place.
"""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

#: The end of the line with which each script of click's asks the program for the words.
_CALLS: Final = {"bash": "$1)", "zsh": " faust)", "fish": " faust)"}

_EPILOG = """\b
Examples:
  source <(faust -A streams.agents completion bash)        this shell; the line into ~/.bashrc for every one
  source <(faust -A streams.agents completion zsh)         after compinit, in ~/.zshrc
  faust -A streams.agents completion fish > ~/.config/fish/completions/faust.fish"""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(tuple(_CALLS)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script for this SHELL. It completes `faust -A streams.agents COMMAND --option`."""
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(context.find_root().command, {}, "faust", "_FAUST_COMPLETE")
    before, call, after = (made.source_template % made.source_vars()).partition(_CALLS[shell])
    assert call, "click's script is not as we know it"
    # Faust knows our commands only if it is told the app on its own command line.
    click.echo(f"{before}{call[:-1]} -A streams.agents 2>/dev/null){after}")
