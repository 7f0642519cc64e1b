"""A consumer of the topic with a group of its own, in plain aiokafka: a bot, a notifier, a moderation queue.

    python examples/consume.py                                     new posts, from now on, until Ctrl-C
    python examples/consume.py --group my-bot --from-beginning     all that the topic keeps, then what comes
    python examples/consume.py --collection app.bsky.graph.follow --count 100 --json

Started again it goes on where its group stopped. Several with one group share the partitions; another group reads
everything for itself, and the product's own worker is never disturbed. The same without Python:

    kcat -b localhost:9092 -t firehose.events -C -q -o beginning -e -f '%k %s\\n'
    kcat -b localhost:9092 -G my-bot firehose.events

Settings: KAFKA_BOOTSTRAP_SERVERS (without it the embedded broker), KAFKA_TOPIC, and those for SASL and TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from streams.errors import SettingsError, StreamsError
from streams.kafka.client import kafka_client_options
from streams.settings import load_settings

Event = dict[str, Any]


def event_of(message: ConsumerRecord) -> Event | None:
    """The event in a message; None for what is none."""
    if message.key is None:  # a control message: watermarks and the like, for the product's own worker
        return None
    try:
        event = json.loads(message.value)
    except (TypeError, ValueError):
        return None  # a foreign producer's
    return event if isinstance(event, dict) else None


def wanted(event: Event, collection: str) -> bool:
    """Whether it is a record of that collection. Kinds that do not exist yet pass by unharmed: they have no commit."""
    if collection == "*":
        return True
    commit = event.get("commit")
    return isinstance(commit, dict) and commit.get("collection") == collection


class Printer:
    """What this consumer does with an event. Yours writes to a queue, calls an API, counts."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.counts: Counter[str] = Counter()

    def process(self, event: Event) -> None:
        """Take one event. It may come a second time after a crash: make what you do repeatable."""
        commit: Event = event.get("commit") or {}
        operation = str(commit.get("operation") or event.get("kind"))
        self.counts[operation] += 1
        if self.as_json:
            print(json.dumps(event))
        elif operation == "create":
            text = (commit.get("record") or {}).get("text", "")
            print(f"{event.get('did')} {commit.get('rkey')} {printable(str(text))[:100]}")

    def flush(self) -> None:
        """Called before the position is committed: after it, nothing of what was taken may be lost."""
        sys.stdout.flush()


def printable(text: str) -> str:
    """A stranger's text on one line of a terminal: what would move the cursor, colour or reorder it is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


async def consume(printer: Printer, group: str, collection: str, *, from_beginning: bool, count: int | None) -> None:
    """Read, process, commit, again; ends after ``count`` events, or when it is cancelled."""
    settings = load_settings()
    consumer = AIOKafkaConsumer(
        **kafka_client_options(settings),
        group_id=group,
        enable_auto_commit=False,  # it would commit what has been fetched, processed or not
        auto_offset_reset="earliest" if from_beginning else "latest",  # only where the group has no position yet
    )
    await consumer.start()
    try:
        if settings.kafka_topic not in await consumer.topics():
            raise SettingsError(
                f"There is no topic {settings.kafka_topic}", "set KAFKA_TOPIC, or make one with `make demo`."
            )
        consumer.subscribe([settings.kafka_topic])
        taken, placed = 0, set[TopicPartition]()
        while count is None or taken < count:
            done = {}
            for partition in consumer.assignment() - placed:
                placed.add(partition)
                with contextlib.suppress(IllegalStateError):  # it has just gone to another of the group
                    if await consumer.committed(partition) is None:  # else what comes while we are away is passed over
                        done[partition] = await consumer.position(partition)
            for partition, messages in (await consumer.getmany(timeout_ms=1000, max_records=500)).items():
                for message in messages:
                    if taken == count:
                        break
                    event = event_of(message)
                    if event is not None and wanted(event, collection):
                        printer.process(event)
                        taken += 1
                    done[partition] = message.offset + 1
            done = {partition: offset for partition, offset in done.items() if partition in consumer.assignment()}
            if done:
                printer.flush()
                await consumer.commit(done)  # processed first, then committed: nothing is lost, whatever is killed
    finally:
        await consumer.stop()


async def until_stopped(work: asyncio.Task[None]) -> None:
    """Run it until it ends or somebody says stop (Ctrl-C, SIGTERM)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="example", help="consumer group, which keeps the position (default example)")
    parser.add_argument("--from-beginning", action="store_true", help="a new group begins at the topic's beginning")
    parser.add_argument("--collection", default="app.bsky.feed.post", help="which records; '*' is every event")
    parser.add_argument("--count", type=int, help="end after so many events")
    parser.add_argument("--json", action="store_true", help="print whole events, one a line")
    arguments = parser.parse_args()
    printer = Printer(as_json=arguments.json)

    async def run() -> None:
        work = consume(
            printer, arguments.group, arguments.collection,
            from_beginning=arguments.from_beginning, count=arguments.count,
        )  # fmt: skip
        await until_stopped(asyncio.create_task(work))

    try:
        asyncio.run(run())
    except BrokenPipeError:  # `| head` has seen enough; what it did not see is not committed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (StreamsError, KafkaError, OSError) as error:
        sys.exit(str(error) or type(error).__name__)
    print(
        "taken: " + (", ".join(f"{n:,} {what}" for what, n in sorted(printer.counts.items())) or "nothing"),
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
