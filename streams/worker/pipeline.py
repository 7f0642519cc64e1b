"""One worker's pipeline as the module of the app makes it, and the checks after which it runs.

``Pipeline`` is made at import: it knows the settings and declares the tables, and touches neither broker nor database.
``check`` reaches both and makes the ``RunningPipeline``, which has everything from its first moment on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import faust
from faust.exceptions import AlreadyConfiguredWarning

from streams.errors import SettingsError
from streams.kafka.topic import TopicInfo, check_partitions, ensure_topic
from streams.kafka.topic_limits import check_limits
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.postgres.processes import pause_of
from streams.protocol.collection_filter import compile_patterns
from streams.resources.machine import resident
from streams.resources.memory_budgets import check_limit, memory_limit
from streams.resources.memory_watch import tune_allocator
from streams.settings import Settings
from streams.sink_postgres import PostgresSink
from streams.tables import Tables
from streams.worker.running import RunningPipeline
from streams.worker.table_topics import ensure_changelog


class Pipeline:
    """A worker's pipeline before its checks; ``running`` after them."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self.settings = settings
        self.tables = Tables(app, settings.kafka_topic, settings.kafka_partitions)
        self._app = app
        self._running: RunningPipeline | None = None

    @property
    def running(self) -> RunningPipeline:
        """The pipeline that ``check`` has made. Faust starts nothing that asks for it before that."""
        assert self._running is not None, "asked for before check() has returned"
        return self._running

    async def check(self, fail: Callable[[BaseException], None]) -> None:
        """Reach Kafka and Postgres, create the topic and the schema where they are missing. Raises StreamsError.

        ``fail`` will be told of what ends the process later.
        """
        tune_allocator()
        settings = self.settings
        servers, dsn = settings.bootstrap_servers(), settings.database_dsn()
        try:
            self._app.conf.datadir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"LOCAL_DIR: {settings.local_dir} cannot be written: {error.strerror}.") from None
        info = await ensure_topic(settings)
        await check_limits(settings, info)
        database = Database(dsn, settings.sink_schema, settings.backfill_max_concurrent + 2)
        await database.start()
        await migrate_schema(database)
        pause = await pause_of(database, settings.kafka_topic, settings.sink_group)
        keep = compile_patterns(settings.backfill_collections)
        sink = PostgresSink(database, topic=settings.kafka_topic, group=settings.sink_group, keep=keep)
        await self._check_partitions(sink, info)
        check_limit(memory_limit(settings), resident(), "worker")
        self._configure(servers, info)
        self._running = RunningPipeline(
            self._app, settings, tables=self.tables, info=info, database=database, sink=sink, fail=fail
        )
        self._running.set_pause(pause)

    async def _check_partitions(self, sink: PostgresSink, info: TopicInfo) -> None:
        """Refuse a topic whose number of partitions is not what it was when we first read it; make the changelogs."""
        positions = await sink.positions(set(range(1000)), {})
        if positions and max(positions) >= info.partitions:
            check_partitions(info, max(positions) + 1)
        for name, configs in self.tables.changelogs():
            await ensure_changelog(self.settings, name, info, configs)

    def _configure(self, servers: str, info: TopicInfo) -> None:
        """Tell Faust what was not known at import."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AlreadyConfiguredWarning)
            self._app.conf.broker = broker_urls(servers)  # type: ignore[assignment] # Faust parses it
            self._app.conf.topic_partitions = info.partitions
            self._app.conf.topic_replication_factor = info.replication
        self.tables.set_partitions(info.partitions)


def broker_urls(servers: str) -> str:
    """Return ``host:port,host:port`` as Faust wants it, with our scheme."""
    return ";".join(f"kafka-slices://{server.strip()}" for server in servers.split(","))
