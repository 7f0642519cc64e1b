"""``faust -A streams.agents indexes``: build, drop and show the indexes that come after the load."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import click

from streams.commands.runner import open_database, run_command
from streams.postgres.database import Database
from streams.postgres.indexes import PROFILES, Index, IndexState, Watch, create, drop, of_profile, states
from streams.settings import Settings

#: Seconds between two looks at a build.
LOOK_EVERY = 1.0
#: Looks after which it is said, where there is no terminal, whose transaction a build waits for.
TELL_AFTER = 10

_EPILOG = """\b
Examples:
  faust -A streams.agents indexes create --profile appview
  faust -A streams.agents indexes status
  faust -A streams.agents indexes drop --profile analytics

\b
Build them after the backfill: each costs something with every record that is written. They are built CONCURRENTLY:
workers go on meanwhile. A build that is interrupted is removed and begun again by the next `create`."""

_profile = click.option("--profile", type=click.Choice(PROFILES), help="Only the indexes of this profile.")


@click.group("indexes", epilog=_EPILOG)
def command() -> None:
    """The optional indexes under the typed views: create, drop, status.

    \b
    appview    a profile's posts, a post's likes, replies and thread, followers, lists, handles
    analytics  records by their time; posts by tag, language and words
    """


@command.command("create")
@_profile
def create_indexes(profile: str | None) -> None:
    """Build what is missing, one after the other, while others read and write."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            for state in await states(database, of_profile(profile)):
                if state.state == "ready":
                    click.echo(f"{state.index.name}: ready")
                    continue
                seconds = await create(database, state.index, _watcher(database))
                [now] = await states(database, (state.index,))
                click.echo(f"{now.index.name}: {now.state}, {size(now.size)}, {seconds:.1f} s ({now.index.answers})")

    run_command(main)


@command.command("drop")
@_profile
def drop_indexes(profile: str | None) -> None:
    """Drop them, while others read and write. Only these: indexes of your own stay."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            for index in of_profile(profile):
                if await drop(database, index):
                    click.echo(f"{index.name}: dropped")

    run_command(main)


@command.command("status")
@_profile
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(profile: str | None, *, as_json: bool) -> None:
    """Show each index: missing, building, invalid (an interrupted build) or ready; and its size."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            found = await states(database, of_profile(profile))
        if as_json:
            click.echo(json.dumps([_as_json(state) for state in found]))
            return
        for state in found:
            line = f"{state.index.name:22}{state.state + percent(state):14}{size(state.size):>9}  {state.index.answers}"
            click.echo(f"{line}{waiting(state)}")

    run_command(main)


def size(number: int) -> str:
    """Return a size for people."""
    return f"{number / 1_048_576:.1f} MB"


def percent(state: IndexState) -> str:
    """Return how far a build is, where that is known."""
    return "" if state.percent is None else f" {state.percent:.0f} %"


def waiting(state: IndexState) -> str:
    """Return whose transaction a build waits for, if it waits."""
    return "" if state.waits_for is None else f" (waits for the transaction of pid {state.waits_for} to end)"


def _as_json(state: IndexState) -> dict[str, object]:
    return {
        "name": state.index.name, "profiles": state.index.profiles, "table": state.index.table, "state": state.state,
        "percent": state.percent, "waits_for": state.waits_for, "bytes": state.size, "answers": state.index.answers,
    }  # fmt: skip


def _watcher(database: Database) -> Watch:
    """Shows how far a build is, on a terminal, where the line can be written again; elsewhere only a long wait."""

    async def watch(build: Awaitable[Any], index: Index) -> None:
        work = asyncio.ensure_future(build)
        waits: Counter[int | None] = Counter()
        try:
            while not (await asyncio.wait({work}, timeout=LOOK_EVERY))[0]:
                [now] = await states(database, (index,))
                waits[now.waits_for] += 1
                line = f"{index.name}: building{percent(now)}{waiting(now)}"
                if sys.stdout.isatty():
                    click.echo(f"\r\x1b[K{line}", nl=False)
                elif now.waits_for is not None and waits[now.waits_for] == TELL_AFTER:
                    click.echo(line)
        finally:
            if sys.stdout.isatty():
                click.echo("\r\x1b[K", nl=False)
            work.cancel()
        work.result()

    return watch
