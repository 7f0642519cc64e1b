"""The operator's commands, ``faust -A streams.agents COMMAND`` beside Faust's own, and what they share.

They own options and printed text. The work itself is elsewhere: in ``maintenance``, ``postgres``, ``status``.
A command's module is imported when the command is first asked for: a worker needs none of them, and its start
takes a sixth less CPU without (https://click.palletsprojects.com/en/stable/complex/#lazily-loading-subcommands).

``COMMANDS`` lists them.

- ``runner``, ``options``: how a command runs and ends; options and output that several commands share.
- ``status``, ``doctor``, ``config``: the state of a deployment, its checks, its settings.
- ``pause``: ``pause`` and ``resume``.
- ``views``, ``indexes``, ``aggregates``: typed views, optional indexes, materialized counts.
- ``dead_letters``, ``gaps``, ``prune``: what is not there, and why; what is old.
- ``rebuild``, ``replay``, ``start_at``: the topic read again: beside the live schema, into it, and from where.
- ``cursor``: the row in ``firehose_cursor``.
- ``copy``: the topic into a new one.
- ``completion``: a script for the shell.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any, Final

import click
from faust.cli.base import cli


class LazyCommand(click.Command):
    """Stands for the command ``attribute`` of a module of this package; has nothing of it but its name."""

    def __init__(self, name: str, attribute: str = "command", *, module: str | None = None) -> None:
        super().__init__(name)
        self._module, self._attribute = module or name.replace("-", "_"), attribute

    @cached_property
    def real(self) -> click.Command:
        """The command itself."""
        command: click.Command = getattr(import_module(f"{__name__}.{self._module}"), self._attribute)
        if isinstance(command, click.Group):
            _share_examples(command)
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 (click's)
    ) -> click.Context:
        """The real command's, which from then on is asked."""
        return self.real.make_context(info_name, args, parent, **extra)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Its line in the list of commands."""
        return self.real.get_short_help_str(limit)


COMMANDS: Final = (
    LazyCommand("aggregates"),
    LazyCommand("completion"),
    LazyCommand("config"),
    LazyCommand("copy"),
    LazyCommand("cursor"),
    LazyCommand("dead-letters"),
    LazyCommand("doctor"),
    LazyCommand("gaps"),
    LazyCommand("indexes"),
    LazyCommand("pause", "pause"),
    LazyCommand("resume", "resume", module="pause"),
    LazyCommand("prune"),
    LazyCommand("rebuild"),
    LazyCommand("replay"),
    LazyCommand("status"),
    LazyCommand("views"),
)


def add_commands() -> None:
    """Make our commands known to ``faust -A streams.agents``; ``completion`` takes the place of Faust's.

    Faust's is imported first, whoever calls: imported later it would take the place of ours.
    """
    import_module("faust.cli.completion")
    for command in COMMANDS:
        cli.add_command(command)


def _share_examples(group: click.Group) -> None:
    """Each command of a group has the group's examples of it in its help."""
    for name, command in group.commands.items():
        own = [line for line in (group.epilog or "").splitlines() if f" {group.name} {name}" in line]
        if own and not command.epilog:
            command.epilog = "\n".join(("\b", "Examples:", *own))
