"""``faust -A streams.agents gaps``: what is not covered, and why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import click

from streams.commands import options
from streams.commands.runner import open_database, run_command
from streams.messages import GapKind
from streams.settings import Settings
from streams.text import format_time, printable

_EPILOG = """\b
Examples:
  faust -A streams.agents gaps list
  faust -A streams.agents gaps list --kind topic --since 2026-01-31
  faust -A streams.agents gaps list --json"""


@click.group("gaps", epilog=_EPILOG)
def command() -> None:
    """List the ranges that the topic lacks of the relay's sequence, and this schema of the topic's offsets."""


@command.command("list")
@click.option("--kind", type=click.Choice(("relay", "topic")),
              help="relay: the topic lacks what the relay had; topic: we lack what the topic had.")  # fmt: skip
@options.partition
@options.since
@options.before
@options.limit
@options.as_json
def list_gaps(
    kind: str | None,
    partition: int | None,
    since: dt.datetime | None,
    before: dt.datetime | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List the gaps, the newest first, and their total."""

    async def main(settings: Settings) -> None:
        which = (settings.kafka_topic, kind, partition, since, before)
        async with open_database(settings) as database:
            gaps = [_with_kind(dict(row)) for row in await database.fetch("list_gaps", *which, limit)]
            sums = [dict(row) for row in await database.fetch("total_of_gaps", *which)]
        if as_json:
            options.json_lines(gaps)
            return
        for gap in gaps:
            click.echo(_line(gap))
        click.echo(options.more(len(gaps), sum(row["count"] for row in sums)))
        for row in sums:
            click.echo(_total(row))

    run_command(main)


def _with_kind(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "relay" if row["to_offset"] is None else "topic", **row}


def _line(gap: Mapping[str, Any]) -> str:
    if gap["kind"] == "topic":
        where = f"offsets {gap['offset']} to {gap['to_offset'] - 1}"
    else:
        seqs = f"seq {_number(gap['from_seq'])} to {_number(gap['to_seq'])}"
        times = f"{format_time(gap['from_time'])} to {format_time(gap['to_time'])}"
        where = f"{seqs}, {times}, of {printable(gap['relay'] or '-', 60)}"
    at, cause = f"{gap['partition']}/{gap['offset']}", printable(gap["gap_kind"] or GapKind.OTHER, 40)
    return (
        f"{format_time(gap['created_at'])}  {gap['kind']} {at:12}  {cause:14}  {where}: {printable(gap['reason'], 200)}"
    )


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _total(row: Mapping[str, Any]) -> str:
    if row["of_topic"]:
        return f"topic: {row['count']:,}, {row['offsets']:,} offsets"
    unknown = f" and {row['unknown']:,} of unknown length" if row["unknown"] else ""
    return f"relay: {row['count']:,}, {row['seqs']:,} seqs at most{unknown}"
