"""Topics that somebody else made: forty of them, each good or a sentence with the command that mends it.

And records that a topic cannot hold, which become dead letters while all others arrive in order.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAuthorizationFailedError

from streams.errors import BrokerError, MismatchError
from streams.ingestion.session import IngestSession, Options
from streams.kafka import topic_limits
from streams.kafka.client import admin_client
from streams.kafka.publisher import Publisher
from streams.kafka.retention import _set_configs
from streams.kafka.topic import TopicInfo, ensure_topic, find_topic, read_from, reader
from streams.kafka.topic_limits import check_limits
from streams.messages import StreamPosition, Watermark
from streams.settings import Settings
from streams.simulator.oracle import Oracle
from streams.simulator.relay import DevRelay, RelayThread
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Traffic
from streams.sources.firehose.plan import Request
from tests.conftest import SettingsFactory

STAMPED = {"message.timestamp.type": "LogAppendTime"}
#: What each topic has besides the broker's defaults.
WORK: list[dict[str, str]] = [
    {}, STAMPED, {"retention.ms": "-1"}, {"retention.ms": "604800000"}, {"retention.ms": "600000"},
    {"retention.ms": "86399999"}, {"retention.bytes": "1"}, {"retention.bytes": "1073741824"},
    {"max.message.bytes": "1048588"}, {"max.message.bytes": "65536"}, {"max.message.bytes": "8388607"},
    {"max.message.bytes": "104857600"}, {"segment.bytes": "1048576"}, {"segment.ms": "60000"},
    {"compression.type": "gzip"}, {"compression.type": "lz4"}, {"compression.type": "snappy"},
    {"compression.type": "zstd"}, {"compression.type": "uncompressed"}, {"min.insync.replicas": "1"},
    {"message.timestamp.after.max.ms": "60000"}, {"message.timestamp.before.max.ms": "60000"},
    {**STAMPED, "message.timestamp.before.max.ms": "1"}, {"unclean.leader.election.enable": "true"},
    {"flush.messages": "1"}, {"delete.retention.ms": "0"}, {"max.compaction.lag.ms": "1"},
    {"index.interval.bytes": "1"}, {"preallocate": "false"}, {"file.delete.delay.ms": "0"},
]  # fmt: skip
FAIL: list[dict[str, str]] = [
    {"cleanup.policy": "compact"}, {"cleanup.policy": "compact,delete"}, {"max.message.bytes": "65535"},
    {"max.message.bytes": "0"}, {"retention.ms": "0"}, {"retention.ms": "599999"}, {"min.insync.replicas": "2"},
    {"min.insync.replicas": "3", "cleanup.policy": "compact"}, {"message.timestamp.before.max.ms": "0"},
    {"message.timestamp.after.max.ms": "59999"}, {"message.timestamp.before.max.ms": "59999"},
    {"cleanup.policy": "compact", "max.message.bytes": "1000", "retention.ms": "1"},
]  # fmt: skip


async def test_forty_topics(settings: SettingsFactory) -> None:
    made = settings()
    cases = [(f"{made.kafka_topic}.{n}", configs) for n, configs in enumerate([*WORK, *FAIL])]
    assert len(cases) >= 40
    async with admin_client(made) as admin:
        response = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=c) for name, c in cases])
        assert [code for _, code, *_ in response.topic_errors] == [0] * len(cases)
    for name, configs in cases:
        info = TopicInfo(name, 1, 1)
        if configs in WORK:
            assert await check_limits(made, info) >= 65536, configs
            continue
        with pytest.raises(MismatchError) as refusal:
            await check_limits(made, info)
        sentence, _, mend = str(refusal.value).partition(" Mend it: ")
        assert sentence.startswith(f"The topic {name} cannot be used as it is: "), configs
        assert "\n" not in str(refusal.value)
        changes = dict(change.split("=") for change in mend.rpartition("--add-config ")[2].split(","))
        async with admin_client(made) as admin:
            await _set_configs(admin, name, {**configs, **changes})  # what the command does
        await mended(made, info)


async def mended(made: Settings, info: TopicInfo) -> None:
    """Until the broker has the topic's new settings."""
    async with asyncio.timeout(30):
        while True:
            try:
                await check_limits(made, info)
                return
            except MismatchError:
                await asyncio.sleep(0.1)


async def test_a_topic_whose_settings_we_may_not_see(
    settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = settings()
    info = await ensure_topic(made)

    async def refused(*_: object) -> dict[str, str]:
        raise TopicAuthorizationFailedError(info.name)

    monkeypatch.setattr(topic_limits, "effective_configs", refused)
    with caplog.at_level("INFO"):
        assert await check_limits(made, info) == topic_limits.MAX_MESSAGE_BYTES
    assert "the topic's settings cannot be read (TopicAuthorizationFailedError)" in caplog.text


# -- a record that the topic cannot hold

LIMIT = 70_000


def event(seq: int, size: int = 0) -> bytes:
    commit = {"rev": "3k", "operation": "create", "collection": "a.b.c", "rkey": str(seq), "record": {"n": "x"}}
    body = {"did": "did:plc:a", "time_us": 1, "kind": "commit", "seq": seq, "commit": commit}
    return orjson.dumps({**body, "noise": os.urandom(size // 2).hex()})


@asynccontextmanager
async def careful(made: Settings, buried: list[None], reached: list[int]) -> AsyncIterator[Publisher]:
    """A publisher that knows of no limit; ``reached``: the seqs that were added."""
    async with admin_client(made) as admin:
        configs = {**STAMPED, "max.message.bytes": str(LIMIT)}
        await admin.create_topics([NewTopic(made.kafka_topic, 2, 1, topic_configs=configs)])
    info = await ensure_topic(made)
    publisher = Publisher(
        made, info, budget=1 << 24, on_change=lambda: None, takes=8 << 20, on_buried=lambda: buried.append(None)
    )
    await publisher.start()
    publisher.begin_run(
        lambda at: Watermark(relay="r", run=1, topic_id="t", seq=at.seq, time=None),
        lambda: StreamPosition(reached[-1], None),
    )
    try:
        yield publisher
    finally:
        await publisher.stop()


async def messages(made: Settings) -> list[tuple[int, Any]]:
    """Every message, as (partition, value), in order within a partition."""
    info = await find_topic(made)
    assert info is not None
    found: list[tuple[int, Any]] = []
    async with reader(made, info.partitions) as (consumer, tps):
        ends = await consumer.end_offsets(tps)
        read_from(consumer, await consumer.beginning_offsets(tps))
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, batch in (await consumer.getmany(timeout_ms=500)).items():
                found += [(tp.partition, orjson.loads(message.value)) for message in batch]
    return found


@pytest.mark.parametrize(
    "large",
    [{7}, {1}, {40}, {1, 2, 3}, {20, 40}, set(range(1, 41)), {5, 6, 21, 22, 39}],
    ids=["one", "the first", "the last", "three", "two", "all", "five"],
)
async def test_a_record_that_the_topic_cannot_hold_is_a_letter_and_the_others_stay_in_order(
    settings: SettingsFactory, large: set[int]
) -> None:
    made, buried, reached = settings(), list[None](), [0]
    async with careful(made, buried, reached) as publisher:
        for seq in range(1, 41):  # one batch, or a few
            publisher.add("did:plc:a", [event(seq, 4 * LIMIT if seq in large else 3000)])
            reached.append(seq)
        async with asyncio.timeout(60):
            await publisher.drain()
        assert publisher.unacknowledged == 0
        assert publisher.durable == StreamPosition(40, None)
    found = await messages(made)
    events = [value["seq"] for _, value in found if value["kind"] == "commit"]
    letters = [(partition, value) for partition, value in found if value["kind"] == "dead_letter"]
    assert events == [seq for seq in range(1, 41) if seq not in large]
    assert sorted(letter["seq"] for _, letter in letters) == sorted(large)
    assert {partition for partition, _ in letters} == {0}
    assert len(buried) == len(large)
    of_zero = [value for partition, value in found if partition == 0]
    assert (of_zero[-1]["kind"], of_zero[-1]["seq"]) == ("watermark", 40)  # behind the letters


async def test_a_topic_that_holds_not_even_a_watermark_is_the_end(settings: SettingsFactory) -> None:
    made = settings()
    async with careful(made, [], [1]) as publisher:
        async with admin_client(made) as admin:
            await _set_configs(admin, made.kafka_topic, {"max.message.bytes": "10"})
        with pytest.raises(Exception, match="refuses a message"):
            await publisher.drain()
        assert isinstance(publisher.failure, MismatchError)


# -- the whole ingest

EVENTS = 6000


@asynccontextmanager
async def ingesting(made: Settings, info: TopicInfo) -> AsyncIterator[tuple[IngestSession, Oracle]]:
    oracle = Oracle(keep_records=False)
    store = FrameStore(Traffic(Plan(EVENTS, seed=11, end_us=time.time_ns() // 1000), oracle).frames())
    relay = DevRelay(store)
    with RelayThread(relay):
        made = made.model_copy(update={"relay_url": relay.url, "ingest_idle_seconds": 2.0})
        request = Request(-1, restart=False, from_time=None, now=time.time_ns() // 1000)
        yield IngestSession(made, Options(request, follow=False, standby=False), info), oracle


async def test_a_limit_that_is_lowered_on_the_way_loses_nothing_and_does_not_loop(settings: SettingsFactory) -> None:
    """The ingest believes that the topic takes 8 MB: it finds out by what Kafka refuses."""
    made = settings(kafka_partitions=2)
    info = await ensure_topic(made)
    async with ingesting(made, info) as (session, oracle):
        async with admin_client(made) as admin:
            await _set_configs(admin, info.name, {**STAMPED, "max.message.bytes": "66000"})
        async with asyncio.timeout(120):
            await session.run()
        found = [value for _, value in await messages(made)]
        events = {orjson.dumps(value) for value in found if value["kind"] in ("commit", "identity", "account", "sync")}
        letters = {(value["seq"], value["reason"]) for value in found if value["kind"] == "dead_letter"}
        assert len(events) + len(letters) == oracle.events.total()
        assert session.connections <= 4


async def test_a_topic_that_becomes_compacted_on_the_way_ends_it(settings: SettingsFactory) -> None:
    made = settings(kafka_partitions=2)
    info = await ensure_topic(made)
    async with ingesting(made, info) as (session, _):
        async with admin_client(made) as admin:
            await _set_configs(admin, info.name, {"cleanup.policy": "compact"})
        async with asyncio.timeout(120):
            with pytest.raises((MismatchError, BrokerError), match="it is compacted"):
                await session.run()
