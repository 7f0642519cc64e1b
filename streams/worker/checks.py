"""The checks before a worker starts: Kafka and Postgres are reached, and what is missing in them is created.

After them the pipeline runs: they make its ``RunningPipeline``, which has everything from its first moment on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

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
from streams.worker.app import broker_urls
from streams.worker.pipeline import Pipeline
from streams.worker.running import RunningPipeline
from streams.worker.table_topics import ensure_changelog


async def check_and_connect(pipeline: Pipeline, fail: Callable[[BaseException], None]) -> None:
    """Reach Kafka and Postgres, create the topic and the schema where they are missing, make ``pipeline.running``.

    ``fail`` will be told of what ends the process later. Raises StreamsError.
    """
    tune_allocator()
    app, settings, tables = pipeline.app, pipeline.settings, pipeline.tables
    servers, dsn = settings.bootstrap_servers(), settings.database_dsn()
    try:
        app.conf.datadir.mkdir(parents=True, exist_ok=True)
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
    await _check_partitions(settings, tables, sink, info)
    check_limit(memory_limit(settings), resident(), "worker")
    _configure(pipeline, servers, info)
    running = RunningPipeline(app, settings, tables=tables, info=info, database=database, sink=sink, fail=fail)
    running.set_pause(pause)
    pipeline.running = running


async def _check_partitions(settings: Settings, tables: Tables, sink: PostgresSink, info: TopicInfo) -> None:
    """Refuse a topic whose number of partitions is not what it was when we first read it; make the changelogs."""
    positions = await sink.positions(set(range(1000)), {})
    if positions and max(positions) >= info.partitions:
        check_partitions(info, max(positions) + 1)
    for name, configs in tables.changelogs():
        await ensure_changelog(settings, name, info, configs)


def _configure(pipeline: Pipeline, servers: str, info: TopicInfo) -> None:
    """Tell Faust what was not known at import."""
    conf = pipeline.app.conf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AlreadyConfiguredWarning)
        conf.broker = broker_urls(servers)  # type: ignore[assignment] # Faust parses it
        conf.topic_partitions = info.partitions
        conf.topic_replication_factor = info.replication
    pipeline.tables.set_partitions(info.partitions)
