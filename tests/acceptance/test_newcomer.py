"""The existing service's ``.env``, unchanged, starts the container's command; their SELECT shows progress."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.commands import Command, finish, free_port
from tests.acceptance.deployment import Deployment

CONTAINER = [sys.executable, "-m", "streams.worker.container"]
THEIR_SELECT = "SELECT * FROM firehose_cursor WHERE service = 'backfill';"
OLDER_ROW = (
    "INSERT INTO firehose_cursor (service, cursor, last_event_time) "
    "VALUES ('backfill', '{seq}|17', '2024-01-01 00:00:00')"
)
CURSOR_TABLE = Path(__file__).parents[2] / "streams/postgres/cursor_table.sql"


@pytest.fixture
def settings_environment(settings_environment: dict[str, str]) -> dict[str, str]:
    """The default group, whose row is theirs."""
    return {**settings_environment, "SINK_GROUP": "backfill"}


def their_env(relay: str, dsn: str) -> str:
    return f"""\
# AppView
NODE_ENV=production
PORT=5000
SESSION_SECRET="it's a # secret"
DATA_RETENTION_DAYS=90
APPVIEW_DID=did:web:appview.example
REDIS_URL=redis://redis:6379
DB_POOL_SIZE=50

# Backfill
BACKFILL_DAYS=7
BACKFILL_BATCH_SIZE=100
BACKFILL_BATCH_DELAY_MS=100
BACKFILL_MAX_CONCURRENT=10
BACKFILL_MAX_MEMORY_MB=2048
BACKFILL_USE_IDLE=true
RELAY_URL={relay}
DATABASE_URL={dsn}
WORKER_ID=0
"""


async def test_their_env_starts_ours_and_their_select_shows_progress(deployment: Deployment) -> None:
    relay, oracle = await deployment.generated(4_000)
    await deployment.look.execute(CURSOR_TABLE.read_text())
    await deployment.look.execute(OLDER_ROW.format(seq=1))
    home = deployment.folder / "theirs"
    home.mkdir()
    text = their_env(relay.url, deployment.environment["DATABASE_URL"])
    (home / ".env").write_text(text)
    # What compose adds: the broker, and here names of this test's own.
    names = ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "SINK_SCHEMA", "LOCAL_DIR")
    added = {name: deployment.environment[name] for name in names}
    worker = Command("container", CONTAINER, {**added, "WORKER_WEB_PORT": str(free_port())}, home)
    deployment.commands.append(worker)

    first = await progress_after(deployment, "1|17")
    second = (
        first if int(first) == oracle["last_seq"] else await progress_after(deployment, first, oracle["last_seq"] or 0)
    )
    assert int(second) == oracle["last_seq"]
    row = await deployment.look.fetchrow(THEIR_SELECT)
    assert row is not None
    assert list(row.keys()) == ["id", "service", "cursor", "last_event_time", "updated_at"]
    assert row["last_event_time"] > datetime(2024, 1, 1)
    assert await deployment.look.fetchval("SELECT count(*) FROM firehose_cursor") == 1
    await deployment.until_applied()
    await deployment.check(oracle, oracle["last_seq"] or 0)
    assert "[BACKFILL] " in worker.output
    await worker.stop()
    assert (home / ".env").read_text() == text


async def progress_after(deployment: Deployment, before: str, at_least: int = 0) -> str:
    """Their SELECT until its cursor is another one, and as far as that."""
    for pause in deployment.patiently(f"a cursor after {before}"):
        row = await deployment.look.fetchrow(THEIR_SELECT)
        assert row is not None
        cursor = str(row["cursor"])
        if cursor != before and "|" not in cursor and int(cursor) >= at_least:
            return cursor
        await asyncio.sleep(pause)
    raise AssertionError


async def test_off_is_a_sentence_and_zero(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BACKFILL_DAYS=0\nPORT=5000\n")
    done = await finish(CONTAINER, {}, tmp_path)
    assert (done.code, done.output.startswith("BACKFILL_DAYS=0: the backfill is off.")) == (0, True), done.errors


async def test_a_mistyped_name_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BACKFILL_DAYZ=7\nPORT=5000\n")
    done = await finish(CONTAINER, {}, tmp_path)
    assert done.code == 2
    assert "did you mean BACKFILL_DAYS?" in done.errors
    assert "PORT" not in done.errors.replace("BACKFILL", "")
