"""The life of an ingest: plan, connect, reconnect, end. What happens to a frame is in ``intake.py``.

A publisher lives until Kafka fails it, a connection until the relay ends it; both are made anew, the first at the last
watermark that Kafka has, the second at the last event taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka.errors import InvalidTimestampError, KafkaError

from streams.crashpoint import crash_point
from streams.errors import BrokerError, MismatchError, RelayError
from streams.firehose.collections import compile_patterns
from streams.firehose.continuity import Continuity
from streams.firehose.frames import ErrorFrame
from streams.firehose.relay import OversizedMessage, RelayConnection, open_relay, relay_name
from streams.ingest_pace import IngestPace, Look
from streams.ingest_view import Facts, ingest_state, report_end, standing
from streams.intake import Counts, Intake, SequenceReset
from streams.kafka.guard import TopicGuard
from streams.kafka.messages import Gap, Run, Watermark
from streams.kafka.publisher import Position, Publisher, SendError
from streams.kafka.retention import LOOK_EVERY, RetentionGuard
from streams.kafka.topic import TopicInfo, broker_error, check_partitions, find_topic, is_away
from streams.kafka.watermarks import read_state
from streams.memory import SMALLEST_IN_FLIGHT, Account, MemoryWatch, ingest_budgets, settle_memory
from streams.memory_hog import hog_memory
from streams.ops.heartbeat import Heartbeat, pause_line
from streams.ops.ingest_progress import IngestProgress, Standing
from streams.ops.machine import resident
from streams.ops.memory_limit import container_says, effective_memory_limit
from streams.ops.process_state import IngestMode, IngestState, ingest_mode
from streams.plan import Decision, Request, decide
from streams.postgres.processes import Pause
from streams.run_start import ResumePoint, RunStart, plan_start, report_plan, resume_point
from streams.settings import Settings

log = structlog.get_logger("streams.ingest")

#: Seconds that the last events may take into Kafka after we were told to stop.
STOP_PATIENCE: Final = 5.0
#: Seconds without a frame and without a pong after which a connection is stalled.
STALL: Final = 20.0
PONG: Final = 15.0
#: Seconds between two looks at our memory.
LOOK_AT_MEMORY: Final = 1.0
#: Times that a relay may send the same oversized message before it is a fault: a broken connection may be one too.
OVERSIZED_TRIES: Final = 3
#: Seconds between two lines about the same trouble.
SAY_EVERY: Final = 60.0
#: Seconds after which a Kafka that takes nothing more counts as away; for a moment that is its pace.
FULL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    request: Request
    follow: bool
    standby: bool
    web: str | None = None


class Replay:
    """One ingest of one topic, from the plan to the end."""

    def __init__(self, settings: Settings, options: Options, info: TopicInfo) -> None:
        self.settings = settings
        self.options = options
        self.info = info
        self.relay = relay_name(settings.relay_url)
        self.counts = Counts()
        self.connections = 0
        self.lost_lock = False
        #: False while the plan is made: there is nothing to save yet.
        self.started = False
        self._stop = asyncio.Event()
        self._keep = compile_patterns(settings.ingest_collections)
        self._connection: RelayConnection | None = None
        self._publisher: Publisher | None = None
        self._continuity: Continuity | None = None
        self._head_reached = False
        self._topic_id = ""
        # Whether the relay is not read, for the sake of a slow group.
        self._waiting = False
        # Whether the topic has a watermark of ours.
        self._marked = False
        self._start: RunStart
        self.pace = IngestPace(settings, self._on_publisher_change)
        #: When the window of ``_start.oldest`` was asked for, in µs.
        self._planned_at = 0
        self._full_since: float | None = None
        self._said: dict[str, float] = {}
        self._progress = IngestProgress()
        self._heartbeat = Heartbeat(settings, "ingest", self.state, self._on_pause)
        self._fault: BaseException | None = None
        self._budgets = ingest_budgets(effective_memory_limit(settings))
        self.memory = MemoryWatch(effective_memory_limit(settings), resident, Account.of_ingest(self._budgets))

    # -- from outside (any time)
    @property
    def unacknowledged(self) -> int:
        """Bytes that Kafka has not acknowledged."""
        return self._publisher.unacknowledged if self._publisher is not None else 0

    @property
    def begun(self) -> bool:
        """Whether the topic has this run's first messages."""
        return self.started and self._start.announced

    def stop(self) -> None:
        """End soon, with everything that was taken in Kafka."""
        self._stop.set()
        if self._connection is not None:
            self._connection.finish("stopped")

    def _fail(self, error: BaseException) -> None:
        """The topic is not what it was: end soon, with that."""
        self._fault = error
        self.stop()

    def lose_lock(self) -> None:
        """Another ingest holds the topic now: end at once."""
        self.lost_lock = True
        self.stop()

    # -- the plan
    async def run(self) -> None:
        """Take what was asked for. Returns at the head, or after ``stop``. Raises StreamsError."""
        await self._heartbeat.first()
        beating = asyncio.create_task(self._heartbeat.run())
        try:
            await self._run()
            await self._end_heartbeat(beating)
        finally:
            beating.cancel()

    async def _end_heartbeat(self, beating: asyncio.Task[None]) -> None:
        beating.cancel()
        await asyncio.wait((beating,))
        await self._heartbeat.end()

    async def _run(self) -> None:
        state = await read_state(self.settings, self.info)
        self._marked = state.topic_id is not None
        point = ResumePoint(state.lowest, state.topic_id)
        if not state.watermarks and not state.empty:
            point = await resume_point(self.settings, self.relay)
        self._topic_id = point.topic_id or uuid.uuid4().hex
        decision = decide(self.options.request, point.watermark, self.relay)
        # Of all partitions: a run that died between its first watermarks is in some, and not the one resumed from.
        latest_run = max(state.latest_run, point.watermark.run if point.watermark is not None else 0)
        self._start = await plan_start(self.settings.relay_url, decision, after_run=latest_run)
        self._planned_at = time.time_ns() // 1000
        report_plan(self.settings, self._start, decision, self.options.request.days)
        log.info("[BACKFILL] Pace: " + self.pace.plan())
        if (sentence := container_says(self.settings)) is not None:
            log.warning("[BACKFILL] Memory: " + sentence)
        self.started = True
        await self._publish_until_done()

    # -- publishing: one publisher until it fails
    async def _publish_until_done(self) -> None:
        settle_memory()
        progress = self._progress
        gone = "we wrote to it. Start again to fill a new one, with another SINK_SCHEMA or an emptied one."
        guard = TopicGuard(self.settings, self.info, self._fail, gone=gone, known=self._written)
        works = (
            self._show(progress), self._guard_retention(), guard.run(), self.pace.run(self), self._watch_memory(),
            hog_memory(),
        )  # fmt: skip
        beside = [asyncio.create_task(work) for work in works]
        attempt = 0
        try:
            while (publisher := await self._connect_publisher()) is not None:
                before = self._start.position
                try:
                    self._begin_run(publisher)
                    await self._read_until_done(publisher)
                    await self._finish(publisher)
                    break
                except SendError as error:
                    if isinstance(publisher.failure, MismatchError):
                        raise publisher.failure from None
                    self._say("kafka", _not_taken(publisher, error))
                    await self._check_topic()
                    self._go_back(publisher)
                    attempt = 0 if self._start.position != before else attempt + 1
                finally:
                    self._publisher = None
                    await publisher.stop()
                if attempt:  # it takes nothing at all: asked again and again it would not either
                    await self._pause(attempt)
        finally:
            for task in beside:
                task.cancel()
            progress.show(self._standing(), final=True)
            progress.close()
            report_end(self._start, self._continuity, self.counts, head_reached=self._head_reached)
        if self._fault is not None:
            raise self._fault

    def _written(self) -> dict[int, int]:
        return self._publisher.written if self._publisher is not None else {}

    async def _finish(self, publisher: Publisher) -> None:
        """Everything that was taken into Kafka; when we were told to stop, for a few seconds only."""
        if self.lost_lock:
            return
        try:
            async with asyncio.timeout(STOP_PATIENCE if self._stop.is_set() else None):
                crash_point("drain.before")
                await publisher.drain()
                crash_point("drain.after")
        except TimeoutError:
            log.warning("Kafka did not take the last events in time: the next ingest takes them again")

    async def _connect_publisher(self) -> Publisher | None:
        """A started publisher; a broker that is away is waited for, except at the start. None: stopped meanwhile."""
        attempt = 0
        while not self._stop.is_set():
            publisher = Publisher(
                self.settings, self.info, budget=self._budget(), on_change=self._on_publisher_change,
                remembered=self._budgets.dids,
            )  # fmt: skip
            try:
                await publisher.start()
                self._publisher = publisher
                return publisher
            except KafkaError as error:
                if not self._marked or not is_away(error):
                    raise broker_error(self.settings, error) from None
                self._say("kafka", "Kafka is away: waiting for it")
                await self._pause(attempt)
                attempt += 1
        return None

    async def _check_topic(self) -> None:
        """After Kafka refused a batch: is the topic still the one that we write? Waits while the broker is away."""
        attempt = 0
        while not self._stop.is_set():
            try:
                info = await find_topic(self.settings)
                if info is not None:
                    check_partitions(info, self.info.partitions)
                    state = await read_state(self.settings, info)
                    if not self._marked or state.topic_id == self._topic_id:
                        return
                raise MismatchError(
                    f"The topic {self.info.name} was deleted or re-created while we wrote to it: start again "
                    f"to fill a new one, with another SINK_SCHEMA or an emptied one."
                )
            except BrokerError as error:
                self._say("kafka", str(error))
                await self._pause(attempt)
                attempt += 1

    def _begin_run(self, publisher: Publisher) -> None:
        """Tell the publisher where we are; and, until Kafka has it, tell the topic how this run began."""
        start = self._start
        self._continuity = Continuity(start.position.seq, start.position.time, known=start.known)

        def watermark(position: Position) -> Watermark:
            return Watermark(
                relay=self.relay, run=start.run, topic_id=self._topic_id, seq=position.seq, time=position.time
            )

        if not start.announced:
            publisher.control(
                Run(
                    relay=self.relay, run=start.run, topic_id=self._topic_id, mode=start.mode,
                    days=self.options.request.days, asked_from=start.asked_from,
                    oldest_seq=start.oldest.seq if start.oldest else None,
                    oldest_time=start.oldest.time if start.oldest else None,
                    from_seq=start.position.seq + 1,
                    head_seq=start.head.seq if start.head else None, head_time=start.head.time if start.head else None,
                )
            )  # fmt: skip
            if start.missing is not None:
                publisher.control(start.missing)
        publisher.mark_with(watermark, start.position)

    def _go_back(self, publisher: Publisher) -> None:
        """The next publisher begins at the last watermark that Kafka has, whatever was reached after it."""
        self._head_reached = False
        if publisher.durable is not None:
            self._start.position = publisher.durable
            self._start.known = publisher.durable.time is not None

    def _on_publisher_change(self) -> None:
        connection, publisher = self._connection, self._publisher
        if connection is None or publisher is None:
            return
        if not publisher.full:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = time.monotonic()
        if publisher.failure is not None:
            connection.finish("Kafka did not take a batch")
        elif publisher.full or self._waiting or self.pace.holding or self.memory.state == "pause":
            connection.pause()
        else:
            connection.resume()

    async def _announce(self, publisher: Publisher) -> None:
        """The run's first watermarks: a consumer learns of the run, and a restart resumes it."""
        crash_point("run.before_first_watermark")
        await publisher.mark()
        crash_point("run.after_first_watermark")
        self._start.announced = self._marked = True

    # -- reading: one connection until it ends
    async def _read_until_done(self, publisher: Publisher) -> None:
        """Connect, and connect again, until the head is reached or we are stopped. Raises SendError."""
        await self._announce(publisher)
        attempt = 0
        while not self._stop.is_set() and not self._head_reached:
            if publisher.failure is not None:
                raise SendError(str(publisher.failure) or repr(publisher.failure))
            before = self._continuity.last_seq if self._continuity is not None else None
            try:
                why = await self._one_connection(publisher)
            except SequenceReset as reset:
                await self._reset(publisher, reset)
                continue
            except ErrorFrame as error:
                if error.name == "FutureCursor" and self._may_begin_anew():
                    await self._reset(publisher, SequenceReset("FutureCursor: our position is beyond its head", None))
                    continue
                why = f"the relay said {error}"
            except (OSError, TimeoutError) as error:
                why = f"the relay cannot be reached: {str(error) or type(error).__name__}"
            except OversizedMessage as error:
                if attempt >= OVERSIZED_TRIES:
                    raise self._oversized(str(error)) from None
                why = f"the relay sends a message that is too large ({error})"
            if why == "head" or self._stop.is_set():
                return
            if self._continuity is not None and self._continuity.last_seq != before:
                attempt = 0  # it brought something new: what was seen before comes again with every connection
            self._say("relay", f"{why}; connecting again from the last event")
            await self._pause(attempt)
            attempt += 1

    async def _one_connection(self, publisher: Publisher) -> str:
        continuity = self._continuity
        assert continuity is not None
        intake = Intake(
            publisher, continuity, self.counts, relay=self.relay, run=self._start.run, keep=self._keep,
            head_seq=None if self.options.follow or self._start.head is None else self._start.head.seq,
            on_head=self._reach_head,
        )  # fmt: skip
        head = self._start.head
        if not self.options.follow and head is not None and continuity.last_seq >= head.seq and continuity.known:
            self._reach_head()
            return "head"
        cursor = continuity.reconnected()
        connection = await open_relay(
            self.settings.relay_url, cursor, intake.frame, intake.text,
            on_bytes=self.pace.received, max_size=self._budgets.frame,
        )  # fmt: skip
        self._connection = connection
        self.connections += 1
        try:
            self._on_publisher_change()
            return await self._watch(connection)
        finally:
            self._connection = None
            await connection.close()

    def _oversized(self, details: str) -> RelayError:
        """No connection gets past such a message, and to skip it is the operator's to say."""
        last = self._continuity.last_seq if self._continuity is not None else self._start.position.seq
        return RelayError(
            f"After seq {last} the relay {self.relay} sends a message of more than {self._budgets.frame >> 20} MB "
            f"({details}); the protocol's are at most 5 MB. Tell its operator; "
            "go on behind it with --from-time, which leaves a gap."
        )

    def _reach_head(self) -> None:
        self._head_reached = True
        if self._connection is not None:
            self._connection.finish("head")

    async def _watch(self, connection: RelayConnection) -> str:
        """Wait for the connection's end; judge silence meanwhile."""
        loop = asyncio.get_running_loop()
        frames, since = self.counts.frames, loop.time()
        idle = self.settings.ingest_idle_seconds
        while True:
            await asyncio.wait((connection.ended,), timeout=min(0.5, idle / 4))
            if connection.ended.done():
                return connection.ended.result()
            if self.counts.frames != frames or connection.paused:
                frames, since = self.counts.frames, loop.time()
                continue
            silent = loop.time() - since
            if not self.options.follow and silent >= idle and self.at_head:
                if await connection.answers(PONG):
                    log.info("the relay is quiet: taken as its head", idle_seconds=round(silent, 1))
                    self._reach_head()
                    return "head"
                return "stalled: no frame and no pong"
            if silent >= STALL + idle:
                if not self.at_head or not await connection.answers(PONG):
                    return "stalled: no frame" + ("" if self.at_head else " before the head")
                since = loop.time()

    @property
    def at_head(self) -> bool:
        """Whether silence can mean the head: the head seen at the start is reached, or was not known."""
        head, continuity = self._start.head, self._continuity
        return head is None or (continuity is not None and continuity.last_seq >= head.seq)

    def _may_begin_anew(self) -> bool:
        """Whether FutureCursor can mean a reset: not twice in a row, without a frame in between."""
        return self._start.mode != "reset" or (self._continuity is not None and self._continuity.known)

    async def _reset(self, publisher: Publisher, reset: SequenceReset) -> None:
        """The relay's sequence began anew: what lies between is a gap, and a new run takes all that it keeps."""
        log.warning("the relay's sequence was reset: beginning a new run with all that it keeps", reason=str(reset))
        await publisher.mark()
        old, continuity = self._start, self._continuity
        assert continuity is not None
        start = await self._start_after_reset(old)
        if start is None:
            return
        start.missing = Gap(
            relay=self.relay, run=old.run, from_seq=continuity.last_seq + 1, to_seq=None,
            from_time=continuity.newest_time, to_time=reset.time or (start.oldest.time if start.oldest else None),
            reason=f"the relay's sequence was reset: {reset}",
        )  # fmt: skip
        self._start = start
        self._planned_at = time.time_ns() // 1000
        self.counts.gaps += 1
        self._begin_run(publisher)
        await self._announce(publisher)

    async def _start_after_reset(self, old: RunStart) -> RunStart | None:
        """Where the new sequence begins; None when we are stopped before the relay could be asked."""
        attempt = 0
        while not self._stop.is_set():
            try:
                return await plan_start(self.settings.relay_url, Decision("reset", None, None), after_run=old.run)
            except RelayError as error:
                self._say("relay", str(error))
                await self._pause(attempt)
                attempt += 1
        return None

    async def _pause(self, attempt: int) -> None:
        delay = min(60.0, 0.5 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay)

    # -- what people see
    def _say(self, about: str, text: str) -> None:
        """Log trouble, at most once a minute for each thing it is about."""
        now = time.monotonic()
        if now - self._said.get(about, -SAY_EVERY) >= SAY_EVERY:
            self._said[about] = now
            log.warning(text)

    def look(self, received: int) -> Look:
        """Where the reading stands, for its pace."""
        start, continuity, connection = self._start, self._continuity, self._connection
        return Look(
            now=time.monotonic(), wall=time.time_ns() // 1000, received=received,
            position=continuity.newest_time if continuity is not None else None,
            oldest=start.oldest.time if start.oldest is not None else None, oldest_at=self._planned_at,
            head=start.head.time if start.head is not None and not self.options.follow else None,
            waits=connection is not None and not connection.paused,
        )  # fmt: skip

    def _standing(self) -> Standing:
        return standing(self._start, self._continuity, self.counts)

    def state(self) -> IngestState:
        """This ingest, for ``status``, the metrics and the live page."""
        facts = Facts(
            relay=self.relay, days=self.options.request.days, start=self._start if self.started else None,
            continuity=self._continuity, counts=self.counts, rate=self._progress.pace().rate,
            unacknowledged=self.unacknowledged, web=self.options.web,
        )  # fmt: skip
        return ingest_state(facts, self._mode(), self.pace, self.memory)

    def _mode(self) -> tuple[IngestMode, str]:
        """What it does, and why."""
        full = self._full_since is not None and time.monotonic() - self._full_since >= FULL_SECONDS
        return ingest_mode(
            stopping=self._stop.is_set(), paused=self.pace.paused, planned=self.started,
            memory=self.memory.says if self.memory.state == "pause" else None,
            kafka_behind=self._publisher is None or full, waits_for_group=self._waiting,
            connected=self._connection is not None, pace=self.pace.mode,
        )  # fmt: skip

    def _on_pause(self, pause: Pause | None) -> None:
        """The command ``pause --ingest``, or ``resume``. Watermarks and the lock stay alive."""
        paused = pause is not None and pause.ingest
        if paused != self.pace.paused:
            log.warning(pause_line(pause if paused else None, "ingest"))
            self.pace.paused = paused

    async def _guard_retention(self) -> None:
        """Keep the topic's events for as long as its slowest group needs; wait for it where the disk does not allow."""
        guard = RetentionGuard(self.settings, self.info)
        while True:
            try:
                self._waiting = (await guard.look()).wait
            except (KafkaError, BrokerError) as error:
                log.debug("the topic's retention cannot be judged now", error=repr(error))
            if self._waiting:
                self._say("retention", "a slow group nears the topic's retention, and the disk is full: waiting for it")
            self._on_publisher_change()
            await asyncio.sleep(LOOK_EVERY)

    async def _watch_memory(self) -> None:
        """Over the limit the relay is not read; if that frees nothing, read on with a small budget."""
        while True:
            publisher = self._publisher
            self.memory.account.set("unacknowledged", publisher.unacknowledged if publisher is not None else 0)
            if self.memory.look():
                if publisher is not None:
                    publisher.limit(self._budget())
                self._on_publisher_change()
            await asyncio.sleep(LOOK_AT_MEMORY)

    def _budget(self) -> int:
        """Bytes that Kafka may owe us an answer for."""
        return SMALLEST_IN_FLIGHT if self.memory.state == "small" else self._budgets.unacknowledged

    async def _show(self, progress: IngestProgress) -> None:
        while True:
            await asyncio.sleep(1.0)
            progress.show(self._standing())


def _not_taken(publisher: Publisher, error: SendError) -> str:
    """What to say where Kafka did not take a batch."""
    if isinstance(publisher.failure, InvalidTimestampError):
        return (
            "Kafka refuses what we send: our clock is more than an hour ahead of the broker's. Set it right, "
            f"or let the broker stamp the topic {publisher.topic} (message.timestamp.type=LogAppendTime). Waiting."
        )
    return f"Kafka did not take a batch ({error}): going back to the last watermark"
