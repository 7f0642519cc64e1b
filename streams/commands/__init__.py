"""The operator's commands: ``faust -A streams.agents COMMAND``, beside Faust's own."""

from __future__ import annotations

from typing import Final

import click
from faust.cli.base import cli

from streams.commands import (
    aggregates,
    completion,
    config,
    copy,
    cursor,
    dead_letters,
    doctor,
    gaps,
    indexes,
    pause,
    prune,
    rebuild,
    replay,
    status,
    views,
)

#: A module each; in one the module has two.
_COMMANDS: Final[tuple[click.Command, ...]] = (
    aggregates.command,
    completion.command,
    config.command,
    copy.command,
    cursor.command,
    dead_letters.command,
    doctor.command,
    gaps.command,
    indexes.command,
    pause.pause,
    pause.resume,
    prune.command,
    rebuild.command,
    replay.command,
    status.command,
    views.command,
)


def add_commands() -> None:
    """Make our commands known to ``faust -A streams.agents``; ``completion`` takes the place of Faust's."""
    for command in _COMMANDS:
        if isinstance(command, click.Group):
            _share_examples(command)
        cli.add_command(command)


def _share_examples(group: click.Group) -> None:
    """Each command of a group has the group's examples of it in its help."""
    for name, command in group.commands.items():
        own = [line for line in (group.epilog or "").splitlines() if f" {group.name} {name}" in line]
        if own and not command.epilog:
            command.epilog = "\n".join(("\b", "Examples:", *own))
