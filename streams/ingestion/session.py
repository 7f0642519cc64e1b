"""The life of an ingest: plan, publish until Kafka fails it, go back, publish again, end.

A publisher lives until Kafka fails it, a connection (``sources/firehose/reader.py``) until the relay ends it. Then the
next one is made: a publisher at the last watermark that Kafka has, a connection at the last event that was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka.errors import InvalidTimestampError, KafkaError

from streams.errors import BrokerError, MismatchError, RelayError
from streams.ingestion.backpressure import Backpressure, HoldReason
from streams.ingestion.pace import IngestPace
from streams.ingestion.report import Facts, ingest_position, ingest_state, report_end, report_plan
from streams.ingestion.resume import ResumePoint, resume_point
from streams.kafka.client import explained, is_away
from streams.kafka.publisher import TOO_LARGE, Publisher, SendError
from streams.kafka.refusals import Refusals
from streams.kafka.retention import CHECK_EVERY, RetentionGuard
from streams.kafka.topic import MAX_MESSAGE_BYTES, TopicInfo, check_partitions, find_topic
from streams.kafka.topic_guard import TopicGuard
from streams.kafka.topic_limits import check_limits
from streams.kafka.watermarks import read_state
from streams.postgres.processes import Pause
from streams.resources.in_flight import InFlightBudget
from streams.resources.machine import resident
from streams.resources.memory_budgets import SMALLEST_IN_FLIGHT, container_says, effective_memory_limit, ingest_budgets
from streams.resources.memory_watch import MemoryWatch, freeze_startup_memory
from streams.runtime.drills import IngestPoint, crash_point, hog_memory
from streams.runtime.waiting import RateLimitedLog, Stopped, StopSignal
from streams.settings import Settings
from streams.sources.firehose.intake import FrameCounts
from streams.sources.firehose.plan import Request, decide
from streams.sources.firehose.read_options import ReadOptions
from streams.sources.firehose.reader import NOT_TAKEN, FirehoseReader
from streams.sources.firehose.relay import relay_name
from streams.sources.firehose.start import plan_start
from streams.status.heartbeat import Heartbeat, pause_line
from streams.status.process import IngestState, Mode, ingest_mode
from streams.ui.terminal.ingest_bar import IngestProgress

log = structlog.get_logger("streams.ingest")

#: Seconds that the last events may take into Kafka after we were told to stop.
STOP_TIMEOUT: Final = 5.0
#: Seconds between two samples of our memory.
MEMORY_EVERY: Final = 1.0
#: Seconds after which a Kafka that takes nothing more counts as away. For a moment that is its pace.
FULL_SECONDS: Final = 5.0
#: Seconds after which that is logged.
SAY_FULL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line, and ``web``: the page's address."""

    request: Request
    follow: bool
    standby: bool
    web: str | None = None


class IngestSession:
    """One ingest of one topic, from the plan to the end."""

    def __init__(
        self, settings: Settings, options: Options, info: TopicInfo, *, takes: int = MAX_MESSAGE_BYTES
    ) -> None:
        """``takes``: the most bytes that the topic takes at a time."""
        self.settings = settings
        self._takes = takes
        self._careful = takes < MAX_MESSAGE_BYTES
        self._refusals = Refusals()
        self.options = options
        self.info = info
        self.relay = relay_name(settings.relay_url)
        self.counts = FrameCounts()
        self.lost_lock = False
        #: False while the plan is made: there is nothing to save yet.
        self.started = False
        self._stop = StopSignal()
        self._trouble = RateLimitedLog(log)
        # None while the plan is made.
        self._reader: FirehoseReader | None = None
        self._publisher: Publisher | None = None
        self._backpressure = Backpressure(self._hold)
        self.pace = IngestPace(settings, functools.partial(self._backpressure.set, HoldReason.PACE))
        self._progress = IngestProgress()
        self._heartbeat = Heartbeat(settings, "ingest", self.state, self._on_pause, self._on_workers)
        self._fault: BaseException | None = None
        self._budgets = ingest_budgets(effective_memory_limit(settings))
        self.memory = MemoryWatch(effective_memory_limit(settings), resident, InFlightBudget.of_ingest(self._budgets))

    # -- from outside (any time)
    @property
    def unacknowledged(self) -> int:
        """Return the bytes that Kafka has not acknowledged."""
        return self._publisher.unacknowledged if self._publisher is not None else 0

    @property
    def connections(self) -> int:
        """Return the number of connections to the relay so far."""
        return self._reader.connections if self._reader is not None else 0

    @property
    def at_head(self) -> bool:
        """Return whether the relay's head, as it was at the start, is reached."""
        return self._reader is not None and self._reader.at_head

    @property
    def has_begun(self) -> bool:
        """Return whether the topic has this run's first messages."""
        return self._reader is not None and self._reader.has_announced

    def stop(self) -> None:
        """End soon, with everything that was read in Kafka."""
        self._stop.set()
        if self._reader is not None:
            self._reader.stop()

    def _fail(self, error: BaseException) -> None:
        """End soon, and raise the error then."""
        self._fault = error
        self.stop()

    def lose_lock(self) -> None:
        """End at once: another ingest holds the topic now."""
        self.lost_lock = True
        self.stop()

    # -- the plan
    async def run(self) -> None:
        """Read what was asked for into the topic. Return at the head, or after ``stop``. Raises StreamsError."""
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
        point = ResumePoint(state.lowest, state.topic_id)
        if not state.watermarks and not state.empty:
            point = await resume_point(self.settings, self.relay)
        decision = decide(self.options.request, point.watermark, self.relay)
        # Of all partitions: a run that died between its first watermarks is in some, and not the one resumed from.
        latest_run = max(state.latest_run, point.watermark.run if point.watermark is not None else 0)
        start = await plan_start(self.settings.relay_url, decision, after_run=latest_run)
        reader = self._reader = FirehoseReader(
            self.settings, self._read_options(), start, self.counts, stop=self._stop, trouble=self._trouble,
            topic_id=point.topic_id or uuid.uuid4().hex, has_watermarks=state.topic_id is not None,
        )  # fmt: skip
        reader.hold(self._backpressure.is_held)
        report_plan(self.settings, start, decision, self.options.request.days)
        log.info("[BACKFILL] Pace: " + self.pace.plan())
        if (sentence := container_says(self.settings)) is not None:
            log.warning("[BACKFILL] Memory: " + sentence)
        self.started = True
        await self._publish_until_done(reader)

    def _read_options(self) -> ReadOptions:
        return ReadOptions(
            days=self.options.request.days, follow=self.options.follow, frame=self._budgets.frame,
            on_bytes=self.pace.received,
        )  # fmt: skip

    # -- publishing: one publisher until it fails
    async def _publish_until_done(self, reader: FirehoseReader) -> None:
        freeze_startup_memory()
        guard = TopicGuard(
            self.settings, self.info, self._fail, during="we wrote to it", known=self._written,
            mend="Start again to fill a new one, with another SINK_SCHEMA or an emptied one.",
        )  # fmt: skip
        background = (
            self._show(reader, guard), self._guard_retention(), guard.run(), self.pace.run(reader.progress),
            hog_memory(), self._watch_memory(),  # in this order: memory that the hog takes is seen at once
        )  # fmt: skip
        tasks = [asyncio.create_task(work) for work in background]
        for task in tasks:
            task.add_done_callback(self._fail_with)
        try:
            with contextlib.suppress(Stopped):
                await self._publish_with_retries(reader)
        finally:
            for task in tasks:
                task.cancel()
            self._show_once(reader, final=True)
            self._progress.close()
            report_end(reader.start, reader.continuity, self.counts, head_reached=reader.head_reached)
        if self._fault is not None:
            raise self._fault

    async def _publish_with_retries(self, reader: FirehoseReader) -> None:
        """Publish with one publisher after another until everything is in Kafka.

        Raises StreamsError, and Stopped if we are told to stop while we wait for Kafka.
        """
        attempt = 0
        while True:
            publisher = await self._connect_publisher(reader)
            try:
                reader.begin(publisher)
                await reader.read(publisher)
                await self._finish(reader, publisher)
                return
            except RelayError:
                with contextlib.suppress(SendError):
                    await self._finish(reader, publisher)  # keep what was read before
                raise
            except SendError as error:
                self._trouble.warning("kafka", self._not_taken(publisher.failure, error))
                attempt = 0 if reader.go_back(publisher) else attempt + 1
                await self._check_topic(reader)
                self._refusals.note(publisher.failure, self.info.name, further=not attempt)
            finally:
                self._publisher = None
                self._backpressure.set(HoldReason.KAFKA_FULL, on=False)
                await publisher.stop()
            if attempt:  # it takes nothing at all now
                await self._stop.backoff(attempt)

    def _fail_with(self, task: asyncio.Task[None]) -> None:
        """Stop the ingest if a background task failed: without its guards it must not continue."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _written(self) -> dict[int, int]:
        return self._publisher.written if self._publisher is not None else {}

    async def _finish(self, reader: FirehoseReader, publisher: Publisher) -> None:
        """Wait until everything that was read is in Kafka; after a stop only for a few seconds."""
        try:
            crash_point(IngestPoint.DRAIN_BEFORE)
            await reader.drain(publisher)
        except Stopped:
            if self.lost_lock:
                return
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await publisher.drain()
            except TimeoutError:
                log.warning("Kafka did not take the last events in time: the next ingest takes them again")
                return
        crash_point(IngestPoint.DRAIN_AFTER)

    async def _connect_publisher(self, reader: FirehoseReader) -> Publisher:
        """Return a started publisher. Wait for a broker that is away, except at the start. Raises Stopped."""
        attempt = 0
        while True:
            publisher = Publisher(
                self.settings, self.info, budget=self._unacknowledged(), on_change=self._on_publisher_change,
                remembered=self._budgets.dids, on_buried=self._note_buried,
                takes=self._takes if self._careful else None,
            )  # fmt: skip
            try:
                await self._stop.race(publisher.start())
                self._publisher = publisher
                return publisher
            except KafkaError as error:
                fault = await explained(self.settings, error)
                if not reader.has_watermarks or not is_away(error):
                    raise fault from None
                self._trouble.warning("kafka", f"{fault} Waiting for it.")
                await self._stop.backoff(attempt)
                attempt += 1

    async def _check_topic(self, reader: FirehoseReader) -> None:
        """Check, after Kafka refused a batch, that the topic is still ours. Wait while the broker is away.

        Raises MismatchError if it is another topic, Stopped.
        """
        attempt = 0
        while not await self._stop.race(self._is_the_topic(reader)):
            await self._stop.backoff(attempt)
            attempt += 1

    async def _is_the_topic(self, reader: FirehoseReader) -> bool:
        """Return True if the topic is the one that we write, False while the broker is away. Raises MismatchError."""
        try:
            info = await find_topic(self.settings)
            if info is not None:
                check_partitions(info, self.info.partitions)
                state = await read_state(self.settings, info)
                if not reader.has_watermarks or state.topic_id == reader.topic_id:
                    self._takes = await check_limits(self.settings, info, quiet=True)
                    return True
        except BrokerError as error:
            self._trouble.warning("kafka", str(error))
            return False
        raise MismatchError(
            f"The topic {self.info.name} was deleted or re-created while we wrote to it",
            "start again to fill a new one, with another SINK_SCHEMA or an emptied one.",
        )

    def _not_taken(self, failure: BaseException | None, error: SendError) -> str:
        """Return the log line for a refused batch, and remember a refusal for its size. Raises MismatchError."""
        if isinstance(failure, MismatchError):
            raise failure
        if isinstance(failure, TOO_LARGE):
            self._careful = True
            return (
                f"The topic {self.info.name} refuses a batch for its size: going back to the last watermark; "
                "from here on a record that it cannot hold becomes a dead letter"
            )
        if isinstance(failure, InvalidTimestampError):
            return (
                "Kafka refuses what we send: our clock is more than an hour ahead of the broker's. Set it right, "
                f"or let the broker stamp the topic {self.info.name} (message.timestamp.type=LogAppendTime). Waiting."
            )
        return f"Kafka did not take a batch ({error}): going back to the last watermark"

    def _note_buried(self) -> None:
        """Count a record that the topic cannot hold as a dead letter."""
        self.counts.events -= 1
        self.counts.dead += 1
        self.counts.dead_operations += 1

    def _on_publisher_change(self) -> None:
        publisher = self._publisher
        if publisher is None:
            return
        if publisher.failure is not None and self._reader is not None:
            self._reader.reconnect("Kafka did not take a batch")
        self._backpressure.set(HoldReason.KAFKA_FULL, publisher.full)

    def _hold(self, held: bool) -> None:
        if self._reader is not None:
            self._reader.hold(held)

    # -- what people see
    def state(self) -> IngestState:
        """Return the ingest's state, for ``status``, the metrics and the live page."""
        reader = self._reader
        facts = Facts(
            relay=self.relay, days=self.options.request.days, start=reader.start if reader is not None else None,
            continuity=reader.continuity if reader is not None else None, counts=self.counts,
            rate=self._progress.rate, unacknowledged=self.unacknowledged, web=self.options.web,
        )  # fmt: skip
        return ingest_state(facts, self._mode(), self.pace, self.memory)

    def _mode(self) -> tuple[Mode, str]:
        """Return what the ingest does, and why."""
        reader, held = self._reader, self._backpressure
        is_full = held.seconds(HoldReason.KAFKA_FULL) >= FULL_SECONDS
        is_writing = reader is not None and reader.is_writing_watermarks
        return ingest_mode(
            stopping=self._stop.is_set, paused=HoldReason.PAUSED in held, planned=self.started,
            memory=self.memory.says if HoldReason.MEMORY in held else None,
            kafka_behind=self._publisher is None or is_full or is_writing,
            waits_for_group=HoldReason.RETENTION in held, connected=reader is not None and reader.is_connected,
            pace=self.pace.mode,
        )  # fmt: skip

    def _on_pause(self, pause: Pause | None) -> None:
        """Follow the commands ``pause --ingest`` and ``resume``. Watermarks and the lock stay alive."""
        paused = pause is not None and pause.ingest
        if paused != (HoldReason.PAUSED in self._backpressure):
            log.warning(pause_line(pause if paused else None, "ingest"))
            self._backpressure.set(HoldReason.PAUSED, paused)

    def _on_workers(self, workers: int) -> None:
        """Read as much as so many workers can apply."""
        self.pace.workers = workers

    async def _guard_retention(self) -> None:
        """Keep the topic's events for its slowest group. If the disk does not allow that, wait for the group."""
        guard = RetentionGuard(self.settings, self.info)
        while True:
            try:
                self._backpressure.set(HoldReason.RETENTION, (await guard.check()).wait)
            except (KafkaError, BrokerError) as error:
                log.debug("the topic's retention cannot be judged now", error=repr(error))
            if HoldReason.RETENTION in self._backpressure:
                self._trouble.warning(
                    "retention", "a slow group nears its retention, and the disk is full: it is waited for"
                )
            await asyncio.sleep(CHECK_EVERY)

    async def _watch_memory(self) -> None:
        """Hold the source while memory is over the limit; if that frees nothing, read on with a small budget."""
        while True:
            publisher = self._publisher
            self.memory.budget.set("unacknowledged", publisher.unacknowledged if publisher is not None else 0)
            if self.memory.look():
                if publisher is not None:
                    publisher.limit(self._unacknowledged())
                self._backpressure.set(HoldReason.MEMORY, self.memory.state == "pause")
            await asyncio.sleep(MEMORY_EVERY)

    def _unacknowledged(self) -> int:
        """Return the most bytes that may be unacknowledged. A careful publisher holds them twice."""
        most = SMALLEST_IN_FLIGHT if self.memory.state == "small" else self._budgets.unacknowledged
        return max(most // 2, SMALLEST_IN_FLIGHT) if self._careful else most

    async def _show(self, reader: FirehoseReader, guard: TopicGuard) -> None:
        self._progress.begin()
        while True:
            await asyncio.sleep(1.0)
            self._show_once(reader)
            full = self._backpressure.seconds(HoldReason.KAFKA_FULL)
            if full >= SAY_FULL_SECONDS and not guard.is_away:  # otherwise the guard logs it
                self._trouble.warning("kafka", NOT_TAKEN)

    def _show_once(self, reader: FirehoseReader, *, final: bool = False) -> None:
        at = ingest_position(reader.start, reader.continuity, self.counts)
        self._progress.show(at, left=self.pace.outlook.left, final=final)
