"""What is killed loses and doubles nothing; what is asked to stop does, and has saved its position."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from streams.sources.firehose.sequence.continuity import BLOCK, HELD
from tests.acceptance.commands import Command
from tests.acceptance.conftest import Traffic
from tests.acceptance.deployment import STEADY, Deployment
from tests.support.burial import bury

KILLS = 3


async def test_sigkill_of_ingest_and_worker_three_times_each(deployment: Deployment, traffic: Traffic) -> None:
    random = Random(20)

    async def buried(group: str, number: int) -> None:
        """The last one's session must end by itself."""
        if number < KILLS - 1:
            await bury(deployment.environment["KAFKA_BOOTSTRAP_SERVERS"], group)

    async def kill_ingests() -> Command:
        ingest = deployment.ingest(traffic.relay)
        for number in range(KILLS):
            in_topic = sum((await deployment.ends()).values())
            share = (traffic.events - in_topic) * random.uniform(0.1, 0.8) / (KILLS - number)
            await deployment.until_in_topic(in_topic + int(share))
            assert ingest.running, ingest.tail()
            ingest.kill()
            await buried(f"{deployment.topic}-ingest", number)
            ingest = deployment.ingest(traffic.relay)
        return ingest

    async def kill_workers() -> Command:
        worker = deployment.worker()
        for number in range(KILLS):
            received = await deployment.received()
            share = (traffic.events - received) * random.uniform(0.1, 0.8) / (KILLS - number)
            await deployment.until_received(received + int(share))
            assert worker.running, worker.tail()
            worker.kill()
            await buried(deployment.workers_group, number)
            worker = deployment.worker()
        return worker

    ingest, worker = await asyncio.gather(kill_ingests(), kill_workers())
    await deployment.until_done(ingest)
    counts = await deployment.check(traffic.oracle, traffic.last_seq)
    # What was sent again after a kill is received again, and skipped.
    assert counts["received"] >= traffic.events
    assert counts["applied"] <= traffic.events
    assert await deployment.table("gaps") == await deployment.table("dead_letters") == []
    await worker.stop()


async def test_sigterm_saves_the_position(deployment: Deployment, some_traffic: Traffic) -> None:
    worker = deployment.worker(**STEADY)  # first: an ingest may be done before a worker has begun
    await worker.line("Pace: ")
    ingest = deployment.ingest(some_traffic.relay)
    await deployment.until_received(1)
    await ingest.stop()
    await worker.stop()
    in_topic, received, cursor = await deployment.ends(), await deployment.received(), await deployment.cursor()
    assert received < sum(in_topic.values())
    # The end of every partition is a watermark of the same position: nothing was left behind it.
    last = {message["partition"]: message for message in await deployment.messages()}
    assert {message["kind"] for message in last.values()} == {"watermark"}
    [position] = {message["seq"] for message in last.values()}
    assert position < some_traffic.last_seq
    # The cursor is the lowest watermark that was applied, to the last one.
    applied = [row["watermark_seq"] for row in await deployment.table("sink_offsets")]
    assert cursor == min(applied)

    ingest, worker = deployment.ingest(some_traffic.relay), deployment.worker()
    resumed = await ingest.line(rf'"begins_after_seq": {position}\b')
    assert resumed
    assert (await deployment.cursor() or 0) >= (cursor or 0)
    await deployment.until_done(ingest)
    counts = await deployment.check(some_traffic.oracle, some_traffic.last_seq)
    # What had come behind a hole in the seqs is asked for again: it might have been out of order.
    assert 0 <= counts["received"] - some_traffic.events <= HELD + 2 * BLOCK
    await worker.stop()
    assert f"Progress: {counts['received'] - received} received" in worker.output


@pytest.mark.parametrize("moment", ["before anything is there", "while nothing happens"])
async def test_sigterm_at_any_time(deployment: Deployment, moment: str) -> None:
    relay, _ = await deployment.generated(1_000)
    ingest, worker = deployment.ingest(relay.url, "--follow"), deployment.worker()
    if moment == "while nothing happens":
        await deployment.until_received(1_000)
        await ingest.stop()
        await worker.stop()
        return
    for command in (ingest, worker):
        await command.minds_sigterm()
        await command.stop()
        assert "Traceback" not in command.output
