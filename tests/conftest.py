"""Real Kafka and real Postgres for the tests that ask for them: started once a session, a fresh database for each test.

TEST_KAFKA_BOOTSTRAP_SERVERS and TEST_DATABASE_URL (both) name servers to use instead of the embedded stack.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import psutil
import pytest

from streams.environment.names import OUR_PREFIXES
from streams.local.stack import Stack
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.settings import Settings, setting_names

# hypothesis judges how fast an example is made and run, by the wall clock: here that is how busy the machine is.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
if hypothesis.settings.get_current_profile_name() == "default":  # not one that somebody has chosen
    hypothesis.settings.load_profile("busy")

FOLDER_PREFIX = "atproto-streams-tests-"
#: What is long begins first, so that no process has much left when the others are done.
TESTS = Path(__file__).parent
ORDER = ("acceptance", "integration", "unit")


@dataclass(frozen=True)
class Servers:
    """Servers that are not ours to stop."""

    bootstrap_servers: str
    dsn: str


SettingsFactory = Callable[..., Settings]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What begins first, where several processes run the tests."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: ORDER.index(item.path.relative_to(TESTS).parts[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests run in one process."""
    from tests.support.together import Together

    return Together(config, log)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's environment must not decide what a test does. Subprocesses of the test inherit this."""
    names = set(setting_names())
    for name in list(os.environ):
        if name.upper() in names or name.upper().startswith(OUR_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack | Servers]:
    """Kafka and Postgres: ``bootstrap_servers`` and ``dsn``."""
    bootstrap, dsn = os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("TEST_DATABASE_URL")
    if bootstrap and dsn:
        yield Servers(bootstrap, dsn)
        return
    _remove_what_killed_sessions_left()
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
    embedded = Stack(folder, fsync=False)
    try:
        embedded.up()
        yield embedded
    finally:
        embedded.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def embedded(stack: Stack | Servers) -> Iterator[Stack]:
    """The session's stack, for tests that kill, freeze or restart parts of it. Whole again afterwards."""
    if not isinstance(stack, Stack):
        pytest.skip("needs the embedded stack, not servers from outside")
    yield stack
    stack.up()


@pytest.fixture
def dsn(stack: Stack | Servers) -> Iterator[str]:
    """The address of a fresh, empty database."""
    name = f"test_{uuid.uuid4().hex}"
    _execute(stack.dsn, f"CREATE DATABASE {name}")
    try:
        yield urlsplit(stack.dsn)._replace(path=f"/{name}").geturl()
    finally:
        _execute(stack.dsn, f"DROP DATABASE {name} WITH (FORCE)")


async def migrated(dsn: str, schema: str) -> None:
    """Make the schema, or bring it to this program's version."""
    database = Database(dsn, schema, 2)
    await migrate_schema(database)
    await database.close()


@pytest.fixture
def topic() -> str:
    """The name of a topic that does not exist yet."""
    return f"test.{uuid.uuid4().hex}"


@pytest.fixture
def settings(stack: Stack | Servers, dsn: str, topic: str, tmp_path: Path) -> SettingsFactory:
    """Makes Settings for this test's servers, database, topic, schema and group; arguments override fields by name.

    What one test makes shares these names, so that two calls are two processes of one deployment.
    """
    unique = uuid.uuid4().hex[:12]
    defaults = {
        "kafka_bootstrap_servers": stack.bootstrap_servers,
        "database_url": dsn,
        "kafka_topic": topic,
        "sink_schema": f"schema_{unique}",
        "sink_group": f"group-{unique}",
        "local_dir": tmp_path,
        "ingest_busy_mb_per_s": 0,  # the machine is busy with tests; those of the pace say otherwise
        "backfill_max_memory_mb": 65_536,  # a process that runs tests holds what they left; of ours it is nothing
    }

    def make(**overrides: object) -> Settings:
        return Settings(_env_file=None, **{**defaults, **overrides})  # type: ignore[arg-type, call-arg]

    return make


@pytest.fixture
def settings_environment(settings: SettingsFactory) -> dict[str, str]:
    """The same names as environment variables, for a command that is started by the test."""
    made = settings()
    return {
        "KAFKA_BOOTSTRAP_SERVERS": made.bootstrap_servers(),
        "DATABASE_URL": made.database_dsn(),
        "KAFKA_TOPIC": made.kafka_topic,
        "SINK_SCHEMA": made.sink_schema,
        "SINK_GROUP": made.sink_group,
        "LOCAL_DIR": str(made.local_dir),
        "INGEST_BUSY_MB_PER_S": "0",
    }


def _execute(dsn: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # In a thread: the test's own event loop is left alone.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()


def _remove_what_killed_sessions_left() -> None:
    """The servers outlive a test session that was killed: stop those whose session is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        with contextlib.suppress(FileNotFoundError):  # another process of this session was quicker
            if folder.stat().st_uid == os.geteuid() and pid.isdigit() and not psutil.pid_exists(int(pid)):
                Stack(folder).down()
                shutil.rmtree(folder, ignore_errors=True)
