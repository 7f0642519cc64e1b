"""``faust -A streams.agents config``: every setting, its value without secrets, and where it comes from."""

from __future__ import annotations

import click

from streams.commands.options import as_json as json_option
from streams.commands.options import json_lines
from streams.commands.runner import run_command
from streams.settings import Settings, names_of_neighbours, places, read_stack_state
from streams.text import printable
from streams.ui.terminal.config import Shown, shown_settings

_EPILOG = """\b
Examples:
  faust -A streams.agents config show
  faust -A streams.agents config show --json | jq -r 'select(.source != "default") | .name'"""


@click.group("config", epilog=_EPILOG)
def command() -> None:
    """The settings as a process that is started here and now would have them."""


@command.command("show", epilog=_EPILOG)
@json_option
def show(*, as_json: bool) -> None:
    """Every setting, its value, and its source: environment, .env, profile, default or the embedded stack.

    Passwords are not shown. The profile (BACKFILL_PROFILE) presets five settings, and each of them overrides it. Names
    that begin like ours and are another program's stand at the end.
    """

    async def main(settings: Settings) -> None:
        rows = shown_settings(settings, *places(), read_stack_state(settings.local_dir))
        if as_json:
            json_lines({"name": row.name, "value": row.value, "source": row.source} for row in rows)
        else:
            names = max(len(row.name) for row in rows)
            values = min(max(len(_value(row)) for row in rows), 60)
            for row in rows:
                click.echo(f"{row.name:<{names}}  {_value(row):<{values}}  {row.source}")
            if neighbours := names_of_neighbours():
                click.echo(f"Not read, because these are not settings of ours: {', '.join(neighbours)}")

    run_command(main)


def _value(row: Shown) -> str:
    return "-" if row.value is None else printable(row.value, 300)
