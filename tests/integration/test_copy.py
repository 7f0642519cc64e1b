"""``copy``: a topic into one with another number of partitions, killed and whole; what resumes there is complete."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from streams.errors import HeldError, MismatchError, SettingsError
from streams.kafka import ingest_lock, log_end
from streams.kafka.client import admin_client
from streams.kafka.topic import ensure_topic, partition_for, read_from, reader
from streams.kafka.watermarks import read_state
from streams.local.stack import Stack
from streams.maintenance.copy_topic import copy_topic
from streams.messages import DeadLetter, Gap, RepoEnd, Watermark, dead_payload, encode_control
from streams.settings import Settings
from streams.simulator.oracle import State
from tests.acceptance.commands import FAUST, Command, Finished, finish
from tests.acceptance.deployment import Deployment
from tests.conftest import SettingsFactory
from tests.support.patience import PATIENCE_MS

EVENTS = 50_000
Messages = dict[bytes | None, list[tuple[int, bytes]]]


class OneTopic(Deployment):
    """A deployment whose schema may hold the positions of other topics too."""

    async def offsets(self) -> dict[int, int]:
        rows = await self._rows("SELECT partition, next_offset FROM {schema}.sink_offsets WHERE topic = $1", self.topic)
        return {row["partition"]: row["next_offset"] for row in rows}

    def other(self, **names: str) -> OneTopic:
        """The same commands, with other names."""
        made = OneTopic({**self.environment, **names}, self.folder, self.look)
        made.commands = self.commands
        return made

    def start_copy(self, *arguments: str) -> Command:
        return self._start("copy", [*FAUST, "copy", *arguments], BACKFILL_MAX_MEMORY_MB="128")

    async def copy(self, *arguments: str, **settings: str) -> Finished:
        return await finish([*FAUST, "copy", *arguments], {**self.environment, **settings}, self.folder, 120)


@pytest.fixture
async def deployment(settings_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[OneTopic]:
    async with OneTopic.opened(settings_environment, tmp_path) as made:
        yield made


async def by_key(settings: Settings) -> Messages:
    """Partition and value of every message, by key, in order."""
    found: Messages = defaultdict(list)
    info = await ensure_topic(settings)
    async with reader(settings, info.partitions) as (consumer, tps):
        ends = await consumer.end_offsets(tps)
        read_from(consumer, await consumer.beginning_offsets(tps))
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, batch in (await consumer.getmany(timeout_ms=500)).items():
                for message in batch:
                    found[message.key].append((tp.partition, message.value))
    return found


def check_copy(source: Messages, target: Messages, partitions: int) -> None:
    """Every keyed message is where its key belongs, byte for byte, in its order."""
    assert source.keys() == target.keys()
    for key, messages in source.items():
        if key is not None:
            assert {partition for partition, _ in target[key]} == {partition_for(key, partitions)}
            assert [value for _, value in target[key]] == [value for _, value in messages]


def kinds(messages: Messages) -> dict[str, list[int]]:
    """The partitions of the messages without a key, by kind."""
    found = defaultdict(list)
    for partition, value in messages[None]:
        found[orjson.loads(value)["kind"] if value[:1] == b"{" else "foreign"].append(partition)
    return {kind: sorted(where) for kind, where in found.items()}


STRANGE = [
    (None, b"foreign"),
    (b"foreign key", b"foreign value"),
    (b"\xff", b"no text"),
    (None, encode_control(Gap(relay="r", run=1, from_seq=1, to_seq=2, from_time=None, to_time=None, reason="lost"))),
    (None, encode_control(DeadLetter(relay="r", run=1, seq=3, did=None, reason="broken", payload=dead_payload(b"x")))),
    (None, encode_control(RepoEnd(relay="r", run=1, did="did:plc:a", rev="3l", scope="all"))),
]


async def add(settings: Settings, *messages: tuple[bytes | None, bytes], partition: int = 0) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers(), request_timeout_ms=PATIENCE_MS
    ) as producer:
        for key, value in messages:
            await producer.send_and_wait(settings.kafka_topic, value, key=key, partition=partition)


async def kill_a_copy(source: OneTopic, settings: SettingsFactory, partitions: int) -> str:
    """A topic that holds a part of the source: the copy was killed in the middle."""
    for attempt in range(6):
        into = settings(kafka_topic=f"{source.topic}.killed{attempt}", kafka_partitions=partitions)
        info = await ensure_topic(into)
        copy = source.start_copy(into.kafka_topic)
        await copy.line(r"messages; ")
        async with reader(into, partitions) as (consumer, tps):
            while copy.running and not any((await consumer.end_offsets(tps)).values()):  # noqa: ASYNC110 (Kafka)
                await asyncio.sleep(0.005)
        copy.kill()
        state = await read_state(into, info)
        if not state.empty and not state.watermarks:
            return into.kafka_topic
    raise AssertionError("every copy was done before it was killed")


async def test_what_was_copied_goes_on_as_if_it_had_always_been_there(
    deployment: OneTopic, settings: SettingsFactory
) -> None:
    relay, oracle = await deployment.generated(EVENTS)
    ingest = deployment.ingest(relay.url, KAFKA_PARTITIONS="4")
    await deployment.until_in_topic(EVENTS // 2)
    worker = deployment.worker()
    await ingest.stop()
    await deployment.until_applied()
    await worker.stop()
    await add(settings(), *STRANGE)

    # Whole, into more partitions.
    wide = deployment.other(KAFKA_TOPIC=f"{deployment.topic}.wide")
    done = await deployment.copy(wide.topic, "--partitions", "12")
    assert done.code == 0, done.errors
    assert f"Now set KAFKA_TOPIC={wide.topic} " in done.output
    source, target = await by_key(settings()), await by_key(settings(kafka_topic=wide.topic))
    check_copy(source, target, 12)
    assert kinds(target) == {
        "foreign": [0], "gap": [0], "dead_letter": [0], "run": [0], "watermark": list(range(12)),
        "repo_end": [partition_for(b"did:plc:a", 12)],
    }  # fmt: skip
    state = await read_state(settings(kafka_topic=wide.topic), await ensure_topic(settings(kafka_topic=wide.topic)))
    before = await read_state(settings(), await ensure_topic(settings()))
    assert state.lowest is not None and before.lowest is not None
    assert (state.lowest.run, state.lowest.seq) == (before.lowest.run, before.lowest.seq)
    assert state.topic_id not in (None, before.topic_id)
    with pytest.raises(MismatchError, match="holds watermarks"):
        await copied(settings(), wide.topic)

    # Killed in the middle, and again; into fewer partitions.
    narrow = deployment.other(
        KAFKA_TOPIC=await kill_a_copy(deployment, settings, 3), SINK_SCHEMA="fresh", SINK_GROUP="fresh"
    )
    copying = asyncio.create_task(deployment.copy(narrow.topic))

    # The same schema and group go on with the one, new ones with the other.
    await goes_on(wide, relay.url, oracle)
    done = await copying
    assert done.code == 0, done.errors
    assert "unfinished copy" in done.output
    assert "fewer partitions" in done.output
    await goes_on(narrow, relay.url, oracle)


async def goes_on(made: OneTopic, relay: str, oracle: State) -> None:
    """Ingest and worker on a copy: in the end everything is there, and what the copy brought too."""
    ingest, worker = made.ingest(relay), made.worker()
    await made.until_done(ingest)
    await made.check(oracle, oracle["last_seq"] or 0)
    gaps = [row["reason"] for row in await made.table("gaps") if row["topic"] == made.topic]
    assert gaps == ["lost"]
    runs = [row["mode"] for row in await made.table("runs") if row["topic"] == made.topic]
    assert runs == ["start", "resume"]
    dead = [row["reason"] for row in await made.table("dead_letters") if row["topic"] == made.topic]
    assert len(dead) == 4
    await worker.stop()


async def test_a_copy_that_was_killed_between_its_watermarks_is_finished(
    deployment: OneTopic, settings: SettingsFactory
) -> None:
    relay, _ = await deployment.generated(200)
    assert await deployment.ingest(relay.url, KAFKA_PARTITIONS="2").ended() == 0
    into = settings(kafka_topic=f"{deployment.topic}.half", kafka_partitions=3)
    info = await ensure_topic(into)
    mark = (await read_state(settings(), await ensure_topic(settings()))).lowest
    assert mark is not None
    mark.topic_id = "half"
    await add(into, (None, encode_control(mark)))
    said = await copied(settings(), into.kafka_topic)
    assert "finishing it" in said
    state = await read_state(into, info)
    assert state.watermarks == dict.fromkeys(range(3), mark)


async def copied(source: Settings, target: str, partitions: int | None = None) -> str:
    """Copy, in this process; returns what was said."""
    lines: list[str] = []
    await copy_topic(source, target, partitions=partitions, retention_hours=None, tell=lines.append)
    return "\n".join(lines)


async def test_what_retention_takes_from_before_the_copy_is_a_gap(settings: SettingsFactory) -> None:
    made, into = settings(kafka_partitions=2), settings(kafka_topic=f"{settings().kafka_topic}.later")
    await ensure_topic(made)
    mark = Watermark(relay="r", run=1, topic_id="id", seq=50, time=None)
    events = [(f"key{n}".encode(), b'{"kind": "commit"}') for n in range(50)]
    await add(made, *events, (None, encode_control(mark)))
    await add(made, (None, encode_control(mark)), partition=1)

    async def expire() -> None:
        async with admin_client(made) as admin:
            await admin.delete_records({TopicPartition(made.kafka_topic, 0): RecordsToDelete(20)})

    def tell(line: str) -> None:
        if "52 messages" in line:  # it knows the start and has read nothing
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, expire()).result()

    done = await copy_topic(made, into.kafka_topic, partitions=None, retention_hours=None, tell=tell)
    messages = await by_key(into)
    assert done.messages == 31
    assert len(messages) == 31
    gaps = [orjson.loads(value)["reason"] for _, value in messages[None] if b'"gap"' in value]
    assert gaps == [f"{made.kafka_topic}/0 lost the offsets 0 to 19 while it was copied"]


async def marked(made: Settings, events: int) -> None:
    """A topic of one partition with so many events, and its watermark."""
    await ensure_topic(made)
    mark = Watermark(relay="r", run=1, topic_id="id", seq=events, time=None)
    await add(made, *((f"key{n}".encode(), b'{"kind": "commit"}') for n in range(events)), (None, encode_control(mark)))


async def test_a_broker_that_is_silent_for_long_does_not_cut_the_copy_short(
    embedded: Stack, settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is away aiokafka says nothing, and its end_offsets waits for it."""
    monkeypatch.setattr(log_end, "TIMEOUT", 0.5)
    made, into = settings(kafka_partitions=1), settings(kafka_topic=f"{settings().kafka_topic}.whole")
    await marked(made, 50)
    loop = asyncio.get_running_loop()

    def tell(line: str) -> None:
        if "51 messages" in line:  # it knows the end and has read nothing
            embedded.kafka.freeze()
            loop.call_later(4, embedded.kafka.thaw)

    done = await copy_topic(made, into.kafka_topic, partitions=None, retention_hours=None, tell=tell)
    messages = await by_key(into)
    assert done.messages == 50
    assert len(messages.pop(None)) == 1
    assert len(messages) == 50


async def test_a_source_that_loses_its_end_is_no_whole_copy(
    settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_end, "TIMEOUT", 0.5)
    made, into = settings(kafka_partitions=1), settings(kafka_topic=f"{settings().kafka_topic}.cut")
    await marked(made, 5)
    asked = AIOKafkaConsumer.end_offsets
    once = [2]

    async def end_offsets(self: AIOKafkaConsumer, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Once, as the copy begins, it says that there is more."""
        ends = await asked(self, tps)
        if tps[0].topic == made.kafka_topic:
            once[0] -= 1
            return {tp: end + (not once[0]) for tp, end in ends.items()}
        return ends  # type: ignore[no-any-return]

    monkeypatch.setattr(AIOKafkaConsumer, "end_offsets", end_offsets)
    with pytest.raises(MismatchError, match="ended at the offset 7 and ends at 6 now"):
        await copied(made, into.kafka_topic)
    assert not (await read_state(into, await ensure_topic(into))).watermarks


async def test_refusals(deployment: OneTopic, settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_lock, "SESSION", 6.0)
    made, target = settings(), f"{deployment.topic}.target"
    for name in (target, made.kafka_topic, "a topic"):
        with pytest.raises(SettingsError, match="There is no topic" if name == target else "cannot be the target"):
            await copied(made, name)
    await ensure_topic(settings(kafka_partitions=1))
    with pytest.raises(MismatchError, match="no watermark"):
        await copied(made, target)

    relay, _ = await deployment.generated(200)
    ingest = deployment.ingest(relay.url, "--follow")
    await deployment.until_in_topic(200)
    with pytest.raises(HeldError, match=f" pid {ingest.pid} "):
        await copied(made, target)
    await ingest.stop()

    foreign = settings(kafka_topic=f"{deployment.topic}.foreign", kafka_partitions=2)
    await ensure_topic(foreign)
    await add(foreign, (b"key", b"somebody else's"))
    with pytest.raises(MismatchError, match="not ours"):
        await copied(made, foreign.kafka_topic)
    with pytest.raises(MismatchError, match="has 2 partitions"):
        await copied(made, foreign.kafka_topic, 5)


async def test_a_newer_format_is_refused_by_everybody(deployment: OneTopic, settings: SettingsFactory) -> None:
    """A newer format's message need not be readable: its version is."""
    relay, _ = await deployment.generated(50)
    assert await deployment.ingest(relay.url, KAFKA_PARTITIONS="1").ended() == 0
    later = {"kind": "run", "version": 2, "relay": relay.url, "run": 1, "new": True}
    await add(settings(), (None, orjson.dumps(later)))
    with pytest.raises(MismatchError, match="format has version 2"):
        await copied(settings(), f"{deployment.topic}.copy")
    await add(settings(), (None, orjson.dumps({**later, "kind": "watermark"})))
    with pytest.raises(MismatchError, match="format has version 2"):
        await copied(settings(), f"{deployment.topic}.copy")
    commands = [deployment.worker(), deployment.ingest(relay.url)]
    assert await asyncio.gather(*(command.ended() for command in commands)) == [6, 6]
    for command in commands:
        assert "format has version 2" in command.output
        assert "Traceback" not in command.output
