"""The broker's disk is full: Kafka ends, the ingest and the worker wait and say so; with room, all of it is there."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.errors import DiskError
from streams.local.stack import Stack
from tests.acceptance.deployment import Deployment
from tests.acceptance.test_disk_full import run

EVENTS = 60_000
#: Less than the events take, in bytes: about 130 each.
ROOM = 2_000_000


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[tuple[Stack, Path]]:
    """A stack whose broker has a disk of its own, and that disk."""
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    stack = Stack(tmp_path / "stack", fsync=False)
    disk = stack.kafka.brokers[0].data.parent
    disk.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk))
    try:
        await asyncio.to_thread(stack.up)
        yield stack, disk
    finally:
        await asyncio.to_thread(stack.down)
        run("umount", str(disk))


def fill(disk: Path) -> Path:
    """A file that leaves so much ROOM."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"\1" * (shutil.disk_usage(disk).free - ROOM))
    return ballast


async def test_a_full_disk_of_the_broker_is_waited_for_and_loses_nothing(
    small: tuple[Stack, Path], tmp_path: Path
) -> None:
    stack, disk = small
    names = {"KAFKA_TOPIC": "small", "SINK_SCHEMA": "small", "SINK_GROUP": "small", "LOCAL_DIR": str(tmp_path)}
    # The settings name the broker: how much room it has cannot be known, as with a broker elsewhere.
    async with Deployment.opened({**stack.environment(), **names, "KAFKA_PARTITIONS": "2"}, tmp_path) as site:
        relay, oracle = await site.generated(EVENTS)
        worker = site.worker()
        await worker.line("Pace: ")
        ballast = fill(disk)
        ingest = site.ingest(relay.url, "--follow")
        for pause in site.patiently("the broker ends, for want of room"):
            if not stack.kafka.pids():
                break
            await asyncio.sleep(pause)
        for command in (ingest, worker):
            await command.line("Kafka cannot be reached at .* Waiting for it")
        with pytest.raises(DiskError, match="disk of the embedded Kafka is full"):
            await asyncio.to_thread(stack.kafka.start)
        assert ingest.running
        assert worker.running
        ballast.unlink()
        await asyncio.to_thread(stack.kafka.start)
        await site.until_cursor(oracle["last_seq"] or 0)
        await site.until_applied()
        counts = await site.check(oracle, oracle["last_seq"] or 0)
        assert counts["received"] >= EVENTS
        assert await site.table("gaps") == await site.table("dead_letters") == []
        await ingest.stop()
        await worker.stop()
