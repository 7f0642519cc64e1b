"""The operator's commands: ``faust -A streams.agents COMMAND``, beside Faust's own."""

from __future__ import annotations

from faust.cli.base import cli

from streams.commands import aggregates, copy, cursor, dead_letters, gaps, indexes, prune, rebuild, replay, views


def add_commands() -> None:
    """Make our commands known to ``faust -A streams.agents``."""
    for module in (aggregates, copy, cursor, dead_letters, gaps, indexes, prune, rebuild, replay, views):
        cli.add_command(module.command)
