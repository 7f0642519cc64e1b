"""Postgres' disk is full: the worker says so and ends, loses nothing, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from streams.local.stack import Stack
from tests.acceptance.deployment import Deployment

EVENTS = 20_000


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
async def small_disk(embedded: Stack, tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """A tablespace on a disk of 4 MB, which holds the empty tables and not much more."""
    folder, name = tmp_path / "small", f"small_{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    run("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder))
    for parent in (folder, *folder.parents):
        if parent.stat().st_mode & 0o001 == 0 and parent != folder:
            parent.chmod(parent.stat().st_mode | 0o011)  # Postgres is another user, and has to reach it
    postgres = embedded.postgres.find()
    assert postgres is not None
    os.chown(folder, postgres.uids().real, postgres.gids().real)
    connection = await asyncpg.connect(embedded.dsn)
    await connection.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
    yield name, folder
    await connection.execute(f"DROP TABLESPACE {name}")
    await connection.close()
    run("umount", str(folder))


async def test_a_full_disk_ends_the_worker_and_loses_nothing(
    small_disk: tuple[str, Path], settings_environment: dict[str, str], tmp_path: Path
) -> None:
    tablespace, folder = small_disk
    database = settings_environment["DATABASE_URL"].rpartition("/")[2]
    look = await asyncpg.connect(settings_environment["DATABASE_URL"])
    await look.execute(f"ALTER DATABASE {database} SET default_tablespace = {tablespace}")
    await look.close()
    async with Deployment.opened({**settings_environment, "KAFKA_PARTITIONS": "2"}, tmp_path) as site:
        relay, oracle = await site.generated(EVENTS)
        worker = site.worker(BACKFILL_PROFILE="unlimited")
        assert await site.ingest(relay.url).ended() == 0
        assert await worker.ended() == 4, worker.tail()
        assert "disk" in worker.output
        assert "Traceback" not in worker.output
        assert await site.received() < EVENTS
        # Started while it is still full, it says the same again; with room it goes on.
        assert await site.worker(BACKFILL_PROFILE="unlimited").ended() == 4
        run("mount", "-o", "remount,size=512m", str(folder))
        worker = site.worker(BACKFILL_PROFILE="unlimited")
        await site.until_applied()
        counts = await site.check(oracle, oracle["last_seq"] or 0)
        assert counts["received"] == EVENTS
        await worker.stop()
