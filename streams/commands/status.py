"""``faust -A streams.agents status``: how a deployment stands, from wherever its Kafka and Postgres can be reached."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import click
import msgspec
from rich.console import Group
from rich.live import Live
from rich.text import Text

from streams.commands.runner import run_command
from streams.errors import EXIT_TROUBLES, BrokerError, DatabaseError
from streams.runtime.rates import SHORTEST
from streams.runtime.signals import on_stop_signals
from streams.settings import Settings
from streams.status.model import Status
from streams.status.reader import StatusReader, status_reader
from streams.ui.terminal.status_page import console_for, page

#: Seconds between two looks on a terminal, between two blocks elsewhere.
EVERY = 1.0
PLAIN_EVERY = 5.0

_EPILOG = """\b
Examples:
  faust -A streams.agents status
  faust -A streams.agents status --watch
  faust -A streams.agents status --json | jq .lag
  faust -A streams.agents status --check || mail -s "atproto-streams" you@example.com

Exit codes: 0; with --check 9 where anything is wrong; 3 Kafka, 4 Postgres cannot be reached (--watch waits)."""


@click.command("status", epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, and nothing else.")
@click.option("--watch", is_flag=True, help="Again about every second, until Ctrl-C.")
@click.option("--check", is_flag=True, help="Print only what is wrong, and exit with 9 if there is anything.")
def command(*, as_json: bool, watch: bool, check: bool) -> None:
    """Show what is covered, how far each partition is, which process works or waits and why, and what is wrong.

    It reads Kafka and Postgres only, so it says the same on any machine. Rates are of the last seconds. Rows by
    collection are what the workers have sent to Postgres. They are more than the rows in its tables: each change of a
    record counts (several in one transaction once), and so does what is read again. Counts from just before a worker
    stopped may be missing.
    """
    if check and watch:
        raise click.UsageError("--check looks once: without --watch.")

    async def main(settings: Settings) -> int:
        async with status_reader(settings) as reader:
            if watch:
                return await _until_stopped(_watch_json(reader) if as_json else _watch(reader))
            status = await _once(reader)
        if as_json:
            click.echo(_json(status))
        elif check:
            click.echo("\n".join(status.troubles) or "No trouble.")
        else:
            console_for(sys.stdout.isatty()).print(page(status))
        return EXIT_TROUBLES if check and status.troubles else 0

    run_command(main)


async def _until_stopped(watching: Coroutine[Any, Any, None]) -> int:
    """Run until SIGTERM or Ctrl-C, and leave the terminal as it was."""
    task = asyncio.create_task(watching)
    on_stop_signals(task.cancel)
    with suppress(asyncio.CancelledError):
        await task
    return 0


async def _once(reader: StatusReader) -> Status:
    """Read twice, as soon after each other as there are rates: they are differences."""
    await reader.gather()
    await asyncio.sleep(SHORTEST)
    return await reader.gather()


async def _watch(reader: StatusReader) -> None:
    """Show the status until Ctrl-C. Kafka or Postgres that is away is waited for."""
    console = console_for(sys.stdout.isatty())
    if not console.is_terminal:
        while True:
            shown = await _seen(reader)
            console.print(Text(shown) if isinstance(shown, str) else page(shown))
            console.print()
            await asyncio.sleep(PLAIN_EVERY)
    last: Status | None = None
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while True:
            begun = time.monotonic()
            shown = await _seen(reader)
            last = last if isinstance(shown, str) else shown
            parts: list[Any] = [Text(f"! {shown}", style="bold red")] if isinstance(shown, str) else []
            live.update(Group(*parts, *([page(last)] if last else [])), refresh=True)
            await asyncio.sleep(max(0.1, EVERY - (time.monotonic() - begun)))


async def _watch_json(reader: StatusReader) -> None:
    """Print the status as an object a line; what is away is a line with ``error``."""
    while True:
        seen = await _seen(reader)
        click.echo(json.dumps({"error": seen}) if isinstance(seen, str) else _json(seen))
        await asyncio.sleep(EVERY)


async def _seen(reader: StatusReader) -> Status | str:
    try:
        return await reader.gather()
    except (BrokerError, DatabaseError) as error:
        return f"{error} Waiting for it."


def _json(status: Status) -> str:
    """Return JSON of nothing but ASCII: it holds text of strangers."""
    return json.dumps(msgspec.to_builtins(status))
