"""``faust -A streams.agents cursor``: the rows of firehose_cursor, what ours is made of, and setting it by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import click
from aiokafka.errors import KafkaError

from streams.commands.runner import open_database, refuse_while_workers_run, run_command
from streams.errors import MismatchError
from streams.kafka.client import broker_error
from streams.kafka.topic import find_topic, reader
from streams.postgres.positions import CursorRow, PartitionPosition, cursors, lowest, set_cursor, sink_positions
from streams.settings import Settings
from streams.text import format_time, printable

_EPILOG = """\b
Examples:
  faust -A streams.agents cursor show
  faust -A streams.agents cursor set 1234567"""


@click.group("cursor", epilog=_EPILOG)
def command() -> None:
    """The row in firehose_cursor: the relay's seq up to which everything is in Postgres, for whoever reads it."""


@command.command("show")
def show() -> None:
    """All rows of firehose_cursor (* is ours), and of each partition: position, lag, last watermark.

    Our row is the lowest of the watermarks, written while a worker runs.
    The sink goes on from the offsets, not from it.
    """

    async def main(settings: Settings) -> None:
        ends = await _ends(settings)
        async with open_database(settings) as database:
            rows = await cursors(database)
            held = await sink_positions(database, settings.kafka_topic, settings.sink_group)
        for row in rows:
            click.echo(_row(row, ours=row.service == settings.cursor_service))
        if settings.cursor_service not in {row.service for row in rows}:
            click.echo(f"* {printable(settings.cursor_service, 60)}: no row yet")
        for partition in sorted({*held, *ends}):
            click.echo(_partition(settings.kafka_topic, partition, held.get(partition), ends.get(partition)))
        click.echo(_source(held, len(ends) or len(held)))

    run_command(main)


@command.command("set")
@click.argument("seq", type=click.IntRange(0, 2**53))
@click.option("--force", is_flag=True, help="Also while workers run, and also ahead of what is applied.")
def set_row(seq: int, *, force: bool) -> None:
    """Have our row in firehose_cursor say SEQ, a number in the relay's sequence.

    Who reads it: the existing service, which goes on from there; and our ingest, only where the topic was written and
    holds no watermark any more. It moves nothing else: our ingest goes on from the topic's watermarks (ingest --restart
    or --from-time begins elsewhere), the sink from its offsets (replay). A worker that starts writes the row anew, from
    what is applied, as soon as that is not lower.
    """

    async def main(settings: Settings) -> None:
        ends = await _ends(settings)
        async with open_database(settings) as database:
            await refuse_while_workers_run(settings, force=force, why="they write the row every second")
            held = await sink_positions(database, settings.kafka_topic, settings.sink_group)
            low = lowest(held, len(ends) or len(held))
            if low is not None and low[1].seq is not None and seq > low[1].seq and not force:
                raise MismatchError(
                    f"Only what is up to {low[1].seq} is in Postgres, and {seq} would say more: whoever goes on from "
                    "there would leave out what lies between.",
                    "Give --force if that is meant.",
                )
            before = {row.service: row.cursor for row in await cursors(database)}.get(settings.cursor_service)
            await set_cursor(database, settings.cursor_service, seq)
        was = "there was no row" if before is None else f"it was {printable(before, 40)}"
        click.echo(f"{printable(settings.cursor_service, 60)}: {seq} ({was}).")

    run_command(main)


async def _ends(settings: Settings) -> dict[int, int]:
    """The end of each partition; none where there is no topic. Raises BrokerError."""
    info = await find_topic(settings)
    if info is None:
        return {}
    try:
        async with reader(settings, info.partitions) as (consumer, tps):
            return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}
    except KafkaError as error:
        raise broker_error(settings, error) from None


def _utc(moment: dt.datetime | None) -> str:
    return format_time(None if moment is None else moment.replace(tzinfo=dt.UTC))


def _row(row: CursorRow, *, ours: bool) -> str:
    mark, cursor = "*" if ours else " ", "-" if row.cursor is None else printable(row.cursor, 40)
    return f"{mark} {printable(row.service, 60)}: {cursor}, of {_utc(row.time)}, written {_utc(row.updated_at)}"


def _partition(topic: str, partition: int, held: PartitionPosition | None, end: int | None) -> str:
    name = f"{topic}/{partition}"
    if held is None:
        return f"{name}: nothing read yet, the topic ends at {end}"
    lag = "the topic has no such partition" if end is None else f"of {end}, {max(end - held.next_offset, 0):,} behind"
    mark = (
        "no watermark yet" if held.seq is None else f"watermark {held.seq} of {format_time(held.time)}, run {held.run}"
    )
    return f"{name}: at {held.next_offset} {lag}; {mark}"


def _source(held: Mapping[int, PartitionPosition], partitions: int) -> str:
    low = lowest(held, partitions) if partitions else None
    if low is None:
        return "No common position: not every partition has a watermark of the same run, so the row is not written."
    partition, row = low
    return f"The cursor is the lowest watermark: {row.seq}, that of partition {partition}."
