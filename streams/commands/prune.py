"""``faust -A streams.agents prune``: tombstones, dead letters and gaps go when they are old enough."""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from typing import Final

import click
from aiokafka.errors import KafkaError

from streams.commands.runner import open_database, run_command
from streams.errors import SettingsError
from streams.kafka.client import admin_client, broker_error
from streams.kafka.retention import topic_retention
from streams.kafka.topic import find_topic
from streams.postgres.database import Database
from streams.settings import Settings

#: Blocks of each table in one transaction: 8 KB each, so 8 MB of a table.
BLOCKS: Final = 1000
#: Seconds between two lines of progress.
TELL_EVERY: Final = 5.0
DAY: Final = 86_400.0

_EPILOG = """\b
Examples:
  faust -A streams.agents prune --tombstones-older-than 30 --dry-run
  faust -A streams.agents prune --tombstones-older-than 30 --dead-letters-older-than 90 --gaps-older-than 365

\b
Workers may run meanwhile. The space is used again by new rows once Postgres has vacuumed the tables."""


class _Days(click.FloatRange):
    """Days, of which a time in the past can be made."""

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        days = float(super().convert(value, param, ctx))
        if math.isnan(days):  # it is in every range
            self.fail(f"{value!r} is not a number of days.", param, ctx)
        return days


DAYS = _Days(0, 36_500)


@click.command("prune", epilog=_EPILOG)
@click.option("--tombstones-older-than", "tombstones", type=DAYS, metavar="DAYS",
              help="Records that were deleted, and known to be for longer than that.")  # fmt: skip
@click.option("--dead-letters-older-than", "dead_letters", type=DAYS, metavar="DAYS",
              help="Messages that could not become rows, written longer ago than that.")  # fmt: skip
@click.option("--gaps-older-than", "gaps", type=DAYS, metavar="DAYS",
              help="Gaps written longer ago than that.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--force", is_flag=True, help="Prune tombstones that are younger than the topic's retention.")
@click.option("--json", "as_json", is_flag=True, help="The counts as one line of JSON, and no progress.")
def command(
    tombstones: float | None,
    dead_letters: float | None,
    gaps: float | None,
    *,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Delete what has grown old: tombstones, dead letters, gaps; each only where its age is given.

    A tombstone is the row of a deleted record. It keeps the record away while an older version can still arrive, so it
    must outlive the topic's retention: a replay of what the topic still holds, or a restart of the ingest within the
    relay's window, would show the deleted record again.
    """
    ages = {"tombstones": tombstones, "dead_letters": dead_letters, "gaps": gaps}
    asked = {what: days for what, days in ages.items() if days is not None}

    async def main(settings: Settings) -> None:
        if not asked:
            raise SettingsError("Nothing to prune", "give an age, for example --tombstones-older-than 30.")
        if tombstones is not None and not force:
            await _check_retention(settings, tombstones)
        counts = {}
        async with open_database(settings) as database:
            for what, days in asked.items():
                tell = None if as_json else _Progress(what, dry_run=dry_run)
                counts[what] = await _prune(database, what, days, dry_run=dry_run, tell=tell)
        if as_json:
            click.echo(json.dumps({**counts, "dry_run": dry_run}))

    run_command(main)


async def _check_retention(settings: Settings, days: float) -> None:
    """Refuse an age that is younger than what the topic holds. Raises SettingsError, BrokerError."""
    if await find_topic(settings) is None:
        return  # nothing can be replayed
    async with admin_client(settings) as admin:
        try:
            retention = await topic_retention(admin, settings.kafka_topic)
        except KafkaError as error:
            raise broker_error(settings, error) from None
    if retention >= 0 and days * DAY * 1000 >= retention:
        return
    keeps = "for ever" if retention < 0 else f"for {retention / 1000 / DAY:g} days"
    raise SettingsError(
        f"The topic {settings.kafka_topic} keeps its events {keeps}, and --tombstones-older-than is {days:g}, "
        "so a replay of it would show the deleted records again",
        "give an age that is not younger, or --force.",
    )


async def _prune(database: Database, what: str, days: float, *, dry_run: bool, tell: _Progress | None) -> int:
    """Delete old rows, or count them (``dry_run``); returns how many. Each batch is a transaction of its own."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    table = "records" if what == "tombstones" else what
    end, count = int(await database.fetchval(f"blocks_of_{table}")), 0
    for first in range(0, end, BLOCKS):
        count += await database.fetchval(f"{'old' if dry_run else 'prune'}_{what}", before, first, first + BLOCKS)
        if tell is not None:
            tell.show(count, min(1.0, (first + BLOCKS) / end))
    if tell is not None:
        tell.done(count, days)
    return count


class _Progress:
    """Lines for people."""

    def __init__(self, what: str, *, dry_run: bool) -> None:
        self._what = what.replace("_", " ")
        self._verb = "would be removed" if dry_run else "removed"
        self._said = time.monotonic()

    def show(self, count: int, share: float) -> None:
        if time.monotonic() - self._said >= TELL_EVERY:
            self._said = time.monotonic()
            click.echo(f"[PRUNE] {self._what}: {count:,} {self._verb} so far ({share:.0%} looked through)")

    def done(self, count: int, days: float) -> None:
        click.echo(f"[PRUNE] {self._what} older than {days:g} days: {count:,} {self._verb}.")
