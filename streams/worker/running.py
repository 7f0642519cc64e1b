"""A pipeline that runs: the sink, the lanes, the throttle, and what runs beside them.

Made by the checks (``streams/worker/checks.py``). The transport asks it for positions, for what is in flight, and
whether standing still is intended; the agent hands it the slices.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import faust
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from streams.errors import StreamsError
from streams.kafka.topic import TopicInfo
from streams.kafka.topic_guard import TopicGuard
from streams.postgres.cursor import write_cursor
from streams.postgres.database import Database
from streams.postgres.processes import Pause
from streams.resources.in_flight import InFlightBudget
from streams.resources.machine import Machine
from streams.resources.memory_budgets import effective_memory_limit
from streams.resources.memory_watch import freeze_startup_memory, memory_line
from streams.runtime.drills import WorkerPoint, crash_point, hog_memory
from streams.runtime.rates import Rate
from streams.runtime.tasks import end_tasks
from streams.settings import Settings
from streams.sink_postgres import Fenced, PostgresSink, Written
from streams.status.estimate import say_estimates
from streams.status.heartbeat import Heartbeat, pause_line
from streams.status.process import MemoryUse, Mode, WorkerState
from streams.tables import Tables
from streams.ui.terminal.worker_line import SHOW_EVERY, WorkerProgress
from streams.ui.web.figures import Durations, HeldPartition, WorkerFigures
from streams.worker.ingest_child import Child, ingest_command
from streams.worker.lanes import Lanes, SliceEvent
from streams.worker.report import REPORT_SECONDS, Reporter
from streams.worker.throttle import Throttle
from streams.worker.transport import Consumer
from streams.worker.web import WorkerWeb

log = logging.getLogger(__name__)

#: Seconds between two writes of cursor and tables, while something moves.
SAVE_SECONDS: Final = 1.0
#: Seconds between two looks whether somebody set a position back (a replay, a restored dump).
LOOK_BACK_SECONDS: Final = 3.0
#: Seconds that the last save may take, at the end.
LAST_SAVE_SECONDS: Final = 2.0
#: Said of a topic that was deleted or re-created while we read it.
MEND_TOPIC: Final = "What was read is in Postgres; for another topic take another SINK_GROUP and SINK_SCHEMA."


class RunningPipeline:
    """Everything of a worker but Faust's own services. ``start`` it, then ``wind_down``, then ``close``.

    ``fail`` ends the process. Raises SettingsError where no web port is free.
    """

    def __init__(
        self, app: faust.App, settings: Settings, *, tables: Tables, info: TopicInfo, database: Database,
        sink: PostgresSink, fail: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self.settings, self.fail = settings, fail
        self._app, self._info = app, info
        self._tables, self._database, self._sink = tables, database, sink
        self._machine = Machine(settings)
        self._throttle = Throttle(settings, self._machine)
        self._guard = TopicGuard(settings, info, fail, during="we read it", mend=MEND_TOPIC, known=self.reached)
        self._heartbeat = Heartbeat(settings, "worker", self.state, self.set_pause)
        self._reporter = Reporter(lambda: memory_line(self._machine.rss(), effective_memory_limit(settings)))
        self._rate, self._durations = Rate(), Durations()
        self._watermarks: dict[int, dt.datetime] = {}
        self._rebalances = 0
        self._tasks: list[asyncio.Task[None]] = []
        # A worker before us may have died between its last slice and its cursor: write the cursor once in any case.
        self._moved = True
        self._lanes: Lanes | None = None  # from the first slice on: Faust makes its consumer late
        self._child: Child | None = None
        self._stopping = False
        self._progress = WorkerProgress()
        app.on_rebalance_complete.connect(self._on_rebalance)
        self._web = WorkerWeb(app, settings, self.figures, self._ask_database)

    # -- life

    async def start(self) -> None:
        """Begin what runs beside the agents."""
        freeze_startup_memory()
        self._spawn(hog_memory())
        await self._throttle.start()
        await self._web.start()
        self._spawn(self._guard.run())
        self._spawn(self._save())
        self._spawn(self._report())
        self._spawn(self._look_back())
        self._spawn(say_estimates(self.settings, self._info, self._database))
        self._spawn(self._heartbeat.run())
        if self._progress.start():
            self._spawn(self._show())
        if self.settings.backfill_days != 0 and self.settings.worker_id == 0:
            self._child = Child(ingest_command(self.settings.backfill_days), self.fail)
            self._spawn(self._child.run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_done)
        self._tasks.append(task)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def wind_down(self) -> None:
        """End the ingest, and write the tables while their producer is still there: the worker is about to stop."""
        self._flush_tables()
        self._stopping = True
        if self._child is not None:
            await self._child.stop()

    async def close(self) -> None:
        """Write the last cursor and the last report: the agents have stopped."""
        await end_tasks(self._tasks)
        await self._web.close()
        self._progress.close()
        await self._throttle.close()
        with suppress(TimeoutError, StreamsError):
            async with asyncio.timeout(LAST_SAVE_SECONDS):
                crash_point(WorkerPoint.SHUTDOWN_BEFORE_CURSOR)
                await self._write_cursor()
                crash_point(WorkerPoint.SHUTDOWN_AFTER_CURSOR)
        self._reporter.report()
        await self._heartbeat.end()
        await self._database.close()

    # -- the way of a slice

    async def submit(self, event: SliceEvent) -> None:
        """Take in a slice; return when the next one may be pulled."""
        if self._lanes is None:
            self._lanes = Lanes(
                self._consumer, self._sink, self._throttle, on_written=self._on_written, on_fault=self.fail
            )
        await self._lanes.submit(event)

    async def wait_for_memory(self) -> None:
        """Wait while memory is short. The caller must hold no slice."""
        await self._throttle.wait_for_memory(lambda: not self._app.should_stop)

    def _on_written(self, partition: int, written: Written, seconds: float) -> None:
        self._moved = True
        self._durations.add(seconds)
        self._reporter.counts.add(written.received, written.applied, written.skipped, written.dead)
        self._tables.note(partition, written)
        if written.watermark is not None and written.watermark.time is not None:
            self._watermarks[partition] = written.watermark.time

    @property
    def _consumer(self) -> Consumer:
        consumer = self._app.consumer
        assert isinstance(consumer, Consumer)
        return consumer

    # -- what the transport asks

    @property
    def budget(self) -> InFlightBudget:
        """The bytes that are in flight, and that may be."""
        return self._throttle.memory.budget

    async def positions(self, log_starts: Mapping[int, int]) -> dict[int, int]:
        """Return the next offset of each partition; write a gap where the log no longer holds it."""
        while True:
            found = await self._sink.positions(set(log_starts), log_starts)
            behind = {p: offset for p, offset in found.items() if offset < log_starts[p]}
            if not behind:
                return found
            for partition, offset in behind.items():
                with suppress(Fenced):
                    await self._sink.jump(partition, offset, log_starts[partition])
                    log.error(
                        "%s/%d: offsets %d to %d had left the topic before they were read: see the table gaps.",
                        self._info.name, partition, offset, log_starts[partition] - 1,
                    )  # fmt: skip

    def is_waiting(self) -> bool:
        """Return True while standing still is intended (the throttle), or a broker or database is away."""
        lanes = self._lanes
        return self._throttle.is_waiting or self._guard.is_away or (lanes is not None and lanes.writing > 0)

    # -- what it says of itself

    def state(self) -> WorkerState:
        """Return the state of this worker, for ``status``, the metrics and the live page."""
        counts, memory = self._reporter.counts, self._throttle.memory
        mode, why = self._mode()
        self._rate.add(time.monotonic(), counts.received)
        return WorkerState(
            mode=mode,
            why=why,
            memory=MemoryUse(
                rss=memory.rss or self._machine.rss(),
                limit=memory.limit,
                in_flight=memory.budget.in_flight,
                budget=memory.budget.total,
            ),
            machine=self._throttle.machine,
            partitions=tuple(sorted(self._assigned())),
            received=counts.received,
            processed=counts.processed,
            skipped=counts.skipped,
            dead=counts.dead,
            rate=self._rate.per_second,
            transactions=self._throttle.transactions,
            transactions_max=self.settings.backfill_max_concurrent,
            web=self._web.address,
        )

    def figures(self) -> WorkerFigures:
        """Return the figures of this worker and its partitions, for its own web port and for the terminal."""
        state, reached, lanes = self.state(), self.reached(), self._lanes
        return WorkerFigures(
            state=state,
            assigned=self._rebalances > 0 and not self._app.rebalancing,
            rebalances=self._rebalances,
            broker_away=self._guard.is_away,
            held=tuple(
                HeldPartition(partition, reached[partition], self._end(partition), self._watermarks.get(partition))
                for partition in state.partitions
                if partition in reached
            ),
            durations=self._durations,
            transactions=lanes.writing if lanes is not None else 0,
            most_transactions=lanes.most_writing if lanes is not None else 0,
        )

    def reached(self) -> dict[int, int]:
        """Return the offsets up to which the partitions are written that are or were ours."""
        return {tp.partition: offset for tp, offset in self._consumer.reached.items() if tp.topic == self._info.name}

    def _end(self, partition: int) -> int | None:
        """Return the partition's end, as the last fetch told it; None where that is not known."""
        try:
            end: int | None = self._app.consumer.highwater(TP(self._info.name, partition))
        except Exception:
            return None  # it was just taken from us
        return end

    async def _ask_database(self) -> None:
        """Return once the database answers."""
        await self._database.run(lambda connection: connection.execute("SELECT 1"))

    async def _on_rebalance(self, *_: object, **__: object) -> None:
        self._rebalances += 1

    def _mode(self) -> tuple[Mode, str]:
        """Return what it does, and why: the first that is true."""
        if self._stopping:
            return Mode.STOPPING, "it was told to stop"
        if self._throttle.paused:
            return Mode.PAUSED, "by the command pause; resume ends that"
        if self._database.is_away:
            return (
                Mode.NO_DATABASE,
                f"Postgres at {self._database.place} does not answer: its transactions are tried again",
            )
        if self._guard.is_away:
            return Mode.NO_BROKER, "Kafka does not answer"
        if not self._assigned():
            return Mode.STARTING, "it has no partition: it joins, or there are more workers than partitions"
        return self._throttle.mode, self._throttle.why

    def _assigned(self) -> set[int]:
        """Return the partitions that are ours."""
        try:
            assigned = self._app.consumer.assignment()
        except ConsumerNotStarted:
            return set()
        return {tp.partition for tp in assigned if tp.topic == self._info.name}

    def set_pause(self, pause: Pause | None) -> None:
        """Obey the command ``pause``, or ``resume``."""
        if self._throttle.paused != (pause is not None):
            self._throttle.paused = pause is not None
            log.warning("[BACKFILL] %s", pause_line(pause, "worker"))

    # -- beside it

    async def _save(self) -> None:
        """Write cursor and tables, about once a second while something moves."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if self._moved:
                self._moved = False
                await self._write_cursor()
            if self._tables.pending:  # also changes that could not be written at once
                self._flush_tables()

    async def _look_back(self) -> None:
        """Go back to a position that was set back, also where no message comes whose transaction would be fenced."""
        while True:
            await asyncio.sleep(LOOK_BACK_SECONDS)
            consumer = self._consumer
            # Read before the database is asked: our own writes meanwhile only move its positions on.
            known = {
                p: offset for p, offset in self.reached().items() if TP(self._info.name, p) in consumer.assignment()
            }
            held = await self._sink.positions(set(known), {}) if known else {}
            for partition, offset in known.items():
                if held.get(partition, offset) < offset:
                    log.info("%s/%d was set back to %d.", self._info.name, partition, held[partition])
                    consumer.reseek(TP(self._info.name, partition))

    async def _write_cursor(self) -> None:
        settings = self.settings
        cursor = await write_cursor(
            self._database,
            topic=settings.kafka_topic,
            group=settings.sink_group,
            service=settings.cursor_service,
            partitions=self._info.partitions,
        )
        if cursor is not None:
            self._reporter.cursor = cursor

    def _flush_tables(self) -> None:
        """Write the tables. They are advisory: an error costs a log line, and they are written again."""
        if self._lanes is None or self._stopping or self._app.rebalancing or self._app.in_recovery:
            return  # sending to a producer that has stopped crashes the worker
        topic = self.settings.kafka_topic
        try:
            crash_point(WorkerPoint.TABLES_BEFORE_FLUSH)
            self._tables.flush([tp.partition for tp in self._app.consumer.assignment() if tp.topic == topic])
            crash_point(WorkerPoint.TABLES_AFTER_FLUSH)
        except Exception:
            log.exception("The tables could not be written.")

    async def _show(self) -> None:
        """Show the progress on a terminal."""
        while True:
            figures = self.figures()
            self._progress.show(figures.state, figures.lag)
            await asyncio.sleep(SHOW_EVERY)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._reporter.report()
