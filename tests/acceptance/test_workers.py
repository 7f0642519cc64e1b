"""Several workers at once: the partitions are shared, one of them may be killed, and the result is the same."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.acceptance.conftest import Traffic
from tests.acceptance.deployment import STEADY, Deployment


@pytest.mark.parametrize("number", [2, 3])
async def test_workers_share_the_partitions(deployment: Deployment, traffic: Traffic, number: int) -> None:
    workers = [deployment.worker(**STEADY) for _ in range(number)]
    ingest = deployment.ingest(traffic.relay)
    await deployment.until_received(traffic.events // 20)
    # One is killed on the way, the others take over; then a fast one joins, so that the test ends soon.
    workers[0].kill()
    workers.append(deployment.worker())
    await asyncio.gather(*(worker.line(r"\[BACKFILL\] Progress: [1-9]", 60) for worker in workers[1:]))
    for worker in workers[1:-1]:
        await worker.stop()
    await deployment.until_done(ingest, 180)
    counts = await deployment.check(traffic.oracle, traffic.last_seq)
    assert (counts["received"], counts["dead"]) == (traffic.events, 0)
    await workers[-1].stop()
    taken = [int(re.findall(r"Progress: (\d+) received", worker.output)[-1]) for worker in workers[1:]]
    assert all(taken), taken
    assert sum(taken) < traffic.events  # the killed one took its share
