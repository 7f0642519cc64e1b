"""``faust -A streams.agents copy``: the topic into a new one with another number of partitions."""

from __future__ import annotations

import click

from streams.commands.runner import run_command
from streams.maintenance.copy_topic import copy_topic
from streams.settings import MOST_DAYS, Settings
from streams.text import format_iso

_EPILOG = """\b
Examples:
  faust -A streams.agents copy firehose.wide --partitions 32
  KAFKA_TOPIC=old faust -A streams.agents copy new --retention-hours 720

\b
Afterwards set KAFKA_TOPIC to the new topic, for the ingest and for the workers.
The same SINK_SCHEMA and SINK_GROUP may go on (all of it is read again, and
skipped), or new ones. Then delete the old topic.

\b
Exit codes: 0 copied, 2 arguments, 3 Kafka, 6 the target is written already,
7 an ingest holds the topic, 8 it does not fit on the disk."""


@click.command("copy", epilog=_EPILOG)
@click.argument("target_topic")
@click.option("--partitions", type=click.IntRange(1, 1000), help="Partitions of the new topic.  [default: "
              "KAFKA_PARTITIONS if it is set, else as many as now]")  # fmt: skip
@click.option("--retention-hours", type=click.IntRange(-1, 24 * MOST_DAYS), help="Hours that the new topic keeps "
              "events, counted from the copy; -1 is for ever.  [default: as the old topic]")  # fmt: skip
def command(target_topic: str, partitions: int | None, retention_hours: int | None) -> None:
    """Copy KAFKA_TOPIC into TARGET_TOPIC, each event to the partition that its DID has there.

    A topic's number of partitions never changes, because it decides where a DID is: growth is a new topic. Stop the
    ingest first; workers may go on. A copy that is killed is started again: what is then there twice is skipped by the
    workers. Only a whole copy gets watermarks, from which the ingest resumes.

    Messages get new offsets: those in dead_letters and gaps are of the old topic, and a message that could not become
    a row is a dead letter of the new topic again.
    """

    async def main(settings: Settings) -> None:
        copied = await copy_topic(
            settings, target_topic, partitions=partitions, retention_hours=retention_hours, tell=_tell
        )
        rate = copied.messages / copied.seconds if copied.seconds else 0
        _tell(f"done: {copied.messages:,} messages in {copied.seconds:,.0f} s ({rate:,.0f}/s).")
        _tell(f"The ingest goes on after seq {copied.mark.seq} ({format_iso(copied.mark.time)}).")
        _tell(f"Now set KAFKA_TOPIC={copied.target.name} for the ingest and for the workers, and start them again.")

    run_command(main)


def _tell(line: str) -> None:
    click.echo(f"[COPY] {line}")
