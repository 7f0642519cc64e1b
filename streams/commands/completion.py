"""``faust -A streams.agents completion``: a script that has the shell complete our commands and their options.

Faust's command of that name needs another package and knows nothing of ``-A``; this one takes its place. The script
asks click, which knows every command; that needs no broker and no database.
"""

from __future__ import annotations

import re
from typing import Final

import click
from click.shell_completion import get_completion_class

#: click's own variable, made from the name of the program.
_VARIABLE: Final = "_FAUST_COMPLETE"

_EPILOG = """\b
Examples:
  source <(faust -A streams.agents completion bash)        this shell; the line into ~/.bashrc for every one
  source <(faust -A streams.agents completion zsh)         after compinit, in ~/.zshrc
  faust -A streams.agents completion fish > ~/.config/fish/completions/faust.fish"""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script for this SHELL. It completes `faust -A streams.agents COMMAND --option`."""
    click.echo(script(context.find_root().command, shell))


def script(root: click.Command, shell: str) -> str:
    """Click's script, with the app told to the program that is asked: else Faust would not know our commands."""
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(root, {}, "faust", _VARIABLE)
    text = made.source_template % made.source_vars()
    asking = re.compile(r"(_complete |commandline -t\) )(\$1|faust)")
    assert len(asking.findall(text)) == 1, "click's script is not as we know it"
    return asking.sub(r"\1\2 -A streams.agents 2>/dev/null", text)
