"""Several workers share the partitions, and one of them starts the ingest."""

from __future__ import annotations

import asyncio
import re

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupCoordinatorNotAvailableError

from tests.acceptance.commands import Command
from tests.acceptance.conftest import Traffic
from tests.acceptance.deployment import STEADY, Deployment


async def shares(deployment: Deployment) -> list[set[int]]:
    """The partitions of the topic that each member of the workers' group has, as the broker says."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    try:
        try:
            [answer] = await admin.describe_consumer_groups([deployment.workers_group])
        except GroupCoordinatorNotAvailableError:  # a broker that no group has asked yet
            return []
        [described] = answer.groups
        members = [ConsumerProtocolMemberAssignment.decode(m[4]) for m in described[5] if described[2] == "Stable"]
        return [{p for name, ps in member.assignment if name == deployment.topic for p in ps} for member in members]
    finally:
        await admin.close()


async def until_shared(deployment: Deployment, workers: int) -> None:
    for pause in deployment.patiently(f"{workers} workers share the partitions"):
        found = await shares(deployment)
        if len(found) == workers and all(found) and set().union(*found) == set(range(8)):
            assert sum(map(len, found)) == 8
            return
        await asyncio.sleep(pause)


@pytest.mark.parametrize("count", [2, 3])
async def test_they_share_the_work_and_one_is_killed(deployment: Deployment, some_traffic: Traffic, count: int) -> None:
    workers = [deployment.worker(WORKER_ID=str(number), **STEADY) for number in range(count)]
    await until_shared(deployment, count)
    ingest = deployment.ingest(some_traffic.relay)
    await deployment.until_received(some_traffic.events // 10)
    workers[0].kill()
    workers[0] = deployment.worker(WORKER_ID="0")
    await until_shared(deployment, count)
    await deployment.until_done(ingest)
    counts = await deployment.check(some_traffic.oracle, some_traffic.last_seq)
    assert counts["received"] == some_traffic.events
    took = [received_by(worker) for worker in await stopped(workers)]
    assert all(took), took
    # The rest was taken by the one that was killed, if its partitions had come that far.
    assert sum(took) <= some_traffic.events


async def stopped(workers: list[Command]) -> list[Command]:
    await asyncio.gather(*(worker.stop() for worker in workers))
    return workers


def received_by(worker: Command) -> int:
    """What the worker's last report says."""
    reports = re.findall(r"Progress: (\d+) received", worker.output)
    return int(reports[-1]) if reports else 0


def ingests_of(worker: Command) -> list[psutil.Process]:
    children = psutil.Process(worker.pid).children(recursive=True)
    return [child for child in children if "streams.ingest" in child.cmdline()]


async def until_ingesting(deployment: Deployment, worker: Command) -> psutil.Process:
    for pause in deployment.patiently("the worker's ingest runs"):
        if found := ingests_of(worker):
            return found[0]
        await asyncio.sleep(pause)
    raise AssertionError


async def test_the_first_worker_starts_the_ingest_and_takes_it_along(deployment: Deployment) -> None:
    relay, oracle = await deployment.generated(20_000)
    automatic = {"BACKFILL_DAYS": "-1", "RELAY_URL": relay.url}
    first = deployment.worker(**automatic, **STEADY)
    second = deployment.worker(**automatic, **STEADY, WORKER_ID="1")
    ingest = await until_ingesting(deployment, first)
    await deployment.until_received(1)
    assert ingests_of(second) == []
    first.kill()
    for pause in deployment.patiently("the ingest ends with its worker"):
        if not ingest.is_running() or ingest.status() == psutil.STATUS_ZOMBIE:
            break
        await asyncio.sleep(pause)
    # Another first worker brings another ingest, which goes on where the topic ends.
    third = deployment.worker(**automatic)
    await third.line("The ingest is done")
    await deployment.until_applied()
    await deployment.check(oracle, oracle["last_seq"] or 0)
    assert ingests_of(second) == []
    await stopped([second, third])
