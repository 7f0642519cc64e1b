"""Clocks that are wrong by hours, and that step: nothing waits for them, nothing is lost by them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.acceptance.deployment import STEADY, Deployment
from tests.chaos.site import CLOCK

EVENTS = 20_000
HOUR = 3600


def clock(folder: Path, name: str, seconds: float) -> dict[str, str]:
    """A clock of its own for a process, wrong by so much; written again, it steps."""
    file = folder / f"{name}.clock"
    new = file.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(file)
    return {"PYTHONPATH": CLOCK, "CHAOS_CLOCK": str(file)}


async def test_clocks_that_step_by_hours_change_nothing(deployment: Deployment) -> None:
    folder = deployment.folder
    relay, oracle = await deployment.generated(EVENTS)
    worker = deployment.worker(**STEADY, **clock(folder, "worker", -7 * HOUR))
    first = deployment.ingest(relay.url, **clock(folder, "ingest", 30 * HOUR))
    await deployment.until_received(EVENTS // 20)
    clock(folder, "worker", 9 * HOUR)
    clock(folder, "ingest", -200 * HOUR)  # older than the topic keeps anything
    await deployment.until_received(EVENTS // 10)
    first.kill()
    # The next run is a newer one, though its clock says that it is older; the cursor goes on.
    ingest = deployment.ingest(relay.url, **clock(folder, "ingest", -30 * HOUR))
    await deployment.until_received(EVENTS // 5)
    clock(folder, "worker", -2 * HOUR)
    await deployment.until_done(ingest)
    await deployment.check(oracle, oracle["last_seq"] or 0)
    assert await deployment.table("gaps") == await deployment.table("dead_letters") == []
    runs = sorted(row["run"] for row in await deployment.table("runs"))
    assert {row["watermark_run"] for row in await deployment.table("sink_offsets")} == {runs[-1]}
    await worker.stop()


async def test_a_topic_that_takes_our_time_refuses_a_clock_that_is_ahead(deployment: Deployment) -> None:
    """As it was made by somebody else: the ingest says so and waits, and goes on when the clock is right."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    await admin.create_topics(
        [NewTopic(deployment.topic, 4, 1, topic_configs={"message.timestamp.type": "CreateTime"})]
    )
    await admin.close()
    relay, oracle = await deployment.generated(3_000)
    worker = deployment.worker()
    ingest = deployment.ingest(relay.url, **clock(deployment.folder, "ingest", 2 * HOUR))
    await ingest.line("more than an hour ahead of the broker's")
    await asyncio.sleep(3)
    assert ingest.output.count("more than an hour ahead") == 1
    clock(deployment.folder, "ingest", 0)
    await deployment.until_done(ingest)
    await deployment.check(oracle, oracle["last_seq"] or 0)
    await worker.stop()
