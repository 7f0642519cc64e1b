"""``faust -A streams.agents views``: a typed view of any lexicon, beside those of app.bsky."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Final

import asyncpg
import click

from streams.commands.runner import open_database, run_command
from streams.errors import SettingsError
from streams.postgres.database import Connection
from streams.postgres.lexicon_files import Given, read_lexicons
from streams.postgres.lexicon_views import View, create_view, make_view, view_names
from streams.postgres.lexicons import LexiconError
from streams.postgres.queries import query
from streams.postgres.sql_text import literal, quoted
from streams.settings import Settings
from streams.text import printable

#: How the comment of a view that this command made begins, before its NSID and a colon: only those may be replaced or
#: dropped, and only by their own lexicon.
MARK: Final = "made by `views create`: "
_FOREIGN: Final = "{} was not made by this command: give another --name."

_EPILOG = """\b
Examples:
  faust -A streams.agents views list
  faust -A streams.agents views create com.whtwnd.blog.entry.json
  faust -A streams.agents views create pub.leaflet.document.json pub.leaflet.defs.json --name articles
  faust -A streams.agents views create lexicons/
  faust -A streams.agents views show pub.leaflet.document.json
  faust -A streams.agents views drop articles

\b
Each lexicon of a record among the files becomes a view; a folder stands for all *.json beneath it. What a record's
lexicon refers to is looked for in the others, and in those that ship with this program; where a definition is not
there, the column is the value as it stands (jsonb). A view's name is the last two parts of the lexicon's name
(blog_entry), or more of them where another view has that name, unless you give one. A value of the wrong type is NULL.
The lexicon's descriptions become the columns' comments."""


@click.group("views", epilog=_EPILOG)
def command() -> None:
    """Typed views over the records: list them, or make one from a lexicon file."""


_paths = click.argument("paths", metavar="LEXICON...", nargs=-1, required=True, type=click.Path(path_type=Path))


@command.command()
@_paths
@click.option("--name", help="The view's name.")
@click.option("--replace", is_flag=True, help="Replace the view of this lexicon, if it was made by this command.")
def create(paths: tuple[Path, ...], name: str | None, *, replace: bool) -> None:
    """Make a view of each LEXICON of a record: files of JSON, and folders of them."""

    async def main(settings: Settings) -> None:
        given = read_lexicons(paths)
        views = _views(given, name)
        made: list[View] = []

        async def call(connection: Connection) -> None:
            made.clear()
            async with connection.transaction():
                for view in views:
                    names = (view.name,) if name is not None else view_names(view.nsid)
                    free_name = await _claim_name(connection, view.nsid, names, replace=replace)
                    chosen = dataclasses.replace(view, name=free_name)
                    await connection.execute(create_view(chosen))
                    comment = literal(MARK + chosen.comment)
                    await connection.execute(f"COMMENT ON VIEW {quoted(chosen.name)} IS {comment}")
                    made.append(chosen)

        async with open_database(settings) as database:
            await database.run(call)
        for view in made:
            click.echo(_made(view, settings.sink_schema))
        _say_passed_over(given)

    run_command(main)


@command.command()
@_paths
@click.option("--name", help="The view's name.")
def show(paths: tuple[Path, ...], name: str | None) -> None:
    """Print the SQL that `create` would run."""

    async def main(_: Settings) -> None:
        given = read_lexicons(paths)
        for view in _views(given, name):
            click.echo(create_view(view))
        _say_passed_over(given)

    run_command(main)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_views(*, as_json: bool) -> None:
    """The views of the schema, and what each of them shows."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            rows = await database.fetch("views")
        if as_json:
            click.echo(json.dumps([dict(row) for row in rows]))
            return
        width = max((len(printable(row["name"])) for row in rows), default=0)
        for row in rows:
            click.echo(f"{printable(row['name']):{width}}  {printable(row['comment'] or '', 300)}")

    run_command(main)


@command.command()
@click.argument("name")
def drop(name: str) -> None:
    """Drop a view that `create` made."""

    async def main(settings: Settings) -> None:
        async def call(connection: Connection) -> None:
            async with connection.transaction():
                if (await _holder(connection, name)) is None:
                    raise SettingsError(_FOREIGN.format(printable(name)))
                await _drop(connection, name)

        async with open_database(settings) as database:
            if not await database.fetchrow("relation_called", name):
                raise SettingsError(f"There is no view {printable(name)} in the schema {settings.sink_schema}.")
            await database.run(call)
        click.echo(f"dropped {printable(name)}")

    run_command(main)


def _views(given: Given, name: str | None) -> list[View]:
    """Return the views of the lexicons. Raises SettingsError where one gives none, or one name is for several."""
    if name is not None and len(given.records) > 1:
        files = ", ".join(str(path) for path, _ in given.records[:3])
        raise SettingsError(f"--name names one view, and {len(given.records)} lexicons of records are given: {files}.")
    views = []
    for path, lexicon in given.records:
        try:
            views.append(make_view(lexicon, name, given.lexicons))
        except LexiconError as error:
            raise SettingsError(f"{path} gives no view: {error}.") from None
    return views


def _made(view: View, schema: str) -> str:
    line = f"{schema}.{printable(view.name)}: the records of {view.nsid}, {len(view.columns)} columns"
    if not view.unknown:
        return line
    return f"{line}; as they stand, because these definitions are not given: {printable(', '.join(view.unknown), 300)}"


def _say_passed_over(given: Given) -> None:
    """Say which files of a folder gave nothing, if there are some."""
    for why, paths in given.passed_over.items():
        more = f" and {len(paths) - 3:,} more" if len(paths) > 3 else ""
        click.echo(f"Passed over, {why}: {printable(', '.join(map(str, paths[:3])), 300)}{more}.", err=True)


async def _claim_name(connection: Connection, nsid: str, names: tuple[str, ...], *, replace: bool) -> str:
    """Return the name for a lexicon's view: the first that is free, or that of its own view, which is dropped.

    Another lexicon's view, and what this command did not make, stay. Raises SettingsError where no name is free.
    """
    free, taken = [], {}
    for name in names:
        if await connection.fetchrow(query("relation_called"), name) is None:
            free.append(name)
        else:
            taken[name] = await _holder(connection, name)
    own = next((name for name, holder in taken.items() if holder == nsid), None)
    if own is not None:
        if not replace:
            raise SettingsError(f"There is a view {printable(own)} of {nsid} already", "--replace replaces it.")
        await _drop(connection, own)
        return own
    if free:
        return free[0]
    name, holder = next(iter(taken.items()))
    if holder is None:
        raise SettingsError(_FOREIGN.format(printable(name)))
    raise SettingsError(f"{printable(name)} is the view of {printable(holder)}", "give another --name.")


async def _holder(connection: Connection, name: str) -> str | None:
    """Return the lexicon of a view that this command made; None where it did not make it."""
    row = await connection.fetchrow(query("relation_called"), name)
    if row is None or not row["is_view"] or not (row["comment"] or "").startswith(MARK):
        return None
    return str(row["comment"]).removeprefix(MARK).partition(":")[0]


async def _drop(connection: Connection, name: str) -> None:
    """Drop a view. Raises SettingsError where others are built on it."""
    try:
        await connection.execute(f"DROP VIEW {quoted(name)}")
    except asyncpg.DependentObjectsStillExistError:
        raise SettingsError(f"Other views are built on {printable(name)}", "drop them first.") from None
