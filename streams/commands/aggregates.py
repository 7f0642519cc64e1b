"""``faust -A streams.agents aggregates``: bring the materialized counts up to date."""

from __future__ import annotations

import json
import time

import click

from streams.commands.indexes import size
from streams.commands.runner import open_database, run_command
from streams.errors import SettingsError
from streams.postgres.database import FOR_EVER, Connection, unlimited
from streams.postgres.sql_text import quoted
from streams.settings import Settings
from streams.text import printable

_EPILOG = """\b
Examples:
  faust -A streams.agents aggregates refresh
  faust -A streams.agents aggregates refresh post_counts
  faust -A streams.agents aggregates status

\b
Whoever reads meanwhile sees the counts as they were. The time it takes grows with the records: once an hour or a day,
from cron or a systemd timer, is what it is made for."""


@click.group("aggregates", epilog=_EPILOG)
def command() -> None:
    """The materialized views: likes, reposts, replies and quotes by post; followers by account."""


@command.command()
@click.argument("names", nargs=-1)
def refresh(names: tuple[str, ...]) -> None:
    """Count again: all of them, or those that are named."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            there = await database.fetch("aggregates")
            populated = {row["name"]: row["populated"] for row in there}
            unknown = [name for name in names if name not in populated]
            if unknown:
                known = ", ".join(sorted(populated)) or "none"
                raise SettingsError(f"There is no materialized view {printable(unknown[0])} (there are: {known}).")
            for name in names or tuple(populated):
                began = time.monotonic()

                async def call(connection: Connection, name: str = name) -> int:
                    # Once it holds something, whoever reads it is not kept waiting.
                    how = "CONCURRENTLY " if populated[name] else ""
                    async with unlimited(connection):
                        await connection.execute(f"REFRESH MATERIALIZED VIEW {how}{quoted(name)}", timeout=FOR_EVER)
                    return int(await connection.fetchval(f"SELECT count(*) FROM {quoted(name)}"))  # noqa: S608 (quoted)

                rows = await database.run(call)
                click.echo(f"{printable(name)}: {rows} rows, {time.monotonic() - began:.1f} s")

    run_command(main)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(*, as_json: bool) -> None:
    """Show whether they were filled yet, and how large they are."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            rows = await database.fetch("aggregates")
        if as_json:
            click.echo(json.dumps([dict(row) for row in rows]))
            return
        for row in rows:
            state = f"about {row['rows']} rows, {size(row['size'])}" if row["populated"] else "empty: refresh it"
            click.echo(f"{printable(row['name']):16}{state}")

    run_command(main)
