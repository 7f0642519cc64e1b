"""``faust -A streams.agents views``: a typed view of any lexicon, beside those of app.bsky."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import asyncpg
import click

from streams.commands.running import open_database, run_command
from streams.errors import SettingsError
from streams.firehose.syntax import shown
from streams.postgres.database import Connection
from streams.postgres.lexicon_view import LexiconError, View, create_view, literal, make_view, quoted
from streams.postgres.queries import query
from streams.settings import Settings

#: How the comment of a view that this command made begins: only those may be replaced or dropped.
MARK: Final = "made by `views create`: "

_EPILOG = """\b
Examples:
  faust -A streams.agents views list
  faust -A streams.agents views create com.whtwnd.blog.entry.json
  faust -A streams.agents views create pub.leaflet.document.json --name articles
  faust -A streams.agents views show pub.leaflet.document.json
  faust -A streams.agents views drop articles

\b
A view's name is the last two parts of the lexicon's name (blog_entry) unless you give another. A value of the wrong
type is NULL. The lexicon's descriptions become the columns' comments."""


@click.group("views", epilog=_EPILOG)
def command() -> None:
    """Typed views over the records: list them, or make one from a lexicon file."""


@command.command()
@click.argument("lexicon", type=click.Path(path_type=Path))
@click.option("--name", help="The view's name.")
@click.option("--replace", is_flag=True, help="Replace the view of that name, if it was made by this command.")
def create(lexicon: Path, name: str | None, *, replace: bool) -> None:
    """Make a view of the records of LEXICON, a file of JSON."""

    async def main(settings: Settings) -> None:
        view = _read(lexicon, name)

        async def call(connection: Connection) -> None:
            async with connection.transaction():
                await _make_room(connection, view.name, replace=replace)
                await connection.execute(create_view(view))
                await connection.execute(f"COMMENT ON VIEW {quoted(view.name)} IS {literal(MARK + view.comment)}")

        async with open_database(settings) as database:
            await database.run(call)
        click.echo(
            f"{settings.sink_schema}.{shown(view.name)}: the records of {view.nsid}, {len(view.columns)} columns"
        )

    run_command(main)


@command.command()
@click.argument("lexicon", type=click.Path(path_type=Path))
@click.option("--name", help="The view's name.")
def show(lexicon: Path, name: str | None) -> None:
    """Print the SQL that `create` would run."""

    async def main(_: Settings) -> None:
        click.echo(create_view(_read(lexicon, name)))

    run_command(main)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_views(*, as_json: bool) -> None:
    """The views of the schema, and what each of them shows."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            rows = await database.run(lambda connection: connection.fetch(query("views")))
        if as_json:
            click.echo(json.dumps([dict(row) for row in rows]))
            return
        width = max((len(shown(row["name"])) for row in rows), default=0)
        for row in rows:
            click.echo(f"{shown(row['name']):{width}}  {shown(row['comment'] or '', 300)}")

    run_command(main)


@command.command()
@click.argument("name")
def drop(name: str) -> None:
    """Drop a view that `create` made."""

    async def main(settings: Settings) -> None:
        async def call(connection: Connection) -> None:
            async with connection.transaction():
                await _make_room(connection, name, replace=True)

        async with open_database(settings) as database:
            if not await database.run(lambda connection: connection.fetchrow(query("relation_called"), name)):
                raise SettingsError(f"There is no view {shown(name)} in the schema {settings.sink_schema}.")
            await database.run(call)
        click.echo(f"dropped {shown(name)}")

    run_command(main)


def _read(path: Path, name: str | None) -> View:
    """The view of the lexicon in the file. Raises SettingsError where it cannot be read or is no record's."""
    try:
        return make_view(json.loads(path.read_text("utf-8")), name)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except LexiconError as error:
        raise SettingsError(f"{path} gives no view: {error}.") from None
    except (ValueError, RecursionError):
        raise SettingsError(f"{path} is not JSON.") from None


async def _make_room(connection: Connection, name: str, *, replace: bool) -> None:
    """Drop the view of that name if this command made it and it may go. Raises SettingsError where it may not."""
    row = await connection.fetchrow(query("relation_called"), name)
    if row is None:
        return
    if not (row["is_view"] and (row["comment"] or "").startswith(MARK)):
        raise SettingsError(f"{shown(name)} was not made by this command: give another --name.")
    if not replace:
        raise SettingsError(f"There is a view {shown(name)} already: --replace replaces it.")
    try:
        await connection.execute(f"DROP VIEW {quoted(name)}")
    except asyncpg.DependentObjectsStillExistError:
        raise SettingsError(f"Other views are built on {shown(name)}: drop them first.") from None
