"""The command ``faust`` as this project installs it: Faust's own, which reads nothing from the environment.

Faust takes options from FAUST_ and F_ names, and Django's settings, while it is imported, before any code of an app
runs: another service's FAUST_LOOP=uvloop would end every command with a traceback. What it is to know we hand it
(``agents.make_app``). On the command line all its options work.

``faust -A streams.agents COMMAND`` with a command of ours runs it without Faust. No such command needs the app, and to
import Faust would be half of its start. With other options before it, Faust finds the same command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from streams.commands import COMMANDS
from streams.environment.names import forget_fausts
from streams.runtime.printing import print_anywhere

#: How every document calls our commands.
_APP: Final = ["-A", "streams.agents"]


def main() -> int:
    """Run the command line; returns the exit code."""
    forget_fausts(os.environ)
    print_anywhere()  # Faust's banner has letters that not every terminal has
    if (ours := our_arguments(sys.argv[1:])) is not None:
        return int(our_group().main(ours))
    from faust.cli.faust import cli  # noqa: PLC0415 (only where it is asked for, and not before the environment is clean)

    cli()
    return 0


def our_arguments(arguments: Sequence[str]) -> list[str] | None:
    """Return a command of ours and what follows it; None for everything that is Faust's to read."""
    app, ours = list(arguments[: len(_APP)]), list(arguments[len(_APP) :])
    return ours if app == _APP and ours and ours[0] in {command.name for command in COMMANDS} else None


def our_group() -> click.Group:
    """Return the group of our commands alone, under Faust's name."""
    return click.Group("faust", {str(command.name): command for command in COMMANDS})


if __name__ == "__main__":
    sys.exit(main())
