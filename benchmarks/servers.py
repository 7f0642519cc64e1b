"""The servers that everything is measured on: an embedded Kafka and Postgres of the benchmark's own."""

from __future__ import annotations

import fcntl
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from streams.kafka.client import kafka_client_options
from streams.local.stack import Stack
from streams.settings import Settings

#: Folder below LOCAL_DIR. Everything in it but the results is removed at the end.
FOLDER: Final = "bench"
#: Seconds for a statement that removes or settles.
_SLOW: Final = 600.0

if TYPE_CHECKING:  # asyncpg's class is generic in its stubs only
    Connection = asyncpg.Connection[asyncpg.Record]


@dataclass(frozen=True, slots=True)
class WalPosition:
    """What Postgres has written to its log: bytes, and images of full pages."""

    bytes: int
    images: int

    def since(self, before: WalPosition) -> WalPosition:
        """Return what was written in between."""
        return WalPosition(self.bytes - before.bytes, self.images - before.images)


class Servers:
    """The stack, and what is asked of it."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self.folder = folder

    @property
    def dsn(self) -> str:
        """Postgres' address."""
        return self._stack.dsn

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's address."""
        return self._stack.bootstrap_servers

    def pids(self) -> dict[str, int]:
        """Return the roots of the servers' processes."""
        return {"kafka": self._stack.kafka.pids()[0], "postgres": self._stack.postgres.pids()[0]}

    def topic_bytes(self, topic: str) -> int:
        """Return the bytes of a topic's log on the disk, its index files aside."""
        parts = self._stack.kafka.folder.rglob(f"{topic}-*/*.log")
        return sum(path.stat().st_size for path in parts)

    def settings(self, relay_url: str, **more: object) -> Settings:
        """Return settings for one run: a topic, a schema and a group that nothing else has, and full speed."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        values: dict[str, object] = {
            "kafka_bootstrap_servers": self.bootstrap_servers, "database_url": self.dsn, "local_dir": self.folder,
            "relay_url": relay_url, "kafka_topic": name, "sink_schema": name, "sink_group": name, "backfill_days": -1,
            "backfill_profile": "unlimited",
        }  # fmt: skip
        return Settings(_env_file=None, **{**values, **more})  # type: ignore[arg-type, call-arg]

    async def forget(self, settings: Settings) -> None:
        """Remove a run's topic and schema, and let Postgres write what is dirty, so that the next begins alike."""
        admin = AIOKafkaAdminClient(**kafka_client_options(settings))
        await admin.start()
        try:
            if settings.kafka_topic in await admin.list_topics():
                await admin.delete_topics([settings.kafka_topic])
        finally:
            await admin.close()
        async with connected(self.dsn) as connection:
            await connection.execute(f"DROP SCHEMA IF EXISTS {settings.sink_schema} CASCADE", timeout=_SLOW)
            await connection.execute("CHECKPOINT", timeout=_SLOW)


@contextmanager
def started(local_dir: Path) -> Iterator[Servers]:
    """Start Kafka and Postgres below ``local_dir``; stop them and remove their data at the end."""
    folder = (local_dir / FOLDER).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        yield from _started(folder)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder for one benchmark: another would stop its servers."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"Another benchmark runs in {folder}: wait for it, or set LOCAL_DIR to another folder.")
        yield


def _started(folder: Path) -> Iterator[Servers]:
    data = folder / "stack"
    stack = Stack(data, say=lambda line: print(line, flush=True))
    stack.down()
    shutil.rmtree(data, ignore_errors=True)  # of a run that was killed
    try:
        stack.up()
        yield Servers(stack, folder)
    finally:
        stack.down()
        shutil.rmtree(data, ignore_errors=True)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """Open a plain connection, without our program's own ways."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def wal_position(connection: Connection) -> WalPosition:
    """Return how far the log is. Images of other sessions count once those have reported: at the latest at their end.

    Our own session reports at the end of the statement that asks for it.
    """
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    [row] = await connection.fetch(
        "SELECT pg_current_wal_insert_lsn() - '0/0' AS bytes, (SELECT wal_fpi FROM pg_stat_wal) AS images"
    )
    return WalPosition(int(row["bytes"]), int(row["images"]))
