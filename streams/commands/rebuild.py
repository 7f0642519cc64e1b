"""``faust -A streams.agents rebuild``: a fresh schema from the retained topic, compared with the live one, put in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import click
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.commands import options
from streams.commands.runner import run_command
from streams.commands.start_at import StartAt, resolve
from streams.maintenance.rebuild.course import RebuildRequest, Starts, rebuild
from streams.runtime.signals import on_stop_signals
from streams.settings import Settings

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")

_EPILOG = """\b
Examples:
  faust -A streams.agents rebuild --schema rebuilt
  faust -A streams.agents rebuild --schema rebuilt --compare
  faust -A streams.agents rebuild --schema rebuilt --swap
  faust -A streams.agents rebuild --schema rebuilt --seed-from-live --swap
  faust -A streams.agents rebuild --schema lately --from 2026-01-31T12:00:00Z

\b
Workers and the ingest go on meanwhile. A rebuild that is stopped or killed goes
on where it was when it is started again.

\b
Exit codes: 0 done (or stopped by SIGTERM with the position saved), 2 arguments,
3 Kafka, 4 Postgres, 6 rows are missing, or the swap is refused, 7 another rebuild
fills the schema."""


def _schema(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _SCHEMA.fullmatch(value):
        raise click.BadParameter("a schema's name is made of a-z, 0-9 and _, and begins with none of 0-9.")
    return value


def _group(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _GROUP.fullmatch(value):
        raise click.BadParameter("a group's name is made of letters, digits, '.', '_' and '-'.")
    return value


@click.command("rebuild", epilog=_EPILOG)
@click.option("--schema", required=True, callback=_schema, help="The schema that is filled, beside SINK_SCHEMA.")
@click.option("--group", callback=_group, help="The group under which it is filled.  [default: rebuild.SCHEMA]")
@click.option("--from", "start", type=options.Beginning(), default="earliest", metavar="earliest|TIME|OFFSETS",
              show_default=True, help="Where in the topic to begin. TIME: an ISO 8601 time; all events of then or "
              "later are read. OFFSETS: PARTITION:OFFSET,…; others begin at their earliest.")  # fmt: skip
@click.option("--seed-from-live", is_flag=True, help="Begin with a copy of the live records and accounts: for a topic "
              "that begins later than they do. Of a record's versions the highest rev wins; where both have the same, "
              "the copy stays.")  # fmt: skip
@click.option("--compare", is_flag=True, help="Then hold it against the live schema, row by row.")
@click.option("--swap", is_flag=True, help="Then compare, and put it in the live schema's place, in one transaction.")
@click.option("--keep-as", callback=_schema, help="What the live schema is called after the swap.  "
              "[default: SINK_SCHEMA_old_DATE]")  # fmt: skip
def command(
    schema: str,
    group: str | None,
    start: StartAt,
    keep_as: str | None,
    *,
    seed_from_live: bool,
    compare: bool,
    swap: bool,
) -> None:
    """Make SINK_SCHEMA anew from the retained topic, beside it, in the schema --schema.

    It is filled up to where the live schema is (without --compare and --swap: to the topic's end as it is now), under
    the settings of BACKFILL_COLLECTIONS and of the throttle.

    The comparison is made in one snapshot, in which both stand at the same offsets: workers wait for a moment while it
    is taken. It fails where rows are missing that the live schema has and the topic should hold.

    With --from it begins later than the topic does, when the schema is made: a rebuild that goes on is where it is.

    The swap is refused where rows are missing, where the rebuild begins later than the live rows do (unless it has them
    from --seed-from-live), and where something would be left with the old rows: what is outside the
    live schema and bound to its tables (views, foreign keys, functions), what is in it and not made by this program.
    Indexes, views made by `views create`, filled aggregates, rights and owners are taken over. Workers wait for a
    moment, and go on in the new schema by themselves.
    """

    async def main(settings: Settings) -> None:
        starts = None if start == StartAt() else _starts(start)
        wanted = RebuildRequest(schema, group, starts, seed_from_live, compare, swap, keep_as)
        await rebuild(settings, wanted, _tell, on_stop_signals)

    run_command(main)


def _starts(start: StartAt) -> Starts:
    async def starts(consumer: AIOKafkaConsumer, log_starts: Mapping[TopicPartition, int]) -> dict[int, int]:
        found = await resolve(consumer, log_starts, start)
        for note in found.notes:
            _tell(note)
        return found.offsets

    return starts


def _tell(line: str) -> None:
    click.echo(f"[REBUILD] {line}")
