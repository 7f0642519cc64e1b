"""Which rows a command is asked for, and how rows are printed: moments, limits, lines of JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from streams.commands.start_at import StartAt, parse_start
from streams.errors import SettingsError
from streams.text import parse_moment

#: Rows of a list, unless told.
LIMIT = 50


class Moment(click.ParamType):
    """A time as ISO 8601 writes it, in UTC where it names no zone; or a day, its midnight."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:  # noqa: ANN401
        """Return the moment, with its zone. Fails for a text that is not a time."""
        if isinstance(value, dt.datetime):
            return value
        try:
            return parse_moment(value)
        except ValueError:
            self.fail("a time reads 2026-01-31 or 2026-01-31T12:00:00Z", param, ctx)


class Beginning(click.ParamType):
    """Where in the topic to begin: ``earliest``, a time, or offsets by partition."""

    name = "start"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> StartAt:  # noqa: ANN401
        """Return the beginning. Fails for a text that is not one."""
        if isinstance(value, StartAt):
            return value
        try:
            return parse_start(value, dt.datetime.now(dt.UTC))
        except SettingsError as error:
            self.fail(str(error), param, ctx)


since = click.option("--since", type=Moment(), metavar="TIME", help="Written at that time or later.")
before = click.option("--before", type=Moment(), metavar="TIME", help="Written before that time.")
partition = click.option("--partition", type=click.IntRange(0, 2**31 - 1), metavar="N", help="Of this partition.")
limit = click.option("--limit", type=click.IntRange(1, 2**31 - 1), default=LIMIT, show_default=True, metavar="N",
                     help="So many, the newest first.")  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, and nothing else.")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the rows; times as ISO 8601. Nothing but ASCII: what stands in them is strangers'."""
    for row in rows:
        click.echo(json.dumps({name: _plain(value) for name, value in row.items()}))


def more(shown_rows: int, total: int) -> str:
    """Return the line that ends a list."""
    rest = total - shown_rows
    return f"{shown_rows:,} of {total:,}; --limit shows more." if rest > 0 else f"{total:,} in all."


def _plain(value: object) -> object:
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if isinstance(value, dt.datetime) else value
