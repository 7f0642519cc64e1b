"""The ingest against a real broker that freezes and dies: nothing lost, and no watermark over what is not there."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from msgspec import structs

from streams.errors import HeldError, MismatchError, RelayError
from streams.ingestion.session import IngestSession, Options
from streams.kafka.client import admin_client
from streams.kafka.ingest_lock import ingest_lock
from streams.kafka.publisher import Publisher, SendError
from streams.kafka.retention import RetentionGuard, RetentionVerdict, topic_configs
from streams.kafka.topic import ensure_topic, read_from, reader
from streams.kafka.watermarks import read_state
from streams.local.stack import Stack
from streams.messages import Run, StreamPosition, Watermark, decode_control, encode_control
from streams.runtime.waiting import RateLimitedLog
from streams.settings import Settings
from streams.simulator.oracle import Oracle
from streams.simulator.relay import DevRelay, RelayThread
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Traffic
from streams.sources.firehose.plan import Request
from streams.sources.firehose.reader import NOT_TAKEN
from tests.acceptance.proxy import Proxy
from tests.conftest import SettingsFactory
from tests.support.patience import PATIENCE, PATIENCE_MS

EVENTS = 30_000


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(keep_records=False)


@pytest.fixture(scope="module")
def store(oracle: Oracle) -> FrameStore:
    return FrameStore(Traffic(Plan(EVENTS, seed=5, end_us=time.time_ns() // 1000), oracle).frames())


@pytest.fixture
async def relay(store: FrameStore) -> AsyncIterator[DevRelay]:
    made = DevRelay(store)
    with RelayThread(made):
        yield made


def session_of(settings: Settings, info: Any, *, restart: bool = False) -> IngestSession:
    request = Request(-1, restart, None, time.time_ns() // 1000)
    return IngestSession(settings, Options(request, follow=False, standby=False), info)


async def topic_messages(settings: Settings, partitions: int) -> dict[int, list[Any]]:
    """Every message of the topic as (key, parsed value), by partition, in order."""
    found: dict[int, list[Any]] = {partition: [] for partition in range(partitions)}
    async with reader(settings, partitions) as (consumer, tps):
        ends = await consumer.end_offsets(tps)
        read_from(consumer, await consumer.beginning_offsets(tps))
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, batch in (await consumer.getmany(timeout_ms=500)).items():
                found[tp.partition].extend((message.key, orjson.loads(message.value)) for message in batch)
    return found


def check_watermarks(messages: dict[int, list[Any]]) -> int:
    """Each watermark stands behind every event up to its seq; returns how many distinct events there are."""
    distinct: set[tuple[Any, ...]] = set()
    for partition in messages.values():
        highest = -1
        seen: set[tuple[Any, ...]] = set()
        for key, message in partition:
            if key is None:
                if message["kind"] == "watermark":
                    highest = max(highest, message["seq"])
                continue
            commit = message.get("commit") or {}
            operation = (commit.get(name) for name in ("collection", "rkey", "operation", "cid"))
            event = (message["seq"], message["kind"], message["did"], *operation)
            assert event in seen or message["seq"] > highest, "a watermark stood before an event that it covers"
            seen.add(event)
        distinct |= seen
    return len(distinct)


async def run_while(
    session: IngestSession, trouble: Callable[[], None], after_events: int, at_once: Callable[[], None] = lambda: None
) -> None:
    """Ingest, and make trouble once so many events were taken: ``at_once`` before another event is taken."""
    task = asyncio.create_task(session.run())
    while session.counts.events < after_events and not task.done():  # noqa: ASYNC110 (the hot path has no event for it)
        await asyncio.sleep(0.01)
    assert not task.done(), "the trouble came too late"
    at_once()
    await asyncio.to_thread(trouble)
    await asyncio.wait_for(task, PATIENCE)


async def test_a_broker_that_is_killed_on_the_way_loses_nothing(
    embedded: Stack, settings: SettingsFactory, relay: DevRelay, oracle: Oracle
) -> None:
    made = settings(relay_url=relay.url)
    info = await ensure_topic(made)

    def kill_and_restart() -> None:
        embedded.kafka.kill()
        embedded.kafka.start()

    await run_while(session_of(made, info), kill_and_restart, EVENTS // 3)
    messages = await topic_messages(made, info.partitions)
    assert check_watermarks(messages) == oracle.events.total()
    state = await read_state(made, info)
    assert state.lowest is not None
    assert state.lowest.seq == relay.head


async def test_what_kafka_never_took_is_taken_again(
    embedded: Stack,
    settings: SettingsFactory,
    relay: DevRelay,
    oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker is frozen for longer than a batch lives: the ingest goes back to the last watermark."""
    monkeypatch.setattr("streams.kafka.producer.SEND_TIMEOUT", 2.0)
    made = settings(relay_url=relay.url)
    info = await ensure_topic(made)

    def thaw_late() -> None:
        time.sleep(8)
        embedded.kafka.thaw()

    session = session_of(made, info)
    await run_while(session, thaw_late, EVENTS // 3, at_once=embedded.kafka.freeze)
    assert session.counts.events > oracle.events.total(), "nothing was taken a second time: the test made no trouble"
    messages = await topic_messages(made, info.partitions)
    assert check_watermarks(messages) == oracle.events.total()
    runs = [m for _, m in messages[0] if m["kind"] == "run"]
    assert len({run["run"] for run in runs}) == 1


async def test_the_ingest_resumes_restarts_and_announces(
    settings: SettingsFactory, relay: DevRelay, oracle: Oracle
) -> None:
    made = settings(relay_url=relay.url)
    info = await ensure_topic(made)
    for restart in (False, False, True):
        await session_of(made, info, restart=restart).run()
    messages = await topic_messages(made, info.partitions)
    assert check_watermarks({p: m[: len(m) // 3] for p, m in messages.items()}) <= oracle.events.total()
    controls = [decode_control(orjson.dumps(m)) for key, m in messages[0] if key is None]
    assert [c.mode for c in controls if isinstance(c, Run)] == ["start", "resume", "restart"]
    marks = [c for c in controls if isinstance(c, Watermark)]
    assert len({mark.topic_id for mark in marks}) == 1
    first_run = next(c.run for c in controls if isinstance(c, Run))
    assert {mark.sequence for mark in marks} == {first_run}, "one sequence of one relay, whatever the run"
    places = [m["place"] for part in messages.values() for _, m in part if m["kind"] in ("identity", "account", "sync")]
    assert {place["sequence"] for place in places} == {first_run}
    assert sum(len(m) for m in messages.values()) > 2 * oracle.events.total()


async def test_a_message_that_is_too_large_ends_it_with_a_sentence(
    settings: SettingsFactory, store: FrameStore
) -> None:
    """What stands before it is in the topic, watermark and all: nothing is lost by going on behind it."""
    frames = list(Traffic(Plan(300, seed=6, end_us=time.time_ns() // 1000), Oracle(keep_records=False)).frames())
    middle = len(frames) // 2
    frames[middle] = frames[middle]._replace(data=bytes(40 << 20))
    made = DevRelay(FrameStore(frames))
    with RelayThread(made):
        asked = settings(relay_url=made.url)
        info = await ensure_topic(asked)
        with pytest.raises(RelayError, match=f"After seq {frames[middle - 1].seq} .* at most 5 MB.*--from-time"):
            await asyncio.wait_for(session_of(asked, info).run(), PATIENCE)
    state = await read_state(asked, info)
    assert {mark.seq for mark in state.watermarks.values()} == {frames[middle - 1].seq}


async def test_a_run_is_newer_than_any_before_whatever_the_clocks_said(
    settings: SettingsFactory, relay: DevRelay
) -> None:
    """A run of a clock that was ahead died between its first watermarks: one partition has heard of it."""
    made = settings(relay_url=relay.url)
    info = await ensure_topic(made)
    await session_of(made, info).run()
    before = (await read_state(made, info)).watermarks[1]
    ahead = structs.replace(before, run=before.run + 3_600_000_000)
    producer = AIOKafkaProducer(bootstrap_servers=made.bootstrap_servers(), request_timeout_ms=PATIENCE_MS)
    await producer.start()
    await producer.send_and_wait(made.kafka_topic, encode_control(ahead), partition=1)
    await producer.stop()
    await session_of(made, info).run()
    assert {mark.run for mark in (await read_state(made, info)).watermarks.values()} == {ahead.run + 1}


async def test_no_watermark_without_its_events(settings: SettingsFactory, embedded: Stack) -> None:
    """A publisher whose batch was lost says so, and writes no later watermark."""
    made = settings()
    info = await ensure_topic(made)
    publisher = Publisher(made, info, budget=1 << 20, on_change=lambda: None)
    await publisher.start()

    def mark(position: StreamPosition) -> Watermark:
        return Watermark(relay="r", run=1, topic_id="t", seq=position.seq, time=None)

    positions = [StreamPosition(0, None)]
    publisher.begin_run(mark, lambda: positions[-1])
    await publisher.write_watermarks()
    assert publisher.durable == StreamPosition(0, None)
    publisher.add("did:plc:lost", [b"{}"])
    publisher.fail(RuntimeError("a batch expired"))
    positions.append(StreamPosition(7, None))
    with pytest.raises(SendError):
        await publisher.write_watermarks()
    with pytest.raises(SendError):
        await publisher.drain()
    assert publisher.durable == StreamPosition(0, None)
    await publisher.stop()
    state = await read_state(made, info)
    assert {watermark.seq for watermark in state.watermarks.values()} == {0}


async def test_the_budget_says_when_to_stop_reading(settings: SettingsFactory) -> None:
    made = settings()
    info = await ensure_topic(made)
    changes: list[bool] = []
    publisher = Publisher(made, info, budget=100_000, on_change=lambda: changes.append(publisher.full))
    await publisher.start()
    for number in range(200):
        publisher.add(f"did:plc:{number}", [b"x" * 1000])
    assert publisher.full
    at = StreamPosition(1, None)
    publisher.begin_run(lambda p: Watermark(relay="r", run=1, topic_id="t", seq=p.seq, time=None), lambda: at)
    await publisher.drain()
    assert not publisher.full
    assert publisher.unacknowledged == 0
    assert changes == [True, False]
    await publisher.stop()


async def test_one_ingest_holds_a_topic(settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kafka.ingest_lock.SESSION", 6.0)
    made = settings()
    await ensure_topic(made)
    lost: list[int] = []
    took_over = asyncio.Event()

    async def stand_by() -> None:
        async with ingest_lock(made, standby=True, on_lost=lambda: lost.append(2)):
            took_over.set()

    async with ingest_lock(made, standby=False, on_lost=lambda: lost.append(1)):
        waiting = asyncio.create_task(stand_by())
        with pytest.raises(HeldError, match="pid"):
            async with ingest_lock(made, standby=False, on_lost=lambda: lost.append(3)):
                pass
        assert not took_over.is_set()
    await asyncio.wait_for(waiting, PATIENCE)
    assert took_over.is_set()
    assert lost == []


async def test_a_topic_that_is_deleted_under_the_ingest_ends_it(
    settings: SettingsFactory, relay: DevRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.producer.SEND_TIMEOUT", 2.0)
    made = settings(relay_url=relay.url)
    info = await ensure_topic(made)

    def delete() -> None:
        async def run() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=made.bootstrap_servers())
            await admin.start()
            await admin.delete_topics([made.kafka_topic])
            await admin.close()

        asyncio.run(run())

    with pytest.raises(MismatchError, match="deleted"):
        await run_while(session_of(made, info), delete, EVENTS // 10)


async def test_a_slow_group_makes_the_topic_keep_its_events_longer(
    settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(kafka_retention_hours=1)
    info = await ensure_topic(made)
    guard = RetentionGuard(made, info)
    producer = AIOKafkaProducer(bootstrap_servers=made.bootstrap_servers(), request_timeout_ms=PATIENCE_MS)
    await producer.start()
    for _ in range(3):
        await producer.send_and_wait(made.kafka_topic, b"{}", partition=0)
    await producer.stop()
    half_an_hour_later = SimpleNamespace(time=lambda: time.time() + 1800)
    monkeypatch.setattr("streams.kafka.retention.time", half_an_hour_later)
    assert await guard.check() == RetentionVerdict()  # nobody is registered

    async with reader(made, info.partitions) as (_, tps):
        group = AIOKafkaConsumer(bootstrap_servers=made.bootstrap_servers(), group_id=f"{made.sink_group}-slow")
        await group.start()
        group.assign(tps)
        await group.commit({tps[0]: 1})
        await group.stop()
    raised = RetentionVerdict()
    for _ in range(20):  # a group's coordinator may still be loading: the guard looks again
        raised = await guard.check()
        if raised != RetentionVerdict():
            break
        await asyncio.sleep(0.5)
    assert raised == RetentionVerdict(raise_to=7_200_000)
    assert await guard.check() == RetentionVerdict()  # half an hour is little of two hours
    async with admin_client(made) as admin:
        configs = await topic_configs(admin, made.kafka_topic)
    assert configs["retention.ms"] == "7200000"
    assert configs["max.message.bytes"] == "8388608"  # the others are as they were


async def test_a_reader_reads_nothing_until_it_is_told_from_where(settings: SettingsFactory) -> None:
    """Nor does aiokafka look for positions in the background, which fails where a leader changes meanwhile."""
    made = settings()
    info = await ensure_topic(made)
    async with AIOKafkaProducer(bootstrap_servers=made.bootstrap_servers(), request_timeout_ms=PATIENCE_MS) as producer:
        for number in range(3):
            await producer.send_and_wait(made.kafka_topic, str(number).encode(), partition=1)
    async with reader(made, info.partitions) as (consumer, tps):
        assert await consumer.getmany(timeout_ms=1500) == {}
        read_from(consumer, {tps[1]: 1})
        found = await consumer.getmany(timeout_ms=5000)
        assert [message.value for message in found[tps[1]]] == [b"1", b"2"]
        assert len(found) == 1


async def until(what: Callable[[], bool], task: asyncio.Task[None], seconds: float = PATIENCE) -> None:
    """Wait for it, and fail where the ingest ends before."""
    async with asyncio.timeout(seconds):
        while not what():
            assert not task.done(), await task
            await asyncio.sleep(0.01)


async def test_a_stop_while_the_relay_is_being_connected(
    settings: SettingsFactory, relay: DevRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no connection to end yet; the handshake alone would be waited for longer than a stop may take."""
    monkeypatch.setattr("streams.sources.firehose.relay.OPEN_TIMEOUT", 3600.0)
    async with Proxy("127.0.0.1", relay.port) as proxy:
        made = settings(relay_url=f"ws://127.0.0.1:{proxy.port}")
        session = session_of(made, await ensure_topic(made))
        task = asyncio.create_task(session.run())
        await until(lambda: session.counts.events > 1000, task)
        proxy.freeze()
        proxy.cut()
        connections = proxy.connections
        await until(lambda: proxy.connections > connections, task)
        session.stop()
        await asyncio.wait_for(task, PATIENCE)


@pytest.mark.parametrize("step", ["write_watermarks", "drain"])
async def test_what_kafka_does_not_take_is_waited_for_until_a_stop(
    settings: SettingsFactory, relay: DevRelay, embedded: Stack, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The first watermarks, and the last events. By itself aiokafka waits for ever, and without a word."""
    made = settings(relay_url=relay.url)
    session = session_of(made, await ensure_topic(made))
    done = getattr(Publisher, step)
    said: list[str] = []

    async def without_kafka(publisher: Publisher, **more: bool) -> None:
        embedded.kafka.freeze()
        await done(publisher, **more)

    monkeypatch.setattr("streams.kafka.producer.SEND_TIMEOUT", 3600.0)
    monkeypatch.setattr("streams.runtime.waiting.SLOW", 0.2)
    monkeypatch.setattr(RateLimitedLog, "warning", lambda _, about, text: said.append(text))
    monkeypatch.setattr(Publisher, step, without_kafka)
    task = asyncio.create_task(session.run())
    try:
        # Both: on a busy machine an earlier step takes so long, too, that it is said.
        await until(lambda: NOT_TAKEN in said and session.state().mode == "no broker", task)
        session.stop()
        await asyncio.wait_for(task, PATIENCE)
    finally:
        embedded.kafka.thaw()


async def test_what_works_beside_the_reading_does_not_end_unseen(
    settings: SettingsFactory, relay: DevRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    made = settings(relay_url=relay.url)
    session = IngestSession(
        made, Options(Request(-1, False, None, 0), follow=True, standby=False), await ensure_topic(made)
    )
    monkeypatch.setattr(session.memory, "_rss", no_descriptors)
    with pytest.raises(OSError, match="Too many open files"):
        await asyncio.wait_for(session.run(), PATIENCE)
