"""Heartbeats and pauses against a real Postgres: quiet where it is away, late where the schema is."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import asyncpg
import pytest

from streams.postgres.database import Database
from streams.postgres.processes import Pause, end_pause, pause_of, processes, set_pause
from streams.settings import Settings
from streams.status.heartbeat import Heartbeat
from streams.status.process import BEAT_SECONDS, MemoryUse, Mode, WorkerState
from tests.conftest import SettingsFactory, migrated
from tests.support.patience import PATIENCE


def state() -> WorkerState:
    return WorkerState(
        mode=Mode.STARTING, why="", memory=MemoryUse(1, 2), machine=None, partitions=(), received=0, processed=0,
        skipped=0, dead=0, rate=0.0, transactions=0, transactions_max=2,
    )  # fmt: skip


class Heard:
    """The pauses that a heartbeat was told of."""

    def __init__(self) -> None:
        self.pauses: list[Pause | None] = []

    async def until(self, count: int, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while len(self.pauses) < count:
            assert time.monotonic() < deadline, self.pauses
            await asyncio.sleep(0.05)


async def test_it_waits_for_the_schema_and_tells_of_each_pause(
    settings: SettingsFactory, caplog: pytest.LogCaptureFixture
) -> None:
    made, heard = settings(), Heard()
    heartbeat = Heartbeat(made, "worker", state, heard.pauses.append)
    with caplog.at_level(logging.INFO):
        await heartbeat.first()  # no schema yet
        running = asyncio.create_task(heartbeat.run())
        await migrated(made.database_dsn(), made.sink_schema)
        database = Database(made.database_dsn(), made.sink_schema, 1)
        where = (made.kafka_topic, made.sink_group)
        try:
            await set_pause(database, *where, ingest=False, reason="one", asked_by="me")
            await heard.until(1)
            await set_pause(database, *where, ingest=True, reason="two", asked_by="you")
            await heard.until(2)
            assert await end_pause(database, *where) is not None
            await heard.until(3)
            assert await end_pause(database, *where) is None
            assert [pause and (pause.reason, pause.ingest) for pause in heard.pauses] == [
                ("one", False), ("two", True), None,
            ]  # fmt: skip
            [seen] = await processes(database, *where, 10.0)
            assert (seen.alive, seen.ended_at) == (True, None)
            running.cancel()
            await heartbeat.end()
            [seen] = await processes(database, *where, 10.0)
            assert not seen.alive
            assert seen.ended_at is not None
        finally:
            await database.close()
    assert not [record for record in caplog.records if record.name.startswith("streams") and "Schema" not in record.msg]


async def test_a_database_that_is_away_is_neither_told_nor_waited_for(
    settings: SettingsFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """The pause that was known holds, also when the database comes back with it."""
    made, heard = settings(), Heard()
    await migrated(made.database_dsn(), made.sink_schema)
    database = Database(made.database_dsn(), made.sink_schema, 1)
    where = (made.kafka_topic, made.sink_group)
    await set_pause(database, *where, ingest=False, reason="", asked_by="me")
    heartbeat = Heartbeat(made, "worker", state, heard.pauses.append)
    running = asyncio.create_task(heartbeat.run())
    await heard.until(1)
    name = made.database_dsn().rpartition("/")[2]
    other = await asyncpg.connect(made.database_dsn().rpartition("/")[0] + "/postgres")
    try:
        await database.close()
        with caplog.at_level(logging.INFO):
            await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            await asyncio.sleep(1.5 * BEAT_SECONDS)
            assert not [record for record in caplog.records if record.name.startswith("streams")]
            assert len(heard.pauses) == 1
            first = Heartbeat(made, "ingest", state, heard.pauses.append).first()
            await asyncio.wait_for(first, PATIENCE)  # it does not wait for the database
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        database = Database(made.database_dsn(), made.sink_schema, 1)
        before = (await processes(database, *where, 10.0))[0].seen_at
        deadline = time.monotonic() + PATIENCE
        while (await processes(database, *where, 10.0))[0].seen_at == before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert len(heard.pauses) == 1
        assert await pause_of(database, *where) is not None
        await database.close()
    finally:
        running.cancel()
        await heartbeat.end()
        await other.close()


async def test_without_a_database_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:9", local_dir=tmp_path)  # type: ignore[call-arg]
    heard = Heard()
    with caplog.at_level(logging.DEBUG, "streams.status.heartbeat"):
        heartbeat = Heartbeat(made, "ingest", state, heard.pauses.append)
        await heartbeat.first()
        await heartbeat.end()
    assert "no database" in caplog.text


async def test_an_ingest_is_told_how_many_workers_there_are(settings: SettingsFactory) -> None:
    made = settings()
    await migrated(made.database_dsn(), made.sink_schema)
    told: list[int] = []
    ingest = Heartbeat(made, "ingest", state, lambda _: None, told.append)
    workers = [Heartbeat(made, "worker", state, lambda _: None) for _ in range(3)]
    stranger = Heartbeat(made.model_copy(update={"sink_group": "another"}), "worker", state, lambda _: None)
    try:
        await ingest.first()
        for worker in (*workers, stranger):
            await worker.first()
        await ingest.first()
        await workers[0].end()
        await ingest.first()
    finally:
        for heartbeat in (ingest, *workers, stranger):
            await heartbeat.end()
    assert told == [0, 3, 2]
