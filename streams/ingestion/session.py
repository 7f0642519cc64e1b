"""The life of an ingest: plan, publish until Kafka fails it, go back, publish again, end.

A publisher lives until Kafka fails it, a connection (``sources/firehose/reader.py``) until the relay ends it; both are
made anew, the first at the last watermark that Kafka has, the second at the last event taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka.errors import InvalidTimestampError, KafkaError

from streams.errors import BrokerError, MismatchError, RelayError
from streams.ingestion.pace import IngestPace
from streams.ingestion.report import Facts, ingest_state, report_end, report_plan, standing
from streams.ingestion.resume import ResumePoint, resume_point
from streams.kafka.client import explained, is_away
from streams.kafka.publisher import TOO_LARGE, Publisher, SendError
from streams.kafka.refusals import Refusals
from streams.kafka.retention import LOOK_EVERY, RetentionGuard
from streams.kafka.topic import MAX_MESSAGE_BYTES, TopicInfo, check_partitions, find_topic
from streams.kafka.topic_guard import TopicGuard
from streams.kafka.topic_limits import check_limits
from streams.kafka.watermarks import read_state
from streams.postgres.processes import Pause
from streams.resources.in_flight import Account
from streams.resources.machine import resident
from streams.resources.memory_budgets import SMALLEST_IN_FLIGHT, container_says, effective_memory_limit, ingest_budgets
from streams.resources.memory_watch import MemoryWatch, settle_memory
from streams.runtime.drills import crash_point, hog_memory
from streams.runtime.waiting import Ended, Patience
from streams.settings import Settings
from streams.sources.firehose.intake import Counts
from streams.sources.firehose.plan import Request, decide
from streams.sources.firehose.reader import NOT_TAKEN, RunReader
from streams.sources.firehose.reading import Reading
from streams.sources.firehose.relay import relay_name
from streams.sources.firehose.start import plan_start
from streams.status.heartbeat import Heartbeat, pause_line
from streams.status.process import IngestMode, IngestState, ingest_mode
from streams.ui.terminal.ingest_bar import IngestProgress

log = structlog.get_logger("streams.ingest")

#: Seconds that the last events may take into Kafka after we were told to stop.
STOP_PATIENCE: Final = 5.0
#: Seconds between two looks at our memory.
LOOK_AT_MEMORY: Final = 1.0
#: Seconds after which a Kafka that takes nothing more counts as away; for a moment that is its pace.
FULL_SECONDS: Final = 5.0
#: Seconds after which that is said.
SAY_FULL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    request: Request
    follow: bool
    standby: bool
    web: str | None = None


class Replay:
    """One ingest of one topic, from the plan to the end."""

    def __init__(
        self, settings: Settings, options: Options, info: TopicInfo, *, takes: int = MAX_MESSAGE_BYTES
    ) -> None:
        """``takes``: bytes that the topic takes at a time."""
        self.settings = settings
        self._takes = takes
        self._careful = takes < MAX_MESSAGE_BYTES
        self._refusals = Refusals()
        self.options = options
        self.info = info
        self.relay = relay_name(settings.relay_url)
        self.counts = Counts()
        self.lost_lock = False
        #: False while the plan is made: there is nothing to save yet.
        self.started = False
        self._patience = Patience(log)
        # None while the plan is made.
        self._reader: RunReader | None = None
        self._publisher: Publisher | None = None
        # Whether the relay is not read, for the sake of a slow group.
        self._waiting = False
        self.pace = IngestPace(settings, self._on_publisher_change)
        self._full_since: float | None = None
        self._progress = IngestProgress()
        self._heartbeat = Heartbeat(settings, "ingest", self.state, self._on_pause, self._on_workers)
        self._fault: BaseException | None = None
        self._budgets = ingest_budgets(effective_memory_limit(settings))
        self.memory = MemoryWatch(effective_memory_limit(settings), resident, Account.of_ingest(self._budgets))

    # -- from outside (any time)
    @property
    def unacknowledged(self) -> int:
        """Bytes that Kafka has not acknowledged."""
        return self._publisher.unacknowledged if self._publisher is not None else 0

    @property
    def connections(self) -> int:
        """Connections to the relay so far."""
        return self._reader.connections if self._reader is not None else 0

    @property
    def at_head(self) -> bool:
        """Whether the relay's head, as it was at the start, is reached."""
        return self._reader is not None and self._reader.at_head

    @property
    def begun(self) -> bool:
        """Whether the topic has this run's first messages."""
        return self._reader is not None and self._reader.start.announced

    def stop(self) -> None:
        """End soon, with everything that was taken in Kafka."""
        self._patience.end()
        if self._reader is not None:
            self._reader.finish("stopped")

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
        point = ResumePoint(state.lowest, state.topic_id)
        if not state.watermarks and not state.empty:
            point = await resume_point(self.settings, self.relay)
        decision = decide(self.options.request, point.watermark, self.relay)
        # Of all partitions: a run that died between its first watermarks is in some, and not the one resumed from.
        latest_run = max(state.latest_run, point.watermark.run if point.watermark is not None else 0)
        start = await plan_start(self.settings.relay_url, decision, after_run=latest_run)
        reader = self._reader = RunReader(
            self.settings, self._reading(), start, self._patience, self.counts,
            topic_id=point.topic_id or uuid.uuid4().hex, marked=state.topic_id is not None,
        )  # fmt: skip
        report_plan(self.settings, start, decision, self.options.request.days)
        log.info("[BACKFILL] Pace: " + self.pace.plan())
        if (sentence := container_says(self.settings)) is not None:
            log.warning("[BACKFILL] Memory: " + sentence)
        self.started = True
        await self._publish_until_done(reader)

    def _reading(self) -> Reading:
        return Reading(
            days=self.options.request.days, follow=self.options.follow, frame=self._budgets.frame,
            on_bytes=self.pace.received, on_connected=self._on_publisher_change,
        )  # fmt: skip

    # -- publishing: one publisher until it fails
    async def _publish_until_done(self, reader: RunReader) -> None:
        settle_memory()
        guard = TopicGuard(
            self.settings, self.info, self._fail, during="we wrote to it", known=self._written,
            mend="Start again to fill a new one, with another SINK_SCHEMA or an emptied one.",
        )  # fmt: skip
        works = (
            self._show(reader, guard), self._guard_retention(), guard.run(), self.pace.run(reader),
            hog_memory(), self._watch_memory(),  # in this order: what it takes at once is seen at once
        )  # fmt: skip
        beside = [asyncio.create_task(work) for work in works]
        for task in beside:
            task.add_done_callback(self._look_at)
        try:
            with contextlib.suppress(Ended):
                await self._publish_again_and_again(reader)
        finally:
            for task in beside:
                task.cancel()
            self._show_once(reader, final=True)
            self._progress.close()
            report_end(reader.start, reader.continuity, self.counts, head_reached=reader.head_reached)
        if self._fault is not None:
            raise self._fault

    async def _publish_again_and_again(self, reader: RunReader) -> None:
        """Until everything is in Kafka. Raises StreamsError, and Ended where we are stopped while we wait for Kafka."""
        attempt = 0
        while True:
            publisher = await self._connect_publisher(reader)
            before = reader.start.position
            try:
                reader.begin(publisher)
                await reader.read_until_done(publisher)
                await self._finish(reader, publisher)
                return
            except RelayError:
                with contextlib.suppress(SendError):
                    await self._finish(reader, publisher)  # what was taken before counts
                raise
            except SendError as error:
                self._patience.say("kafka", self._not_taken(publisher.failure, error))
                reader.go_back(publisher)
                await self._check_topic(reader)
                attempt = 0 if reader.start.position != before else attempt + 1
                self._refusals.note(publisher.failure, self.info.name, further=not attempt)
            finally:
                self._publisher = None
                await publisher.stop()
            if attempt:  # it takes nothing at all: asked again and again it would not either
                await self._patience.wait(attempt)

    def _look_at(self, task: asyncio.Task[None]) -> None:
        """What works beside the reading must not end unseen: without it we would go on unguarded."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _written(self) -> dict[int, int]:
        return self._publisher.written if self._publisher is not None else {}

    async def _finish(self, reader: RunReader, publisher: Publisher) -> None:
        """Everything that was taken into Kafka; when we were told to stop, for a few seconds only."""
        try:
            crash_point("drain.before")
            await reader.until_taken(publisher.drain())
        except Ended:
            if self.lost_lock:
                return
            try:
                async with asyncio.timeout(STOP_PATIENCE):
                    await publisher.drain()
            except TimeoutError:
                log.warning("Kafka did not take the last events in time: the next ingest takes them again")
                return
        crash_point("drain.after")

    async def _connect_publisher(self, reader: RunReader) -> Publisher:
        """A started publisher; a broker that is away is waited for, except at the start. Raises Ended."""
        attempt = 0
        while True:
            publisher = Publisher(
                self.settings, self.info, budget=self._unacknowledged(), on_change=self._on_publisher_change,
                remembered=self._budgets.dids, on_buried=self._note_buried,
                takes=self._takes if self._careful else None,
            )  # fmt: skip
            try:
                await self._patience.unless_ended(publisher.start())
                self._publisher = publisher
                return publisher
            except KafkaError as error:
                fault = await explained(self.settings, error)
                if not reader.marked or not is_away(error):
                    raise fault from None
                self._patience.say("kafka", f"{fault} Waiting for it.")
                await self._patience.wait(attempt)
                attempt += 1

    async def _check_topic(self, reader: RunReader) -> None:
        """After Kafka refused a batch: is the topic still the one that we write? Waits while the broker is away.

        Raises MismatchError where it is not, Ended.
        """
        attempt = 0
        while not await self._patience.unless_ended(self._is_the_topic(reader)):
            await self._patience.wait(attempt)
            attempt += 1

    async def _is_the_topic(self, reader: RunReader) -> bool:
        """Whether the topic is the one that we write; False while the broker is away."""
        try:
            info = await find_topic(self.settings)
            if info is not None:
                check_partitions(info, self.info.partitions)
                state = await read_state(self.settings, info)
                if not reader.marked or state.topic_id == reader.topic_id:
                    self._takes = await check_limits(self.settings, info, quiet=True)
                    return True
        except BrokerError as error:
            self._patience.say("kafka", str(error))
            return False
        raise MismatchError(
            f"The topic {self.info.name} was deleted or re-created while we wrote to it",
            "start again to fill a new one, with another SINK_SCHEMA or an emptied one.",
        )

    def _not_taken(self, failure: BaseException | None, error: SendError) -> str:
        """What to say where Kafka did not take a batch, and is done otherwise from here on. Raises MismatchError."""
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
        """A record that the topic cannot hold became a dead letter."""
        self.counts.events -= 1
        self.counts.dead += 1
        self.counts.dead_operations += 1

    def _on_publisher_change(self) -> None:
        connection = self._reader.connection if self._reader is not None else None
        publisher = self._publisher
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

    # -- what people see
    def state(self) -> IngestState:
        """This ingest, for ``status``, the metrics and the live page."""
        reader = self._reader
        facts = Facts(
            relay=self.relay, days=self.options.request.days, start=reader.start if reader is not None else None,
            continuity=reader.continuity if reader is not None else None, counts=self.counts,
            rate=self._progress.rate, unacknowledged=self.unacknowledged, web=self.options.web,
        )  # fmt: skip
        return ingest_state(facts, self._mode(), self.pace, self.memory)

    def _mode(self) -> tuple[IngestMode, str]:
        """What it does, and why."""
        behind = self._publisher is None or self._full_for() >= FULL_SECONDS
        return ingest_mode(
            stopping=self._patience.ended, paused=self.pace.paused, planned=self.started,
            memory=self.memory.says if self.memory.state == "pause" else None,
            kafka_behind=behind or (self._reader is not None and self._reader.marking), waits_for_group=self._waiting,
            connected=self._reader is not None and self._reader.connection is not None, pace=self.pace.mode,
        )  # fmt: skip

    def _on_pause(self, pause: Pause | None) -> None:
        """The command ``pause --ingest``, or ``resume``. Watermarks and the lock stay alive."""
        paused = pause is not None and pause.ingest
        if paused != self.pace.paused:
            log.warning(pause_line(pause if paused else None, "ingest"))
            self.pace.paused = paused

    def _on_workers(self, workers: int) -> None:
        """So many workers are there: the ingest reads what they can apply."""
        self.pace.workers = workers

    async def _guard_retention(self) -> None:
        """Keep the topic's events for as long as its slowest group needs; wait for it where the disk does not allow."""
        guard = RetentionGuard(self.settings, self.info)
        while True:
            try:
                self._waiting = (await guard.look()).wait
            except (KafkaError, BrokerError) as error:
                log.debug("the topic's retention cannot be judged now", error=repr(error))
            if self._waiting:
                self._patience.say(
                    "retention", "a slow group nears its retention, and the disk is full: it is waited for"
                )
            self._on_publisher_change()
            await asyncio.sleep(LOOK_EVERY)

    async def _watch_memory(self) -> None:
        """Over the limit the relay is not read; if that frees nothing, read on with a small budget."""
        while True:
            publisher = self._publisher
            self.memory.account.set("unacknowledged", publisher.unacknowledged if publisher is not None else 0)
            if self.memory.look():
                if publisher is not None:
                    publisher.limit(self._unacknowledged())
                self._on_publisher_change()
            await asyncio.sleep(LOOK_AT_MEMORY)

    def _unacknowledged(self) -> int:
        """Bytes that Kafka may owe us an answer for; a careful publisher holds them twice."""
        most = SMALLEST_IN_FLIGHT if self.memory.state == "small" else self._budgets.unacknowledged
        return max(most // 2, SMALLEST_IN_FLIGHT) if self._careful else most

    def _full_for(self) -> float:
        """Seconds for which Kafka has owed us an answer for as much as we let it."""
        if self._publisher is None or not self._publisher.full or self._full_since is None:
            return 0.0
        return time.monotonic() - self._full_since

    async def _show(self, reader: RunReader, guard: TopicGuard) -> None:
        self._progress.begin()
        while True:
            await asyncio.sleep(1.0)
            self._show_once(reader)
            if self._full_for() >= SAY_FULL_SECONDS and not guard.is_away:  # else the guard says so
                self._patience.say("kafka", NOT_TAKEN)

    def _show_once(self, reader: RunReader, *, final: bool = False) -> None:
        at = standing(reader.start, reader.continuity, self.counts)
        self._progress.show(at, left=self.pace.outlook.left, final=final)
