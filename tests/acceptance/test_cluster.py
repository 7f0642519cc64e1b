"""Three brokers, each killed and restarted in turn under load: nothing is lost, and nobody restarts what is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.local.kafka import Broker
from streams.local.stack import Stack
from tests.acceptance.deployment import Deployment
from tests.acceptance.test_hard_cases import Live, all_of_it, live

TOPIC = "cluster"
EVENTS = 30_000
#: Frames a second: the load goes on from the first kill to the last restart.
RATE = 300
#: Little work at a time: there is always some left to interrupt.
PACE = {"BACKFILL_BATCH_SIZE": "100", "BACKFILL_BATCH_DELAY_MS": "40", "BACKFILL_USE_IDLE": "false"}


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Stack, Deployment]]:
    """A cluster and a database of their own, and a deployment on them."""
    stack = Stack(folder / "stack", brokers=3, fsync=False)
    try:
        await asyncio.to_thread(stack.up)
        names = {"KAFKA_TOPIC": TOPIC, "SINK_SCHEMA": "cluster", "SINK_GROUP": "cluster", "LOCAL_DIR": str(folder)}
        async with Deployment.opened({**stack.environment(), **names}, folder) as deployment:
            yield stack, deployment
    finally:
        await asyncio.to_thread(stack.down)


@asynccontextmanager
async def asking(stack: Stack) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def in_sync(stack: Stack) -> set[int]:
    """The brokers that have all of every partition."""
    async with asking(stack) as admin:
        [topic] = await admin.describe_topics([TOPIC])
        return set.intersection(*({*partition["isr"]} for partition in topic["partitions"]))


async def load(relay: Live) -> None:
    while True:
        relay.relay.publish(RATE // 10)
        await asyncio.sleep(0.1)


async def test_brokers_die_one_at_a_time(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (stack, deployment), live(tmp_path, events=EVENTS, out=0.1) as relay:
        ingest, worker = deployment.ingest(relay.url, "--follow"), deployment.worker(**PACE)
        await deployment.until_received(EVENTS // 20)
        await is_replicated(stack)
        publishing = asyncio.create_task(load(relay))
        # The cluster's controller and the group's coordinator are among them: they move only when their broker dies.
        for broker in stack.kafka.brokers:
            await killed(stack, broker, deployment)
        publishing.cancel()
        await all_of_it(deployment, relay)
        assert await deployment.table("gaps") == []
        await ingest.stop()
        await worker.stop()


async def killed(stack: Stack, broker: Broker, deployment: Deployment) -> None:
    """Two brokers are enough; then the third comes back, and has everything."""
    before = await deployment.received()
    await asyncio.to_thread(broker.kill)
    await deployment.until_received(before + RATE)
    await asyncio.to_thread(stack.kafka.start)
    for pause in deployment.patiently("all replicas are in sync"):
        if await in_sync(stack) == {1, 2, 3}:
            break
        await asyncio.sleep(pause)


async def is_replicated(stack: Stack) -> None:
    async with asking(stack) as admin:
        [topic] = await admin.describe_topics([TOPIC])
        assert {len(partition["replicas"]) for partition in topic["partitions"]} == {3}
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
        values = {entry[0]: entry[1] for entry in answer.resources[0][4]}
        assert values["min.insync.replicas"] == "2"
