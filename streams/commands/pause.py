"""``faust -A streams.agents pause`` and ``resume``: have a deployment's workers, and its ingest, hold still."""

from __future__ import annotations

import getpass
import socket

import click

from streams.commands.runner import open_database, run_command
from streams.postgres.processes import end_pause, pause_of, processes, set_pause
from streams.settings import Settings
from streams.status.process import BEAT_SECONDS, DOWN_AFTER
from streams.text import format_time, printable

_PAUSE_EPILOG = """\b
Examples:
  faust -A streams.agents pause
  faust -A streams.agents pause --ingest --reason "the database moves"
  faust -A streams.agents resume"""

_RESUME_EPILOG = """\b
Example:
  faust -A streams.agents resume"""


@click.command("pause", epilog=_PAUSE_EPILOG)
@click.option("--ingest", is_flag=True, help="The ingest too: the relay is not read.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever looks at the status.")
def pause(*, ingest: bool, reason: str) -> None:
    """Have the workers of this SINK_GROUP hold still until ``resume``: nothing is written to Postgres.

    It is a row in Postgres, so it outlasts restarts, and holds for workers that are started later. They keep their
    partitions, and Kafka keeps the events for as long as its topic's retention is. With --ingest the relay is not read
    either; its window does not wait: what it drops before ``resume`` is a gap.
    """

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            topic, group = settings.kafka_topic, settings.sink_group
            before = await pause_of(database, topic, group)
            await set_pause(database, topic, group, ingest=ingest, reason=reason[:500], asked_by=_who())
            running = [p for p in await processes(database, topic, group, DOWN_AFTER) if p.alive]
        workers = sum(1 for p in running if p.kind == "worker")
        ingests = sum(1 for p in running if p.kind == "ingest")
        if before is not None:
            click.echo(f"It was paused already, since {format_time(before.asked_at)} by {printable(before.asked_by)}.")
        click.echo(f"Paused: {_who_holds(workers, 'worker')} of {group}.")
        if ingest:
            click.echo(f"Paused: {_who_holds(ingests, 'ingest')}. The relay's window does not wait.")
        elif ingests:
            click.echo("The ingest goes on: Kafka keeps the events for the topic's retention (--ingest pauses it too).")
        click.echo("It outlasts restarts: faust -A streams.agents resume ends it.")

    run_command(main)


@click.command("resume", epilog=_RESUME_EPILOG)
def resume() -> None:
    """End a pause: workers and ingest go on where they were."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            since = await end_pause(database, settings.kafka_topic, settings.sink_group)
        if since is None:
            click.echo("Nothing was paused.")
        else:
            click.echo(f"Resumed: it was paused since {format_time(since)}. They go on within {BEAT_SECONDS:.0f} s.")

    run_command(main)


def _who() -> str:
    """Return who asks: the user and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _who_holds(count: int, what: str) -> str:
    if not count:
        return f"any {what} that is started (none reports now)"
    return f"the {what}{'s' if count > 1 else ''} that run ({count}), within {BEAT_SECONDS:.0f} s, and any later one"
