"""``faust -A streams.agents replay``: the live schema's positions set back, so that the topic is read again."""

from __future__ import annotations

from collections.abc import Mapping

import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.commands import options
from streams.commands.runner import open_database, refuse_while_workers_run, run_command
from streams.commands.start_at import Resolved, StartAt, resolve
from streams.errors import SettingsError
from streams.kafka.client import broker_error
from streams.kafka.topic import TopicInfo, find_topic, reader
from streams.postgres.positions import Moved, move_back
from streams.settings import Settings

_EPILOG = """\b
Examples:
  faust -A streams.agents replay --from earliest --dry-run
  faust -A streams.agents replay --from 2026-01-31T12:00:00Z
  faust -A streams.agents replay --from 0:1200,1:33
  faust -A streams.agents replay --from earliest --partition 3 --force

\b
Exit codes: 0 done, 2 arguments, 3 Kafka, 4 Postgres, 6 schema, 7 workers run."""


@click.command("replay", epilog=_EPILOG)
@click.option("--from", "start", required=True, type=options.Beginning(), metavar="earliest|TIME|OFFSETS",
              help="TIME: an ISO 8601 time; all events of then or later are read again. OFFSETS: PARTITION:OFFSET,…; "
              "the partitions that are not named stay.")  # fmt: skip
@click.option("--partition", "only", type=click.IntRange(0, 2**31 - 1), multiple=True, metavar="N",
              help="Only this partition; can be given again.")  # fmt: skip
@click.option("--force", is_flag=True, help="Also while workers run: they begin to read again within seconds.")
@click.option("--dry-run", is_flag=True, help="Say what would be set back, and leave it.")
def command(start: StartAt, only: tuple[int, ...], *, force: bool, dry_run: bool) -> None:
    """Have the topic read again into SINK_SCHEMA: after BACKFILL_COLLECTIONS was widened, or rows were damaged.

    Positions go back, never forward, all in one transaction; the workers do the rest. Rows are merged as ever: the
    highest rev wins, so a newer row, a tombstone and a deleted account stay as they are, and what is missing comes. A
    row whose rev is there is not written again: to replace what is in rows, rebuild.

    Every event that is read again is counted again, in received and, where it changed nothing, in skipped. Gaps and
    the cursor stay. What the topic has forgotten cannot be read again: from before its beginning, it begins there.
    """

    async def main(settings: Settings) -> None:
        if only and start.offsets is not None:
            raise SettingsError("--partition goes with earliest or a time: offsets name their partitions themselves.")
        info = await find_topic(settings)
        if info is None:
            raise SettingsError(
                f"There is no topic {settings.kafka_topic}", "set KAFKA_TOPIC to the one to read again."
            )
        async with open_database(settings) as database:
            if not dry_run:
                await refuse_while_workers_run(settings, force=force, why="they would be set back while they write")
            found = await _resolved(settings, info, start)
            moved = await move_back(
                database, settings.kafka_topic, settings.sink_group, _chosen(found.offsets, only, info),
                strict=start.offsets is not None, dry_run=dry_run,
            )  # fmt: skip
        _tell(settings.kafka_topic, found.notes, moved, dry_run=dry_run)

    run_command(main)


async def _resolved(settings: Settings, info: TopicInfo, start: StartAt) -> Resolved:
    async def ask(consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> Resolved:
        return await resolve(consumer, await consumer.beginning_offsets(tps), start, other=False)

    try:
        async with reader(settings, info.partitions) as (consumer, tps):
            return await ask(consumer, tps)
    except KafkaError as error:
        raise broker_error(settings, error) from None


def _chosen(offsets: Mapping[int, int], only: tuple[int, ...], info: TopicInfo) -> dict[int, int]:
    """Return the partitions that are meant. Raises SettingsError for one that is not there."""
    for partition in only:
        if partition not in offsets:
            raise SettingsError(f"--partition {partition}: the topic has 0 to {info.partitions - 1}.")
    return {partition: offset for partition, offset in offsets.items() if not only or partition in only}


def _tell(topic: str, notes: tuple[str, ...], moved: Moved, *, dry_run: bool) -> None:
    for note in notes:
        click.echo(note)
    for partition, (stood, to) in moved.back.items():
        click.echo(f"{topic}/{partition}: from {stood} back to {to}, {stood - to:,} messages")
    if moved.stayed:
        click.echo(f"not ahead of that, so they stay: {', '.join(map(str, moved.stayed))}")
    total = sum(stood - to for stood, to in moved.back.values())
    end = "would be read again (--dry-run)." if dry_run else "are read again by the workers."
    click.echo(f"{total:,} messages of {len(moved.back)} partitions {end}")
