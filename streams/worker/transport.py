"""The Faust transport that delivers slices: ``kafka-slices://host:port``.

A topic declared with ``SliceSchema`` arrives as ``Slice`` objects, one event each; changelogs and ordinary topics pass
as in the stock driver. Positions come from the application (the database), never from Kafka, and nothing is committed
to Kafka but what ``mark_durable`` was told. It overrides private methods of faust-streaming and aiokafka, which are
pinned for that reason (docs/gotchas.md). The numbers in comments are steps of the commit path (docs/architecture.md).
"""
# ruff: noqa: ANN401 (the overridden methods' own signatures)

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ack_lock
from mode import Service

from streams.errors import EXIT_STALLED, StreamsError
from streams.resources.in_flight import InFlight
from streams.resources.memory_budgets import RECORD_OVERHEAD
from streams.runtime.loop_guard import STALL_SECONDS, LoopGuard
from streams.worker.app import pipeline_of
from streams.worker.fetching import DRAIN_BYTES, FetchThread, consumer_record
from streams.worker.persistence import Producer, until_answered
from streams.worker.slice_schema import SliceMessage, SliceSchema
from streams.worker.slices import SLICE_RECORDS, Break, Chain, Slice, SlicedRecord, rewound, round_robin, split

if TYPE_CHECKING:  # it imports the consumer
    from streams.worker.running import RunningPipeline

log = logging.getLogger(__name__)

#: Seconds to wait before the next fetch when the last one was small: fewer, larger slices at the live rate.
POLL_LINGER: Final = 0.1
#: Seconds that a commit of Kafka's own offsets may take. They are for lag tools: nothing waits longer for them.
COMMIT_TIMEOUT: Final = 3.0


def kafka_tp(tp: TP) -> TopicPartition:
    """Return Faust's pair as aiokafka's."""
    return TopicPartition(tp.topic, tp.partition)


class Consumer(driver.Consumer):
    """Faust's consumer, delivering slices. See the module's docstring for what it promises."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._chain = Chain()
        self._durable: dict[TP, int] = {}  # next offset that the database has committed
        self._reached: dict[TP, int] = {}  # the same, of partitions that we lost too
        self._sought: dict[TP, int] = {}  # positioned, waiting for resume_flow()
        self._overtaken: dict[TP, int] = {}  # the log begins behind this offset, which was to be read next
        self._awaiting_resume = True
        self._positioning: set[asyncio.Task[None]] = set()
        self._sliced: dict[str, bool] = {}
        self._last_fetch = 0
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> FetchThread:
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def pipeline(self) -> RunningPipeline:
        """The pipeline that the slices are for."""
        return pipeline_of(self.app).running

    @property
    def aio(self) -> AIOKafkaConsumer:
        """The aiokafka consumer. Its coroutines belong to the consumer's thread."""
        return self._thread._ensure_consumer()

    def topic_partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has, None while that is not known. In Faust only the leader knows it."""
        consumer = self._thread._consumer
        partitions = consumer.partitions_for_topic(topic) if consumer is not None else None
        return len(partitions) if partitions else None

    def is_sliced(self, topic: str) -> bool:
        """Return True if the topic is delivered in slices."""
        hit = self._sliced.get(topic)
        if hit is None:
            hit = self._sliced[topic] = any(
                isinstance(getattr(channel, "schema", None), SliceSchema) and topic in channel.topics
                for channel in self.app.topics
            )
        return hit

    # -- positions: from the database, after every rebalance

    async def perform_seek(self) -> None:
        """Void what was cut, and find the new positions in the background.

        In the background because Faust gives up on a seek after ``broker_request_timeout`` and then never recovers; the
        database may be away for longer. No partition is fetched before it is armed.
        """
        assigned = self.assignment()
        sliced = {tp for tp in assigned if self.is_sliced(tp.topic)}
        self._awaiting_resume = True
        self._void(sliced)
        if others := assigned - sliced:
            await self._seek_others(others)
        self._cancel_positioning()
        self._start_positioning(sliced)

    def _start_positioning(self, tps: set[TP]) -> None:
        task = asyncio.create_task(self._position({tp: self._chain.epoch(tp) for tp in tps}))
        self._positioning.add(task)
        task.add_done_callback(self._positioning.discard)

    def _cancel_positioning(self) -> None:
        for task in self._positioning:
            task.cancel()

    async def _seek_others(self, tps: set[TP]) -> None:
        """Do as the stock driver, for the other topics."""
        try:
            async with asyncio.timeout(10):
                committed = await self._thread.call_thread(self.aio.seek_to_committed, *map(kafka_tp, tps))
        except (TimeoutError, KafkaError) as error:
            log.warning("positions of %s could not be read: %r", sorted({tp.topic for tp in tps}), error)
            return
        for key, offset in committed.items():
            tp = TP(key.topic, key.partition)
            self._read_offset[tp] = offset if offset is not None and offset >= 0 else None
            self._committed_offset[tp] = offset or None

    async def _position(self, epochs: dict[TP, int]) -> None:
        """Seek the partitions to the database's positions and arm them; try until it works or they are void."""
        while tps := {tp for tp, epoch in epochs.items() if self._chain.epoch(tp) == epoch}:
            try:
                offsets = await self._load(tps)
            except (KafkaError, TimeoutError) as error:
                log.warning("positions cannot be read yet: %r", error)
                await asyncio.sleep(1.0)
                continue
            except StreamsError as error:
                self.pipeline.fail(error)
                return
            except Exception as error:
                log.exception("positions cannot be read")
                self.pipeline.fail(error)
                return
            await self._seek_and_arm({tp: o for tp, o in offsets.items() if self._chain.epoch(tp) == epochs[tp]})
            return

    async def _load(self, tps: set[TP]) -> dict[TP, int]:
        """Return the database's positions, else the log's start. Raises MismatchError for a log that is shorter."""
        keys = [kafka_tp(tp) for tp in tps]
        async with asyncio.timeout(30):
            begin = await self._thread.call_thread(self.aio.beginning_offsets, keys)
        topics = {tp.topic for tp in tps}
        assert len(topics) == 1, "one sliced topic in an app"
        [topic] = topics
        found = await self.pipeline.positions({key.partition: offset for key, offset in begin.items()})
        # Ask after the positions: while we waited for them, or were frozen, others may have written more.
        async with asyncio.timeout(30):
            end = await self._thread.call_thread(self.aio.end_offsets, keys)
        for key, last in end.items():
            if found[key.partition] > last:
                raise rewound(TP(topic, key.partition), found[key.partition], last)
        return {TP(topic, partition): offset for partition, offset in found.items()}

    async def _seek_and_arm(self, offsets: dict[TP, int]) -> None:
        epochs = {tp: self._chain.epoch(tp) for tp in offsets}
        await self._thread.call_thread(_seek, self.aio, offsets)
        for tp, offset in offsets.items():
            if self._chain.epoch(tp) != epochs[tp] or tp in self._chain:
                continue
            self._read_offset[tp] = None
            self._committed_offset[tp] = None
            self._durable[tp] = self._reached[tp] = offset
            if self._awaiting_resume:
                self._sought[tp] = offset
            else:
                self._chain.arm(tp, offset)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the ends of partitions; a table's recovery asks, and waits for a broker that is away."""
        ask = super().highwaters
        return await until_answered(lambda: ask(*partitions), self)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the first offsets of partitions, as ``highwaters``."""
        ask = super().earliest_offsets
        return await until_answered(lambda: ask(*partitions), self)

    def resume_flow(self) -> None:
        """Arm what is positioned: only now, for the flow control has just cleared the agents' queues."""
        super().resume_flow()
        if self._awaiting_resume and not self.app.in_recovery:
            self._awaiting_resume = False
            sought, self._sought = self._sought, {}
            for tp, offset in sought.items():
                self._chain.arm(tp, offset)

    def _void(self, tps: Iterable[TP]) -> None:
        tps = list(tps)
        self._chain.void(tps)
        for tp in tps:
            self._sought.pop(tp, None)
            self._overtaken.pop(tp, None)

    def stop_flow(self) -> None:
        """Drop at once what is cut and not yet written, without a wait: a rebalance or a shutdown begins."""
        self._void([*self._chain.armed, *self._sought])
        super().stop_flow()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Void the partitions before Faust waits for what is in flight."""
        self._void(tp for tp in revoked if self.is_sliced(tp.topic))
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._durable.pop(tp, None)

    async def on_stop(self) -> None:
        """End the background work with the consumer."""
        self._cancel_positioning()
        await super().on_stop()

    def reseek(self, tp: TP) -> None:
        """Put one partition back on the database's position: the sink found it elsewhere, or the log lost it."""
        if tp in self._chain:  # else it is being rebalanced, which positions it anyway
            self._void([tp])
            self._start_positioning({tp})

    def is_current(self, piece: Slice) -> bool:
        """Return True while the slice may still be written."""
        return self._chain.is_current(piece)

    @property
    def reached(self) -> Mapping[TP, int]:
        """The next offset of each partition that is or was ours, as the database had it when we last knew.

        A topic that is deleted takes its partitions from us: what was read of it must still be known then.
        """
        return self._reached

    @property
    def is_positioning(self) -> bool:
        """True while positions are being looked up."""
        return bool(self._positioning)

    # -- pressure: the fetcher waits in Queue.put, which is bounded. Faust's way (dropping partitions) loses records.

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: see above."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing: see above."""

    # -- fetching

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if active_partitions is not None:
            chain = self._chain
            active_partitions = {
                tp
                for tp in active_partitions
                if (tp in chain and tp not in self._overtaken) or not self.is_sliced(tp.topic)
            }
            if not active_partitions:  # to aiokafka an empty set would mean all of them
                await asyncio.sleep(0.02)
                return {}
        if any(self.is_sliced(tp.topic) and tp not in self._chain for tp in self.assignment()):
            # This fetch leaves out what has no position yet: the next one, which can have it, must not be far.
            timeout = min(timeout, POLL_LINGER)
        budget = self.pipeline.budget
        remaining = min(budget.remaining("slices"), DRAIN_BYTES)
        if not remaining:  # the slices on their way go first; or memory is short
            await asyncio.sleep(0.02)
            return {}
        if self._last_fetch < min(SLICE_RECORDS, remaining // (4 * RECORD_OVERHEAD)):
            await asyncio.sleep(POLL_LINGER)
        thread = self._thread
        assert isinstance(thread, FetchThread)
        drained = await thread.drain(active_partitions, timeout, remaining)
        self._last_fetch = sum(len(records) for records, _ in drained.values())
        return {tp: (records, budget.count("slices", size)) for tp, (records, size) in drained.items()}

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch once, and yield slices and ordinary messages until the generation changes."""
        fetched, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not fetched or self.should_stop or not self.flow_active:
            return
        sliced: list[tuple[TP, list[list[SlicedRecord]]]] = []
        in_flight: dict[TP, InFlight] = {}
        for key, (records, counted) in fetched.items():
            tp = TP(key.topic, key.partition)
            if self.is_sliced(tp.topic):
                sliced.append((tp, split(records)))
                in_flight[tp] = counted
            elif active is None or tp in active:
                for record in records:
                    if not self.flow_active or self.app.consumer_generation_id != generation:
                        return
                    yield tp, self._to_message(tp, consumer_record(tp, record))
        # (1) Cut: each slice must begin where the one before it ended.
        work = round_robin(sliced)
        del fetched, sliced, records, counted
        work.reverse()
        broken: set[TP] = set()
        while work:
            tp, records = work.pop()
            if tp in broken:
                continue
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            piece = await self._link(tp, records)
            if piece is None:
                broken.add(tp)  # the rest of this fetch does not follow on
            else:
                piece.in_flight = in_flight[tp]
                message = self._slice_message(piece)
                del piece, records
                yield tp, message
                del message

    async def _link(self, tp: TP, records: list[SlicedRecord]) -> Slice | None:
        linked = self._chain.link(tp, records)
        if isinstance(linked, Slice):
            return linked
        if linked.kind == "hole":
            return await self._bridge(tp, records, linked)
        if linked.kind == "refetch":
            log.info("%s/%d: expected offset %d, got %d: fetching again", *tp, linked.expected, linked.got)
            await self._thread.call_thread(_seek, self.aio, {tp: linked.expected})
        elif linked.kind == "rewound":
            self.pipeline.fail(rewound(tp, linked.expected, linked.got))
            self._void([tp])
        return None

    async def _bridge(self, tp: TP, records: list[SlicedRecord], hole: Break) -> Slice | None:
        """Go over a hole: a loss if the log begins behind our position, else compaction or a transaction's marker."""
        begin = await self._thread.call_thread(self.aio.beginning_offsets, [kafka_tp(tp)])
        if begin[kafka_tp(tp)] > hole.expected:
            log.error("%s/%d: offset %d has left the topic before it was read: a gap", *tp, hole.expected)
            # Slices that were read before it are still on their way into the database: they do not belong to the gap.
            self._overtaken[tp] = hole.expected
            self._pass_overtaken(tp)
            return None
        log.warning("%s/%d: the log has no offsets %d to %d", *tp, hole.expected, hole.got - 1)
        linked = self._chain.bridge(tp, records)
        return linked if isinstance(linked, Slice) else None

    def _slice_message(self, piece: Slice) -> SliceMessage:
        self.app.monitor.track_tp_end_offset(piece.tp, self.highwater(piece.tp))
        last = piece.records[-1]
        return SliceMessage(
            piece.tp.topic, piece.tp.partition, piece.base, last.timestamp / 1000.0, last.timestamp_type,
            None, None, piece, None, 0,  # type: ignore[arg-type] # the value is the slice
            piece.nbytes, piece.tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self.is_sliced(tp.topic):  # slices know their holes; Faust's gaps would include unprocessed offsets
            await super()._add_gap(tp, offset_from, offset_to)

    # -- acknowledgement and Kafka's committed offsets

    def ack(self, message: Any) -> bool:
        """Wake the waiter for the message. The ack of a slice never moves a committed offset."""
        if not isinstance(message, SliceMessage):
            return super().ack(message)
        with ack_lock:
            if message.acked and message not in self._unacked_messages:
                return False
            message.acked = True
            self._unacked_messages.discard(message)
            waiter = self._waiting_for_ack
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            return True

    def mark_durable(self, tp: TP, next_offset: int) -> None:
        """Note that the database has committed everything below ``next_offset``."""
        # (7) Acknowledge: Kafka's committed offset follows later, for lag tools only.
        if next_offset > self._durable.get(tp, -1):
            self._durable[tp] = self._reached[tp] = next_offset
        if tp in self._overtaken:
            self._pass_overtaken(tp)

    def _pass_overtaken(self, tp: TP) -> None:
        if self._durable.get(tp, -1) >= self._overtaken[tp]:
            self.reseek(tp)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from (tp for tp in super()._filter_tps_with_pending_acks(topics) if not self.is_sliced(tp.topic))
        yield from (tp for tp in list(self._durable) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._durable.get(tp) if self.is_sliced(tp.topic) else super()._new_offset(tp)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Commit for the lag tools. A failure does no harm: positions are in the database."""
        mine = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        if not mine:
            return False
        try:
            await self._thread.call_thread(_commit, self.aio, mine)
        except (KafkaError, TimeoutError) as error:
            log.debug("Kafka's committed offsets stay behind: %r", error)
            return False
        self._committed_offset.update(mine)
        self.app.tables.on_commit(mine)
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Pass on Faust's complaints about slow streams, but not for slices: the watchdog below sees a stall."""
        if not self.is_sliced(tp.topic):
            super().verify_event_path(now, tp)

    # -- the watchdog: Faust and aiokafka have states that they never leave; a restart always heals

    @Service.task
    async def _stall_watchdog(self) -> None:
        alive = LoopGuard()
        mark: object = None
        since = time.monotonic()
        try:
            while not self.should_stop:
                await self.sleep(1.0)
                now = alive.beat()
                state = (self.app.rebalancing, tuple(sorted(self._durable.items())))
                if state != mark or not self._has_work() or self.pipeline.is_waiting() or self.is_positioning:
                    mark, since = state, now
                elif now - since > STALL_SECONDS:
                    log.critical(
                        "No progress for %.0f s with work to do: exit %d, to be started again.\n%s",
                        now - since, EXIT_STALLED, self.app.agents.human_tracebacks(),
                    )  # fmt: skip
                    os._exit(EXIT_STALLED)
        finally:
            alive.stop()

    def _has_work(self) -> bool:
        if self.app.rebalancing or self._unacked_messages:
            return True
        return any((self.highwater(tp) or 0) > self._durable.get(tp, 0) for tp in list(self._chain.armed))


FetchThread.logger = Consumer.logger = driver.logger  # mode would use our logger for its own lines


async def _seek(consumer: AIOKafkaConsumer, offsets: Mapping[TP, int]) -> None:
    assigned = consumer.assignment()
    for tp, offset in offsets.items():
        if kafka_tp(tp) in assigned:
            consumer.seek(kafka_tp(tp), offset)


async def _commit(consumer: AIOKafkaConsumer, offsets: Mapping[TP, int]) -> None:
    assigned = consumer.assignment()
    mine = {kafka_tp(tp): OffsetAndMetadata(o, "") for tp, o in offsets.items() if kafka_tp(tp) in assigned}
    async with asyncio.timeout(COMMIT_TIMEOUT):
        await consumer.commit(mine)


class Transport(driver.Transport):
    """``kafka-slices://host:port``."""

    Consumer = Consumer
    Producer = Producer
    driver_version = driver.Transport.driver_version + " (slices)"
