"""The operator's commands: ``faust -A streams.agents COMMAND``, beside Faust's own."""

from __future__ import annotations

import importlib
from typing import Final

import click
from faust.cli.base import cli

#: Modules of this package, each with its click command in the attribute ``command``.
NAMES: Final[tuple[str, ...]] = ("aggregates", "copy", "indexes", "prune", "views")


def add_commands() -> None:
    """Make our commands known to ``faust -A streams.agents``."""
    for name in NAMES:
        command: click.Command = importlib.import_module(f"streams.commands.{name}").command
        cli.add_command(command)
