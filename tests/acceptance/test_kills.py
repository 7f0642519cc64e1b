"""Killed at random moments and started again, or asked to stop: the result is the same, and no step is manual."""

from __future__ import annotations

import asyncio
import random
import time

import psutil

from tests.acceptance.conftest import Traffic
from tests.acceptance.deployment import STEADY, Deployment

SEED = 20261123


async def test_sigkill_of_worker_and_ingest_three_times_each(deployment: Deployment, traffic: Traffic) -> None:
    rng = random.Random(SEED)
    total = traffic.events
    for _ in range(3):
        ingest = deployment.ingest(traffic.relay)
        await deployment.until_in_topic(sum((await deployment.ends()).values()) + 1)
        await asyncio.sleep(rng.uniform(0.0, 0.6))
        ingest.kill()
    ingest = deployment.ingest(traffic.relay)
    for kill in range(1, 4):
        worker = deployment.worker()
        await deployment.until_received(total * kill // 5, 120)
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        worker.kill()
    worker = deployment.worker()
    await deployment.until_done(ingest, 180)
    counts = await deployment.check(traffic.oracle, traffic.last_seq)
    assert counts["received"] >= total
    assert counts["dead"] == 0
    assert await deployment.table("gaps") == []
    await worker.stop()


async def test_sigterm_saves_the_position(deployment: Deployment, traffic: Traffic) -> None:
    ingest = deployment.ingest(traffic.relay)
    await deployment.until_in_topic(1000)
    worker = deployment.worker(**STEADY)
    await deployment.until_received(1000)
    began = time.monotonic()
    await asyncio.gather(ingest.stop(), worker.stop())
    assert time.monotonic() - began < 10
    before, offsets = await deployment.cursor(), await deployment.offsets()
    messages = sum((await deployment.ends()).values())

    worker = deployment.worker()
    await deployment.until_done(deployment.ingest(traffic.relay), 180)
    counts = await deployment.check(traffic.oracle, traffic.last_seq)
    after = await deployment.cursor()
    assert before is None or (after is not None and after >= before)
    assert all(position >= offsets[partition] for partition, position in (await deployment.offsets()).items())
    # Stopped in order, the ingest had a watermark at its last event: nothing was taken twice.
    assert counts["received"] == traffic.events, (counts, messages)
    await worker.stop()


async def test_the_ingest_dies_with_its_worker(deployment: Deployment, traffic: Traffic) -> None:
    worker = deployment.worker(BACKFILL_DAYS="-1", RELAY_URL=traffic.relay, **STEADY)
    other = deployment.worker(BACKFILL_DAYS="-1", RELAY_URL=traffic.relay, WORKER_ID="1", **STEADY)
    await deployment.until_received(1)
    children = [child for child in psutil.Process(worker.pid).children() if "streams.ingest" in child.cmdline()]
    assert len(children) == 1
    assert psutil.Process(other.pid).children() == []
    worker.kill()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (gone, alive) == (children, [])
    worker = deployment.worker(BACKFILL_DAYS="-1", RELAY_URL=traffic.relay)
    await worker.line("The ingest is done", 120)
    await other.stop()
    await deployment.until_applied(180)
    await deployment.check(traffic.oracle, traffic.last_seq)
    await worker.stop()
