"""Whoever dies at a named crash point loses and doubles nothing: started again, it ends exactly at the oracle."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streams.runtime.drills import CrashPoint, IngestPoint, WorkerPoint
from tests.acceptance.commands import Command
from tests.acceptance.conftest import Traffic, serving
from tests.acceptance.deployment import Deployment
from tests.support.burial import bury

EVENTS = 6_000
#: How often a point is passed before the process dies there, where the first time is too early to have a middle.
LATER = {
    "batch.before_send": 3, "batch.acknowledged": 3, "slice.before_apply": 3, "slice.after_apply": 3,
    "slice.acknowledged": 3, "slice.taken": 4, "watermark.before_write": 2, "watermark.acknowledged": 2,
}  # fmt: skip
#: Points that are passed only when the process is asked to stop.
AT_THE_END = ("shutdown.before_cursor", "shutdown.after_cursor")
#: Deployments side by side: most of their time is waiting for the session of the one that was killed.
AT_ONCE = 4


@pytest.fixture(scope="module")
def little_traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    with serving(EVENTS, tmp_path_factory.mktemp("traffic")) as served:
        yield served


@asynccontextmanager
async def beside(deployment: Deployment, point: str) -> AsyncIterator[Deployment]:
    """Another deployment on the same servers, with names of its own."""
    suffix = point.replace(".", "_")
    names = {
        "KAFKA_TOPIC": f"{deployment.topic}.{suffix}",
        "SINK_SCHEMA": f"{deployment.schema[:20]}_{suffix}",
        "SINK_GROUP": f"{deployment.group}.{suffix}",
        "KAFKA_PARTITIONS": "4",
    }
    folder = deployment.folder / suffix
    folder.mkdir()
    environment = {**deployment.environment, **names, "LOCAL_DIR": str(folder)}
    async with Deployment.opened(environment, folder) as made:
        yield made


async def died(command: Command) -> None:
    assert await command.ended() == -signal.SIGKILL, command.tail()


async def ingest_dies(deployment: Deployment, point: str, traffic: Traffic) -> None:
    await died(deployment.ingest(traffic.relay, CRASH_AT=f"{point}:{LATER.get(point, 1)}"))
    await deployment.bury()
    worker = deployment.worker()
    await deployment.until_done(deployment.ingest(traffic.relay))
    await settled(deployment, worker, traffic)


async def worker_dies(deployment: Deployment, point: str, traffic: Traffic) -> None:
    ingest = deployment.ingest(traffic.relay)
    worker = deployment.worker(CRASH_AT=f"{point}:{LATER.get(point, 1)}")
    if point in AT_THE_END:
        assert await ingest.ended() == 0
        await deployment.until_received(1)
        worker.process.send_signal(signal.SIGTERM)
    await died(worker)
    await bury(deployment.environment["KAFKA_BOOTSTRAP_SERVERS"], deployment.workers_group)
    worker = deployment.worker()
    await deployment.until_done(ingest)
    await settled(deployment, worker, traffic)


async def settled(deployment: Deployment, worker: Command, traffic: Traffic) -> None:
    await deployment.check(traffic.oracle, traffic.last_seq)
    assert await deployment.table("gaps") == await deployment.table("dead_letters") == []
    worker.kill()


async def test_every_crash_point(deployment: Deployment, little_traffic: Traffic) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(point: CrashPoint) -> None:
        async with gate:
            case = ingest_dies if isinstance(point, IngestPoint) else worker_dies
            try:
                async with beside(deployment, point) as made:
                    await case(made, point, little_traffic)
            except (AssertionError, OSError) as error:
                raise AssertionError(f"at {point}: {error}") from error

    ends = await asyncio.gather(*(one(p) for p in (*IngestPoint, *WorkerPoint)), return_exceptions=True)
    assert not any(ends), "\n\n".join(repr(end) for end in ends if end)


async def test_an_unknown_crash_point_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    command = deployment.ingest("ws://127.0.0.1:9", CRASH_AT="nowhere")
    assert await command.ended() == 1
    assert "names no crash point" in command.output
