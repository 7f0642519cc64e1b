"""A Status is what Kafka and Postgres hold, whatever is there yet."""

from __future__ import annotations

import uuid

import pytest

from streams.errors import BrokerError, DatabaseError
from streams.kafka.topic import ensure_topic
from streams.postgres.database import Database
from streams.postgres.processes import ProcessIdentity, beat, last_beat
from streams.status.reader import status_reader
from tests.conftest import SettingsFactory, migrated


async def test_before_anything_is_there(settings: SettingsFactory) -> None:
    """No topic, no schema: a status all the same, that says so."""
    made = settings()
    async with status_reader(made) as reader:
        status = await reader.gather()
        assert (status.partitions, status.lag, status.processes, status.coverage) == ((), 0, (), ())
        said = "\n".join(status.troubles)
        assert f"There is no topic {made.kafka_topic} yet" in said
        assert f"The schema {made.sink_schema}" in said
        assert "No worker runs (none ever reported)" in said
        assert "No ingest runs" in said
        # The same reader sees them come.
        info = await ensure_topic(made)
        await migrated(made.database_dsn(), made.sink_schema)
        status = await reader.gather()
        assert [p.partition for p in status.partitions] == list(range(info.partitions))
        assert not [text for text in status.troubles if "topic" in text or "schema" in text]


async def test_processes_that_are_there_and_the_last_that_are_not(settings: SettingsFactory) -> None:
    made = settings()
    await migrated(made.database_dsn(), made.sink_schema)
    await ensure_topic(made)
    database = Database(made.database_dsn(), made.sink_schema, 1)
    ids = [uuid.uuid4() for _ in range(3)]
    for number, one in enumerate(ids):
        me = ProcessIdentity(one, "worker", made.kafka_topic, made.sink_group, "far.example", number + 1, "9.9.9")
        await beat(database, me, b'{"a state": "of another version"}')
    await last_beat(database, ids[0])
    await database.close()
    async with status_reader(made) as reader:
        status = await reader.gather()
    assert {p.pid for p in status.processes} == {2, 3}
    assert all(p.alive and p.worker is None for p in status.processes)
    said = "\n".join(status.troubles)
    assert "2 workers reported (far.example), and Kafka's group has no member" in said
    assert "The worker on far.example (pid 2) has version 9.9.9" in said


async def test_servers_that_are_away(settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and an exit code that says which."""
    monkeypatch.setattr("streams.status.reader.PATIENCE", 1.0)
    async with status_reader(settings(kafka_bootstrap_servers="127.0.0.1:9")) as reader:
        with pytest.raises(BrokerError, match="Kafka"):
            await reader.gather()
    async with status_reader(settings(database_url="postgresql://nobody@127.0.0.1:9/none")) as reader:
        with pytest.raises(DatabaseError, match="cannot be reached"):
            await reader.gather()
