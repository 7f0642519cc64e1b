"""One worker's pipeline: the sink, the lanes, the throttle, and what runs beside them; the host of the transport.

It is made when the module of the app is imported, without touching broker or database, and comes to life in ``check``
and ``start``.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import faust
from faust.exceptions import AlreadyConfiguredWarning, ConsumerNotStarted
from faust.types import TP

from streams.errors import SettingsError, StreamsError
from streams.kafka.topic import TopicInfo, check_partitions, ensure_topic
from streams.kafka.topic_guard import TopicGuard
from streams.kafka.topic_limits import check_limits
from streams.postgres.cursor import write_cursor
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.postgres.processes import Pause, pause_of
from streams.protocol.collection_filter import compile_patterns
from streams.resources.in_flight import Account
from streams.resources.machine import Machine
from streams.resources.memory_budgets import check_limit, effective_memory_limit, memory_limit
from streams.resources.memory_watch import memory_line, settle_memory, tune_allocator
from streams.runtime.drills import crash_point, hog_memory
from streams.runtime.tasks import end_tasks
from streams.settings import Settings
from streams.sink_postgres import Fenced, PostgresSink, Written
from streams.status.estimate import say_estimates
from streams.status.heartbeat import Heartbeat, pause_line
from streams.status.process import Memory, WorkerMode, WorkerState
from streams.tables import Tables
from streams.ui.terminal.worker_line import SHOW_EVERY, WorkerProgress
from streams.worker.faust_worker import Worker
from streams.worker.ingest_child import Child, ingest_command
from streams.worker.lanes import Lanes, SliceEvent
from streams.worker.report import REPORT_SECONDS, Reporter, Speed
from streams.worker.table_topics import ensure_changelog
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


class Pipeline:
    """Everything of a worker but Faust's own services."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self.settings = settings
        self._app = app
        self.tables = Tables(app, settings.kafka_topic, settings.kafka_partitions)
        self._machine = Machine(settings)
        self._throttle = Throttle(settings, self._machine)
        self._reporter = Reporter(lambda: memory_line(self._machine.rss(), effective_memory_limit(settings)))
        self._tasks: list[asyncio.Task[None]] = []
        # The one before us may have died between its last slice and its cursor, and left us nothing else to do.
        self._moved = True
        self._lanes: Lanes | None = None
        self._child: Child | None = None
        self._stopping = False
        self._speed = Speed()
        self._web = WorkerWeb(app, self)
        self._progress = WorkerProgress()

    # -- life

    async def check(self) -> None:
        """Reach Kafka and Postgres, create the topic and the schema where they are missing. Raises StreamsError."""
        tune_allocator()
        settings = self.settings
        servers, dsn = settings.bootstrap_servers(), settings.database_dsn()
        try:
            self._app.conf.datadir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"LOCAL_DIR: {settings.local_dir} cannot be written: {error.strerror}.") from None
        self._info = await ensure_topic(settings)
        await check_limits(settings, self._info)
        self._database = Database(dsn, settings.sink_schema, settings.backfill_max_concurrent + 2)
        await self._database.start()
        await migrate_schema(self._database)
        self._heartbeat = Heartbeat(settings, "worker", self.state, self._on_pause)
        self._on_pause(await pause_of(self._database, settings.kafka_topic, settings.sink_group))
        self._sink = PostgresSink(
            self._database,
            topic=settings.kafka_topic,
            group=settings.sink_group,
            keep=compile_patterns(settings.backfill_collections),
        )
        await self._check_partitions(self._info)
        check_limit(memory_limit(settings), self._machine.rss(), "worker")
        self._configure(servers)
        self._web.hold()

    def _configure(self, servers: str) -> None:
        """Tell Faust what was not known at import."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AlreadyConfiguredWarning)
            self._app.conf.broker = broker_urls(servers)  # type: ignore[assignment] # Faust parses it
            self._app.conf.topic_partitions = self._info.partitions
            self._app.conf.topic_replication_factor = self._info.replication
        self.tables.set_partitions(self._info.partitions)

    async def _check_partitions(self, info: TopicInfo) -> None:
        """Refuse a topic whose number of partitions is not what it was when we first read it; make the changelogs."""
        positions = await self._sink.positions(set(range(1000)), {})
        if positions and max(positions) >= info.partitions:
            check_partitions(info, max(positions) + 1)
        for name, configs in self.tables.changelogs():
            await ensure_changelog(self.settings, name, info, configs)

    async def start(self, worker: Worker) -> None:
        """Begin what runs beside the agents."""
        self._worker = worker
        self._guard = TopicGuard(
            self.settings, self._info, self.fail, during="we read it", known=self.reached,
            mend="What was read is in Postgres; for another topic take another SINK_GROUP and SINK_SCHEMA.",
        )  # fmt: skip
        settle_memory()
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
        """The worker is about to stop: end the ingest; the tables' producer is about to go."""
        self._flush_tables()
        self._stopping = True
        if self._child is not None:
            await self._child.stop()

    async def close(self) -> None:
        """The agents have stopped: the last cursor, the last report."""
        await end_tasks(self._tasks)
        await self._web.close()
        self._progress.close()
        await self._throttle.close()
        with suppress(TimeoutError, StreamsError):
            async with asyncio.timeout(LAST_SAVE_SECONDS):
                crash_point("shutdown.before_cursor")
                await self._write_cursor()
                crash_point("shutdown.after_cursor")
        self._reporter.report()
        await self._heartbeat.end()
        await self._database.close()

    # -- the way of a slice

    async def take(self, event: SliceEvent) -> None:
        """Take in a slice; returns when the next may be pulled."""
        lanes = self._lanes
        if lanes is None:
            consumer = self._app.consumer
            assert isinstance(consumer, Consumer)
            sink = self._web.timed(self._sink)
            lanes = self._lanes = Lanes(consumer, sink, self._throttle, on_written=self._on_written, on_fault=self.fail)
        await lanes.submit(event)

    def reached(self) -> dict[int, int]:
        """The offsets that are written, of the partitions that are or were ours."""
        consumer = self._app.consumer
        assert isinstance(consumer, Consumer)
        return {tp.partition: offset for tp, offset in consumer.reached.items() if tp.topic == self._info.name}

    async def room(self) -> None:
        """Wait while memory is short; with no slice in hand."""
        await self._throttle.room(lambda: not self._app.should_stop)

    def _on_written(self, partition: int, written: Written) -> None:
        self._moved = True
        self._reporter.counts.add(written.received, written.applied, written.skipped, written.dead)
        self.tables.note(partition, written)
        self._web.note(partition, written.watermark.time if written.watermark is not None else None)

    # -- the transport's host

    @property
    def account(self) -> Account:
        """What is in flight, and what may be."""
        return self._throttle.memory.account

    async def positions(self, log_starts: Mapping[int, int]) -> dict[int, int]:
        """The next offset of each partition; a position that the log no longer holds becomes a gap."""
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

    def fail(self, error: BaseException) -> None:
        """End the process."""
        self._worker.fail(error)

    def is_waiting(self) -> bool:
        """Whether standing still is intended, or somebody else's fault."""
        lanes = self._lanes
        return self._throttle.is_waiting or self._guard.is_away or (lanes is not None and lanes.is_writing)

    # -- what it says of itself

    def state(self) -> WorkerState:
        """This worker, for ``status``, the metrics and the live page."""
        counts, memory = self._reporter.counts, self._throttle.memory
        mode, why = self._mode()
        return WorkerState(
            mode=mode,
            why=why,
            memory=Memory(
                rss=memory.rss or self._machine.rss(),
                limit=memory.limit,
                in_flight=memory.account.in_flight,
                budget=memory.account.budget,
            ),
            machine=self._throttle.machine,
            partitions=tuple(sorted(self._assigned())),
            received=counts.received,
            processed=counts.processed,
            skipped=counts.skipped,
            dead=counts.dead,
            rate=self._speed.rate(counts.received),
            transactions=self._throttle.transactions,
            transactions_max=self.settings.backfill_max_concurrent,
            web=self._web.address,
        )

    @property
    def is_broker_away(self) -> bool:
        """Whether Kafka did not answer when last asked."""
        return self._guard.is_away

    async def ask_database(self) -> None:
        """Return once the database answers."""
        await self._database.run(lambda connection: connection.execute("SELECT 1"))

    def _mode(self) -> tuple[WorkerMode, str]:
        """What it does, and why; the first that is true."""
        if self._stopping:
            return "stopping", "it was told to stop"
        if self._throttle.paused:
            return "paused", "by the command pause; resume ends that"
        if self._database.is_away:
            return (
                "no database",
                f"Postgres at {self._database.place} does not answer: its transactions are tried again",
            )
        if self._guard.is_away:
            return "no broker", "Kafka does not answer"
        if not self._assigned():
            return "starting", "it has no partition: it joins, or there are more workers than partitions"
        return self._throttle.mode, self._throttle.why

    def _assigned(self) -> set[int]:
        """The partitions that are ours."""
        try:
            assigned = self._app.consumer.assignment()
        except ConsumerNotStarted:
            return set()
        return {tp.partition for tp in assigned if tp.topic == self._info.name}

    def _on_pause(self, pause: Pause | None) -> None:
        """The command ``pause``, or ``resume``."""
        if self._throttle.paused != (pause is not None):
            self._throttle.paused = pause is not None
            log.warning("[BACKFILL] %s", pause_line(pause, "worker"))

    # -- beside it

    async def _save(self) -> None:
        """Cursor and tables, about once a second while something moves."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if self._moved:
                self._moved = False
                await self._write_cursor()
            if self.tables.pending:  # also what could not be written when it moved
                self._flush_tables()

    async def _look_back(self) -> None:
        """A position that was set back is read from, also where no message comes whose transaction would be fenced."""
        while True:
            await asyncio.sleep(LOOK_BACK_SECONDS)
            consumer = self._app.consumer
            assert isinstance(consumer, Consumer)
            # Asked before the database: what we write meanwhile is only further.
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
        """The tables are advisory: what goes wrong with them costs a log line, and they are written again."""
        if self._lanes is None or self._stopping or self._app.rebalancing or self._app.in_recovery:
            return  # what is sent to a producer that has stopped crashes the worker
        topic = self.settings.kafka_topic
        try:
            crash_point("tables.before_flush")
            self.tables.flush([tp.partition for tp in self._app.consumer.assignment() if tp.topic == topic])
            crash_point("tables.after_flush")
        except Exception:
            log.exception("The tables could not be written.")

    async def _show(self) -> None:
        """On a terminal."""
        while True:
            figures = self._web.figures()
            self._progress.show(figures.state, figures.lag)
            await asyncio.sleep(SHOW_EVERY)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._reporter.report()


def broker_urls(servers: str) -> str:
    """``host:port,host:port`` as Faust wants it, with our scheme."""
    return ";".join(f"kafka-slices://{server.strip()}" for server in servers.split(","))
