"""One deployment of the product: its commands on one topic and one schema, and what Kafka and Postgres say of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from streams.simulator.compare import compare
from streams.simulator.oracle import State, load_oracle
from tests.acceptance.commands import INGEST, RELAY, WORKER, Command, free_port
from tests.support.burial import bury
from tests.support.patience import PATIENCE

#: What a person who waits would choose; the relay is at its head when it has said nothing for two seconds.
FAST = {"BACKFILL_PROFILE": "unlimited", "INGEST_IDLE_SECONDS": "2"}
#: So slow that a kill finds work to interrupt.
STEADY = {"BACKFILL_BATCH_SIZE": "600", "BACKFILL_BATCH_DELAY_MS": "40", "BACKFILL_USE_IDLE": "false"}


class Relay(Command):
    """The development relay as a process; ``ready`` first."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        super().__init__(name, [*RELAY, *arguments], {}, folder, start_new_session=True)
        self.facts: dict[str, Any] = {}

    async def ready(self, seconds: float = PATIENCE) -> Relay:
        """Wait until it serves; ``facts`` is what it says of itself."""
        found = await self.line(r'\{"event": "ready".*\}', seconds)
        self.facts = json.loads(found.group())
        return self

    @property
    def url(self) -> str:
        return str(self.facts["url"])


class Deployment:
    """The commands of one deployment, started in one folder, and a look at what they do."""

    def __init__(self, environment: Mapping[str, str], folder: Path, look: asyncpg.Connection[Any]) -> None:
        self.environment = {**environment, **FAST}
        self.folder = folder
        self.look = look
        self.topic = environment["KAFKA_TOPIC"]
        self.schema = environment["SINK_SCHEMA"]
        self.group = environment["SINK_GROUP"]
        self.commands: list[Command] = []

    @classmethod
    @asynccontextmanager
    async def opened(cls, environment: Mapping[str, str], folder: Path) -> AsyncIterator[Self]:
        """A deployment with a connection of its own; its commands end with it."""
        look: asyncpg.Connection[Any] = await asyncpg.connect(environment["DATABASE_URL"])
        made = cls(environment, folder, look)
        try:
            yield made
        finally:
            made.close()
            await look.close()

    # -- commands

    async def relay(self, *arguments: str) -> Relay:
        """A relay of its own, ready."""
        relay = Relay(f"relay{len(self.commands)}", list(arguments), self.folder)
        self.commands.append(relay)
        return await relay.ready()

    async def generated(self, events: int, *arguments: str) -> tuple[Relay, State]:
        """A relay over generated traffic, and its oracle."""
        oracle = self.folder / f"oracle{len(self.commands)}.json"
        relay = await self.relay("--generate", str(events), "--oracle", str(oracle), *arguments)
        return relay, load_oracle(oracle)

    def ingest(self, relay: str, *arguments: str, days: int = -1, **settings: str) -> Command:
        return self._start("ingest", [*INGEST, "--days", str(days), *arguments], RELAY_URL=relay, **settings)

    def worker(self, *arguments: str, **settings: str) -> Command:
        return self._start("worker", [*WORKER, *arguments], **{"WORKER_WEB_PORT": str(free_port()), **settings})

    def _start(self, kind: str, arguments: list[str], **settings: str) -> Command:
        # In a session of its own, as a service manager or a container starts it.
        command = Command(
            f"{kind}{len(self.commands)}", arguments, {**self.environment, **settings}, self.folder,
            start_new_session=True,
        )  # fmt: skip
        self.commands.append(command)
        return command

    @property
    def workers_group(self) -> str:
        """The Kafka group of the workers."""
        return ".".join((self.group, self.topic, self.schema))

    async def bury(self) -> None:
        """Whoever was in our groups was killed, and has left them: nobody waits for the end of its session."""
        for group in (self.workers_group, f"{self.topic}-ingest"):
            await bury(self.environment["KAFKA_BOOTSTRAP_SERVERS"], group)

    def close(self) -> None:
        for command in self.commands:
            command.kill()

    def tails(self) -> str:
        return "\n".join(command.tail() for command in self.commands[-6:])

    # -- Kafka

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
        """A plain consumer at the topic's beginning."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.environment["KAFKA_BOOTSTRAP_SERVERS"])
        await consumer.start()
        try:
            partitions = [TopicPartition(self.topic, p) for p in consumer.partitions_for_topic(self.topic) or ()]
            if not partitions:
                await consumer._client.add_topic(self.topic)
                partitions = [TopicPartition(self.topic, p) for p in consumer.partitions_for_topic(self.topic) or ()]
            if not partitions:
                raise UnknownTopicOrPartitionError(self.topic)
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            yield consumer, partitions
        finally:
            await consumer.stop()

    async def ends(self) -> dict[int, int]:
        """The end of each partition; nothing while there is no topic."""
        try:
            async with self.reader() as (consumer, partitions):
                ends = await consumer.end_offsets(partitions)
                return {tp.partition: end for tp, end in ends.items()}
        except KafkaError:
            return {}

    async def messages(self, most: int = 1_000_000) -> list[dict[str, Any]]:
        """What stands in the topic, each partition in its order: the first ``most`` of each."""
        found: list[dict[str, Any]] = []
        async with self.reader() as (consumer, partitions):
            ends = await consumer.end_offsets(partitions)
            wanted = {tp: min(end, most) for tp, end in ends.items()}
            while any([await consumer.position(tp) < end for tp, end in wanted.items()]):
                batches: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(timeout_ms=1000)
                for tp, batch in batches.items():
                    found.extend(
                        json.loads(m.value) | {"partition": tp.partition, "offset": m.offset}
                        for m in batch
                        if m.offset < wanted[tp]
                    )
        return found

    # -- Postgres

    async def offsets(self) -> dict[int, int]:
        """The next offset of each partition that has a row."""
        rows = await self._rows("SELECT partition, next_offset FROM {schema}.sink_offsets")
        return {row["partition"]: row["next_offset"] for row in rows}

    async def counts(self) -> dict[str, int]:
        """received, applied, skipped and dead of all partitions together."""
        rows = await self._rows(
            "SELECT coalesce(sum(received), 0)::bigint AS received, coalesce(sum(applied), 0)::bigint AS applied, "
            "coalesce(sum(skipped), 0)::bigint AS skipped, coalesce(sum(dead), 0)::bigint AS dead "
            "FROM {schema}.sink_offsets"
        )
        return dict(rows[0]) if rows else dict.fromkeys(("received", "applied", "skipped", "dead"), 0)

    async def received(self) -> int:
        return (await self.counts())["received"]

    async def cursor(self) -> int | None:
        """The seq in this group's row of firehose_cursor."""
        service = "backfill" if self.group == "backfill" else f"backfill:{self.group}"
        rows = await self._rows("SELECT cursor FROM public.firehose_cursor WHERE service = $1", service)
        return int(rows[0]["cursor"]) if rows else None

    async def table(self, name: str) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._rows(f"SELECT * FROM {{schema}}.{name}")]

    async def _rows(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows, none while the table is not there yet."""
        try:
            return await self.look.fetch(statement.format(schema=self.schema), *arguments)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return []

    # -- waiting

    def patiently(self, what: str, seconds: float = PATIENCE) -> Iterator[float]:
        """Poll until the caller leaves the loop; fails with the ends of the logs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            yield 0.1
        raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.tails()}")

    async def until_received(self, events: int, seconds: float = PATIENCE) -> None:
        for pause in self.patiently(f"{events} received", seconds):
            if await self.received() >= events:
                return
            await asyncio.sleep(pause)

    async def until_in_topic(self, messages: int, seconds: float = PATIENCE) -> None:
        for pause in self.patiently(f"{messages} messages in the topic", seconds):
            if sum((await self.ends()).values()) >= messages:
                return
            await asyncio.sleep(pause)

    async def until_applied(self, seconds: float = PATIENCE) -> None:
        """Until the sink stands at the topic's end, in every partition."""
        for pause in self.patiently("the sink at the topic's end", seconds):
            ends = await self.ends()
            if ends and await self.offsets() == ends:
                return
            await asyncio.sleep(pause)

    async def until_done(self, ingest: Command, seconds: float = PATIENCE) -> None:
        """Until the ingest has ended well and the sink has caught up."""
        assert await ingest.ended(seconds) == 0, ingest.tail()
        await self.until_applied(seconds)

    async def until_cursor(self, seq: int, seconds: float = PATIENCE) -> None:
        """The cursor is written about once a second; ``seconds``: for so long it may stand still."""
        stood: int | None = None
        since = time.monotonic()
        while (at := await self.cursor()) != seq:
            if at != stood:
                stood, since = at, time.monotonic()
            assert time.monotonic() - since < seconds, f"the cursor stands at {at}, not at {seq}\n{self.tails()}"
            await asyncio.sleep(0.1)

    # -- what must be true at the end

    async def differences(self, expected: State) -> list[str]:
        # Not by ``look``, whose server may have been restarted.
        connection = await asyncpg.connect(self.environment["DATABASE_URL"])
        try:
            return await compare(connection, self.schema, expected)
        finally:
            await connection.close()

    async def check(self, expected: State, last_seq: int, seconds: float = PATIENCE) -> dict[str, int]:
        """Everything is there, once; positions and counts say so, the cursor in time. Returns the counts."""
        differences = await self.differences(expected)
        assert not differences, "\n".join(differences[:10])
        await self.until_applied(seconds)  # an ingest that follows writes watermarks when it likes
        counts = await self.counts()
        assert counts["received"] == counts["applied"] + counts["skipped"] + counts["dead"]
        await self.until_cursor(last_seq, seconds)
        return counts
