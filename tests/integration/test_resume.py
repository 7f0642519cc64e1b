"""Ingests that stop, resume, reconnect and go back: each event of the relay is in the topic, and nobody starts over."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from aiokafka.errors import KafkaTimeoutError

from streams.ingestion.session import IngestSession, Options
from streams.kafka.topic import TopicInfo, ensure_topic, read_from, reader
from streams.kafka.watermarks import read_state
from streams.messages import DeadLetter, Gap, decode_control
from streams.settings import Settings
from streams.simulator.oracle import Oracle
from streams.simulator.recording import Frame, iso_time
from streams.simulator.relay import DevRelay, RelayThread
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Traffic
from streams.sources.firehose.plan import Request
from streams.sources.firehose.sequence.continuity import HELD
from tests.conftest import SettingsFactory
from tests.support.patience import PATIENCE

PARTITIONS = 2
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(keep_records=False)


@pytest.fixture(scope="module")
def store(oracle: Oracle) -> FrameStore:
    return FrameStore(Traffic(Plan(2000, seed=8, end_us=time.time_ns() // 1000), oracle).frames())


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our relay answers in milliseconds: its silence is known sooner than another's."""
    for module in ("streams.sources.firehose.probing", "streams.sources.firehose.start"):
        monkeypatch.setattr(f"{module}.SILENCE", 0.7)


def session_of(settings: Settings, info: TopicInfo) -> IngestSession:
    request = Request(-1, False, None, time.time_ns() // 1000)
    return IngestSession(settings, Options(request, follow=False, standby=False), info)


async def in_topic(settings: Settings) -> tuple[list[Any], list[Any]]:
    """The events as (seq, kind, path, operation), and the control messages."""
    events, controls = [], []
    async with reader(settings, PARTITIONS) as (consumer, tps):
        ends = await consumer.end_offsets(tps)
        read_from(consumer, await consumer.beginning_offsets(tps))
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                for message in batch:
                    if message.key is None:
                        controls.append(decode_control(message.value))
                        continue
                    event = orjson.loads(message.value)
                    commit = event.get("commit") or {}
                    events.append((event["seq"], event["kind"], *map(commit.get, ("collection", "rkey", "operation"))))
    return events, controls


async def test_a_second_ingest_takes_exactly_what_came_since(
    settings: SettingsFactory, store: FrameStore, oracle: Oracle
) -> None:
    made = settings(kafka_partitions=PARTITIONS)
    info = await ensure_topic(made)
    # Where a seq follows on at once: one too far would then lose an event.
    half = next(i for i in range(len(store) // 2, len(store)) if store.seqs[i] == store.seqs[i - 1] + 1)
    relay = DevRelay(store, published=half)
    thread = RelayThread(relay)
    with thread:
        made = made.model_copy(update={"relay_url": relay.url})
        await session_of(made, info).run()
        state = await read_state(made, info)
        assert {mark.seq for mark in state.watermarks.values()} == {store.seqs[half - 1]}
        thread.call(lambda: relay.publish(len(store)))
        again = session_of(made, info)
        await again.run()
        cursors = [connection.cursor for connection in relay.connections if connection.sent > 1]
    assert cursors[-1] == store.seqs[half - 1] - 1  # one early: what is known proves that nothing is missing
    events, controls = await in_topic(made)
    assert len(events) == len(set(events)) == oracle.events.total()
    assert not [control for control in controls if isinstance(control, Gap | DeadLetter)]


async def test_every_reconnect_asks_for_the_last_event(
    settings: SettingsFactory, store: FrameStore, oracle: Oracle
) -> None:
    made = settings(kafka_partitions=PARTITIONS)
    info = await ensure_topic(made)
    relay = DevRelay(store, faults=[f"drop:after={after}" for after in (300, 301)])
    with RelayThread(relay):
        session = session_of(made.model_copy(update={"relay_url": relay.url}), info)
        await session.run()
        ends = [c.end for c in relay.connections]
        cursors = [c.cursor for c in relay.connections[ends.index("dropped") :]]
    assert [fault.fired for fault in relay.faults.all] == [1, 1]
    assert len(cursors) == 3
    # None of them is live. Where a seq was left out, it may come with the next connection.
    assert cursors[0] == store.seqs[0] - 1 < cursors[1] <= cursors[2]  # type: ignore[operator]
    assert session.counts.seen < HELD  # what stands behind a hole in the seqs is asked for again
    events, _ = await in_topic(made)
    assert len(events) == len(set(events)) == oracle.events.total()


async def test_what_kafka_refused_is_taken_again(settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka does not take a batch: the ingest goes back to the last watermark that it has.

    More comes meanwhile than the position ever stays behind (HELD), so it stands behind what was refused.
    """
    made = settings(kafka_partitions=PARTITIONS)
    info = await ensure_topic(made)
    oracle = Oracle(keep_records=False)
    store = FrameStore(Traffic(Plan(4 * HELD, seed=8, end_us=time.time_ns() // 1000), oracle).frames())
    relay = DevRelay(store, faults=[f"drip:after={HELD // 2},rate=1000"])
    with RelayThread(relay):
        session = session_of(made.model_copy(update={"relay_url": relay.url}), info)
        running = asyncio.create_task(session.run())
        while session.counts.frames < HELD // 2 and not running.done():  # noqa: ASYNC110 (the hot path has no event)
            await asyncio.sleep(0.01)
        first = session._publisher
        assert first is not None

        async def refuse(*_: object, **__: object) -> None:
            while session.counts.frames < 3 * HELD:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            raise KafkaTimeoutError

        monkeypatch.setattr(first.producer, "send_batch", refuse)
        async with asyncio.timeout(PATIENCE):
            await running
    assert session.counts.events > oracle.events.total(), "nothing was taken a second time: the test made no trouble"
    events, _ = await in_topic(made)
    assert len(set(events)) == oracle.events.total()


async def test_gaps_bad_frames_and_texts_are_told(settings: SettingsFactory) -> None:
    """What the relay left out, and what cannot be decoded, each is a message of its own."""
    made = settings(kafka_partitions=PARTITIONS)
    info = await ensure_topic(made)
    oracle = Oracle(keep_records=False)
    store = FrameStore(Traffic(Plan(600, seed=9, end_us=time.time_ns() // 1000), oracle).frames())
    relay = DevRelay(store, faults=["drop:after=200,settle=1", "garbage:after=10,settle=2", "text:after=20,settle=2"])
    with RelayThread(relay) as served:
        session = session_of(made.model_copy(update={"relay_url": served.url}), info)
        running = asyncio.create_task(session.run())
        while session.counts.frames < 190 and not running.done():  # noqa: ASYNC110 (the hot path has no event for it)
            await asyncio.sleep(0.001)
        relay.first_index = 300  # read at the next connection: its window has moved past us
        await asyncio.wait_for(running, PATIENCE)
        assert relay.faults.all[0].fired == 1
    _, controls = await in_topic(made)
    [gap] = [control for control in controls if isinstance(control, Gap)]
    assert gap.to_seq == store.seqs[300] - 1
    assert gap.from_seq is not None
    assert store.seqs[190] < gap.from_seq < store.seqs[300]
    dead = sorted(control.reason[:10] for control in controls if isinstance(control, DeadLetter))
    assert len(dead) == 2, dead
    assert dead[0].startswith("a text")


def claiming(frame: Frame, ahead_us: int) -> Frame:
    """The frame as a PDS whose clock is wrong would have it: relays pass its time through."""
    true, claimed = (b"dtimex\x18" + iso_time(us).encode() for us in (frame.time_us, frame.time_us + ahead_us))
    assert len(true) == len(claimed) and frame.data.count(true) == 1
    return frame._replace(data=frame.data.replace(true, claimed))


async def test_a_pds_whose_clock_is_wrong_does_not_say_how_far_we_are(settings: SettingsFactory) -> None:
    """One frame in fifty is three days ahead, one a year; what is covered, and what a restart knows, is true."""
    made = Traffic(Plan(2000, seed=9, end_us=time.time_ns() // 1000), Oracle(keep_records=False)).frames()
    frames = [frame._replace(time_us=frame.time_us // 1000 * 1000) for frame in made]  # as the frame itself says it
    ahead = {len(frames) // 2: 365 * DAY_US} | dict.fromkeys(range(25, len(frames) - 1, 50), 3 * DAY_US)
    store = FrameStore(claiming(frame, ahead[at]) if at in ahead else frame for at, frame in enumerate(frames))
    thread = RelayThread(DevRelay(store, published=len(frames) // 2 + 10))
    with thread as relay:
        ours = settings(relay_url=relay.url, kafka_partitions=PARTITIONS)
        info = await ensure_topic(ours)
        await session_of(ours, info).run()
        state = await read_state(ours, info)
        assert state.lowest is not None
        assert state.lowest.time == frames[len(frames) // 2 + 9].time_us
        assert state.lowest.median is not None
        assert abs(state.lowest.median - state.lowest.time) < DAY_US // 24
        thread.call(lambda: relay.publish(len(frames)))
        await session_of(ours, info).run()  # it asks for a frame again that claims to be newer than all: no reset
        state = await read_state(ours, info)
        assert state.lowest is not None
        assert (state.lowest.seq, state.lowest.time) == (frames[-1].seq, frames[-1].time_us)
    events, controls = await in_topic(ours)
    assert len(events) == 2000
    assert not [control for control in controls if isinstance(control, Gap)]


async def test_what_a_run_was_told_to_pass_over_is_a_gap(settings: SettingsFactory, store: FrameStore) -> None:
    half, later = len(store) // 2, len(store) * 3 // 4
    thread = RelayThread(DevRelay(store, published=half))
    with thread as relay:
        made = settings(relay_url=relay.url, kafka_partitions=PARTITIONS)
        info = await ensure_topic(made)
        await session_of(made, info).run()
        thread.call(lambda: relay.publish(len(store)))
        request = Request(-1, False, store.times[later], time.time_ns() // 1000)
        await IngestSession(made, Options(request, follow=False, standby=False), info).run()
    events, controls = await in_topic(made)
    [gap] = [control for control in controls if isinstance(control, Gap)]
    assert gap.from_seq == store.seqs[half - 1] + 1
    assert gap.to_seq is not None and gap.to_seq < store.seqs[later]
    assert "told to begin behind it" in gap.reason
    taken = {event[0] for event in events}
    assert not [seq for seq in taken if gap.from_seq <= seq <= gap.to_seq]
    assert min(taken) < gap.from_seq < gap.to_seq < max(taken)
