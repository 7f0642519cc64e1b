"""The operator's commands, ``faust -A streams.agents COMMAND`` beside Faust's own, and what they share.

They own options and printed text. The work itself is elsewhere: in ``maintenance``, ``postgres``, ``status``.
A command's module is imported when the command is first asked for: neither a worker nor the list of commands needs it
(https://click.palletsprojects.com/en/stable/complex/#lazily-loading-subcommands).

``COMMANDS`` lists them, each with the first sentence of its help.

- ``faust_command``: the command ``faust``.
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


class LazyCommand(click.Command):
    """Stands for the command ``attribute`` of a module of this package; has of it the name and the ``summary``.

    That is the first sentence of its help, so that the list of commands needs none of their modules.
    """

    def __init__(self, name: str, summary: str, attribute: str = "command", *, module: str | None = None) -> None:
        super().__init__(name, help=summary)
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


COMMANDS: Final = (
    LazyCommand(
        "aggregates", "The materialized views: likes, reposts, replies and quotes by post; followers by account."
    ),
    LazyCommand("completion", "Print the script for this SHELL."),
    LazyCommand("config", "The settings as a process that is started here and now would have them."),
    LazyCommand("copy", "Copy KAFKA_TOPIC into TARGET_TOPIC, each event to the partition that its DID has there."),
    LazyCommand(
        "cursor",
        "The row in firehose_cursor: the relay's seq up to which everything is in Postgres, for whoever reads it.",
    ),
    LazyCommand(
        "dead-letters",
        "Dead letters, that is frames, operations and messages that could not become rows: list, show, replay, purge.",
    ),
    LazyCommand("doctor", "Look at this machine, Kafka, Postgres and the relay; say what is wrong and how to mend it."),
    LazyCommand(
        "gaps", "List the ranges that the topic lacks of the relay's sequence, and this schema of the topic's offsets."
    ),
    LazyCommand("indexes", "The optional indexes under the typed views: create, drop, status."),
    LazyCommand(
        "pause",
        "Have the workers of this SINK_GROUP hold still until ``resume``: nothing is written to Postgres.",
        "pause",
    ),
    LazyCommand("resume", "End a pause: workers and ingest go on where they were.", "resume", module="pause"),
    LazyCommand(
        "prune", "Delete what has grown old: tombstones, dead letters, gaps; each only where its age is given."
    ),
    LazyCommand("rebuild", "Make SINK_SCHEMA anew from the retained topic, beside it, in the schema --schema."),
    LazyCommand(
        "replay",
        "Have the topic read again into SINK_SCHEMA: after BACKFILL_COLLECTIONS was widened, or rows were damaged.",
    ),
    LazyCommand(
        "status",
        "Show what is covered, how far each partition is, which process works or waits and why, and what is wrong.",
    ),
    LazyCommand("views", "Typed views over the records: list them, or make one from a lexicon file."),
)


def _share_examples(group: click.Group) -> None:
    """Each command of a group has the group's examples of it in its help."""
    for name, command in group.commands.items():
        own = [line for line in (group.epilog or "").splitlines() if f" {group.name} {name}" in line]
        if own and not command.epilog:
            command.epilog = "\n".join(("\b", "Examples:", *own))
