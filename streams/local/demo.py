"""The demo's parts of a run: a development relay with generated traffic, and a topic and a schema that begin empty."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

from aiokafka.errors import KafkaError

from streams.errors import MismatchError, RelayError
from streams.kafka.client import admin_client, broker_error
from streams.kafka.topic import describe_topic
from streams.kafka.watermarks import read_state
from streams.local.processes import STOP_SECONDS, end_with_parent
from streams.postgres.database import Connection, Database
from streams.postgres.session import reading
from streams.runtime import child_process
from streams.settings import Settings
from streams.simulator.compare import compare
from streams.simulator.oracle import load_oracle

#: Events of the demo's traffic: half a minute of generating, a few seconds of pipeline.
EVENTS: Final = 100_000
#: The demo's own names, so that nothing of the user's is touched.
NAMES: Final = {"kafka_topic": "firehose.demo", "sink_schema": "firehose_demo", "sink_group": "demo"}
#: All of its traffic, whatever the user's settings keep: that is what its model knows.
EVERYTHING: Final = {"backfill_days": -1, "backfill_collections": ("*",), "ingest_collections": ("*",)}


class DemoRelay:
    """The development relay as a child process; on Linux it ends when we are killed."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self.oracle = folder / "demo-oracle.json.gz"
        self._process: Process | None = None

    async def start(self) -> None:
        """Generate the traffic and serve it. Raises RelayError."""
        self.oracle.parent.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "streams.simulator", "--generate", str(EVENTS), "--days-span", "2",
            "--oracle", str(self.oracle), stdout=PIPE, preexec_fn=end_with_parent(),
        )  # fmt: skip
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        try:
            self.url = json.loads(line)["url"]
        except (ValueError, KeyError):
            raise RelayError(
                "The development relay did not start", "run `python -m streams.simulator` to see why."
            ) from None

    async def stop(self) -> None:
        """Stop it."""
        if self._process is not None and self._process.returncode is None:
            await child_process.stop(self._process, STOP_SECONDS)


async def begin_empty(settings: Settings) -> None:
    """Remove what an earlier demo left: topic, changelogs, schema, cursor row. Only what is ours.

    Raises MismatchError where something of that name is not, BrokerError, DatabaseError.
    """
    await _drop_schema(settings)
    try:
        await _drop_topics(settings)
    except KafkaError as error:
        raise broker_error(settings, error) from None


async def _drop_topics(settings: Settings) -> None:
    async with admin_client(settings) as admin:
        info = await describe_topic(admin, settings.kafka_topic)
        if info is not None:
            state = await read_state(settings, info)
            if not state.empty and not state.watermarks:
                raise MismatchError(f"The topic {info.name} holds what is not ours: the demo does not remove it.")
        # The changelogs of the demo's own group begin with its group, topic and schema (agents.py: group_id).
        ours = ".".join([settings.sink_group, settings.kafka_topic, settings.sink_schema]) + "-"
        names = [name for name in await admin.list_topics() if name == settings.kafka_topic or name.startswith(ours)]
        if names:
            await admin.delete_topics(names)
        for _ in range(100):
            if await describe_topic(admin, settings.kafka_topic) is None:
                return
            await asyncio.sleep(0.2)
    raise MismatchError(f"The broker does not remove the topic {settings.kafka_topic}", "remove it yourself.")


async def _drop_schema(settings: Settings) -> None:
    schema = settings.sink_schema

    async def call(connection: Connection) -> None:
        if await connection.fetchval("SELECT to_regnamespace($1)", schema):
            if not await connection.fetchval("SELECT to_regclass($1)", f"{schema}.atproto_streams_migrations"):
                raise MismatchError(f"The schema {schema} holds what is not ours: the demo does not remove it.")
            await connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
        if await connection.fetchval("SELECT to_regclass('public.firehose_cursor')"):
            await connection.execute("DELETE FROM public.firehose_cursor WHERE service = $1", settings.cursor_service)

    database = Database(settings.database_dsn(), schema, 1)
    try:
        await database.start()
        await database.run(call)
    finally:
        await database.close()


async def verdict(settings: Settings, relay: DemoRelay) -> tuple[bool, str]:
    """Return True if Postgres holds exactly what the relay's own model says, and a sentence about it."""
    expected = load_oracle(relay.oracle)
    async with reading(settings.database_dsn(), settings.sink_schema) as connection:
        problems = await compare(connection, settings.sink_schema, expected)
    if problems:
        return False, f"Postgres differs from the relay's own model, first: {problems[0]}"
    records = sum(map(len, expected["records"].values()))
    return True, f"Postgres holds exactly the {records:,} records that the relay's own model says, value by value."
