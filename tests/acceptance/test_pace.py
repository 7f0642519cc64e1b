"""The throttle's promises, seen from outside: the exact pace, and the number of transactions at once.

Postgres' own clock is the judge: `sink_offsets.updated_at` is when a batch's transaction began.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import statistics
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

import asyncpg
import libipld
import pytest
from websockets.asyncio.client import connect

from tests.acceptance.commands import Command
from tests.acceptance.deployment import Deployment, Relay
from tests.conftest import migrated

pytestmark = pytest.mark.slow

EVENTS = 20_000
PAGE = r'Live page, metrics and health: (http://[^\s"]+)'
DEFAULTS = {"BACKFILL_PROFILE": "", "BACKFILL_USE_IDLE": "false"}
FASTER = {"BACKFILL_PROFILE": "aggressive", "BACKFILL_USE_IDLE": "false"}
#: What a budget lets through at once; one read of the socket may be as much again.
BURST_BYTES = 256 * 1024


@dataclass
class Applied:
    """How many events were received when, by the times of the transactions."""

    at: list[tuple[float, int]] = field(default_factory=list)
    #: How late each of the looks' own sleeps ended, in seconds: that is the machine's doing, for us and for them.
    late: list[float] = field(default_factory=list)

    def note(self, rows: list[Any]) -> None:
        """Rows of `sink_offsets`: all partitions at one moment."""
        received = sum(row["received"] for row in rows)
        if received and (not self.at or received > self.at[-1][1]):
            self.at.append((max(row["updated_at"] for row in rows).timestamp(), received))

    @property
    def rate(self) -> float:
        (began, before), (ended, after) = self.at[0], self.at[-1]
        return (after - before) / (ended - began)

    def check_hardly_slower(self, size: int, delay: float, transaction: float, share: float) -> None:
        """At least that share of what transactions of such a length leave, on a machine that wakes so late."""
        allowed = size / (delay + transaction + statistics.mean(self.late))
        print(f"{size} per {delay:g} s: {self.rate:.2f}/s of {allowed:.2f}; a transaction takes {transaction:.3f} s")
        assert self.rate >= share * allowed

    def check_never_faster(self, size: int, delay: float) -> None:
        """In no stretch of time more than its batches. A batch that was seen in its middle may end at once."""
        for i, (began, before) in enumerate(self.at):
            for ended, after in self.at[i + 1 :]:
                batches = 1 + int((ended - began) / (delay - 0.001))
                assert after - before <= batches * size, (ended - began, after - before)


async def watch(deployment: Deployment, schema: str, seconds: float, applied: Applied) -> None:
    """Look at one schema's positions, often, from its first batch on."""
    look = await asyncpg.connect(deployment.environment["DATABASE_URL"])
    try:
        until = float("inf")
        while time.monotonic() < until:
            with_rows = await look.fetch(f"SELECT received, updated_at FROM {schema}.sink_offsets")
            applied.note(with_rows)
            if applied.at and until == float("inf"):
                until = time.monotonic() + seconds
            before = time.monotonic()
            await asyncio.sleep(0.02)
            applied.late.append(max(0.0, time.monotonic() - before - 0.02))
    finally:
        await look.close()


async def transaction_seconds(worker: Command) -> float:
    """How long the worker's transactions took, on average, by its metrics."""
    page = await worker.line(PAGE, 30)
    text = await asyncio.to_thread(lambda: urlopen(f"{page[1].rstrip('/')}/metrics", timeout=30).read().decode())
    name = "atproto_streams_worker_transaction_seconds"
    total, count = (float(re.search(rf"^{name}_{part} (\S+)", text, re.MULTILINE)[1]) for part in ("sum", "count"))  # type: ignore[index]
    return total / count


async def fill(deployment: Deployment, events: int) -> None:
    relay, _ = await deployment.generated(events)
    assert await deployment.ingest(relay.url).ended(120) == 0
    relay.kill()


def elsewhere(deployment: Deployment, number: int) -> dict[str, str]:
    """The same topic into a schema of its own."""
    return {"SINK_SCHEMA": f"{deployment.schema}_{number}", "SINK_GROUP": f"{deployment.group}-{number}"}


@pytest.mark.alone
async def test_the_pace_is_exact(deployment: Deployment) -> None:
    """5 events every 2 s for a minute; and 100 every 100 ms, where every moment too late counts.

    Never faster, whatever the machine is; and hardly slower than the transactions leave, as the workers timed them.
    """
    await fill(deployment, EVENTS)
    exact, faster = Applied(), Applied()
    names = [elsewhere(deployment, number) for number in range(2)]
    for name in names:
        await migrated(deployment.environment["DATABASE_URL"], name["SINK_SCHEMA"])
    first = deployment.worker(**names[0], **DEFAULTS)
    watching = asyncio.create_task(watch(deployment, names[0]["SINK_SCHEMA"], 62, exact))
    second = deployment.worker(**names[1], **FASTER)
    await watch(deployment, names[1]["SINK_SCHEMA"], 12, faster)
    took_second = await transaction_seconds(second)
    await second.stop()
    await watching
    exact.check_never_faster(5, 2.0)
    exact.check_hardly_slower(5, 2.0, await transaction_seconds(first), 0.95)
    batches = dict(faster.at)  # what was seen of one transaction's time twice counts once
    faster.at = sorted(batches.items())[:250]
    faster.check_never_faster(100, 0.1)
    faster.check_hardly_slower(100, 0.1, took_second, 0.75)
    assert "5 events every 2000 ms: at most 2.5 events/s" in first.output
    assert "can never catch up" in first.output
    assert "[BACKFILL] Estimate: about 2" in first.output


async def test_the_ingest_keeps_to_its_budget_and_takes_what_the_window_demands(deployment: Deployment) -> None:
    """Two days well inside the relay's window are read by the budget; seven minutes at its edge as they must be."""
    budget = {"BACKFILL_PROFILE": "", "BACKFILL_USE_IDLE": "false", "INGEST_BUSY_MB_PER_S": "0.2"}
    relay, _ = await deployment.generated(20_000, "--days-span", "3")
    dense, _ = await deployment.generated(20_000, "--days-span", "0.005")
    edge = deployment.ingest(dense.url, days=1, **budget, KAFKA_TOPIC=f"{deployment.topic}.edge")
    inside = deployment.ingest(relay.url, days=2, **budget)
    await inside.line(r'"frames": [1-9]', 60)
    await asyncio.sleep(17)
    plan, last = said(inside, "plan")[0], said(inside, "progress")[-1]
    spent, following = await sizes(relay, plan["begins_after_seq"], last["seq"])
    allowed = 0.2e6 * (when(last) - when(plan))
    print(f"{spent / 1e6:.2f} MB of {allowed / 1e6:.2f}; the frame under way has {following / 1e6:.2f}")
    assert spent < 1.05 * allowed + 2 * BURST_BYTES, inside.tail()
    assert spent + following > 0.5 * allowed, inside.tail()  # a busy machine wakes it late
    assert await edge.ended(60) == 0, edge.tail()
    assert "reads 0.2 MB/s, more where the relay's window demands it" in edge.output
    assert "the relay's window demands more than INGEST_BUSY_MB_PER_S" in edge.output
    assert said(edge, "done")[-1]["frames"] > 5 * last["frames"]
    await inside.stop()


async def sizes(relay: Relay, after: int, until: int) -> tuple[int, int]:
    """Bytes of the frames after the one seq until the other, and of the one that follows, from a look of our own."""
    async with connect(f"{relay.url}?cursor={after}", max_size=None) as stream:
        spent = 0
        async for frame in stream:
            assert isinstance(frame, bytes)
            if libipld.decode_dag_cbor_multi(frame)[1]["seq"] > until:
                return spent, len(frame)
            spent += len(frame)
    raise AssertionError(f"the relay ended before {until}")


def said(ingest: Command, event: str) -> list[dict[str, Any]]:
    """Its lines of that name."""
    lines = [json.loads(line) for line in ingest.output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def when(line: dict[str, Any]) -> float:
    """The time of a line of the log, in seconds since the epoch."""
    return dt.datetime.fromisoformat(line["timestamp"]).timestamp()


async def test_as_many_transactions_at_once_as_max_concurrent(deployment: Deployment) -> None:
    """A lock makes the transactions pile up: exactly MAX_CONCURRENT, with whole slices as with paced batches."""
    most = 3
    await fill(deployment, 4_000)
    dsn = deployment.environment["DATABASE_URL"]
    paces = [
        {"BACKFILL_PROFILE": "unlimited"},
        # More than a slice a batch, else the delay alone would see to it that there is one at a time.
        {"BACKFILL_BATCH_SIZE": "4000", "BACKFILL_BATCH_DELAY_MS": "1", "BACKFILL_USE_IDLE": "false"},
    ]
    names = [elsewhere(deployment, number) for number in range(len(paces))]
    for name in names:
        await migrated(dsn, name["SINK_SCHEMA"])
    locker, look = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        async with locker.transaction():
            for name in names:
                await locker.execute(f"LOCK TABLE {name['SINK_SCHEMA']}.records IN ACCESS EXCLUSIVE MODE")
            for name, pace in zip(names, paces, strict=True):
                deployment.worker(**name, **pace, BACKFILL_MAX_CONCURRENT=str(most))
            for pause in deployment.patiently(f"{most} transactions that wait, in each", 60):
                waiting = [await waiters(look, name["SINK_SCHEMA"]) for name in names]
                assert max(waiting) <= most
                if min(waiting) == most:
                    break
                await asyncio.sleep(pause)
            for _ in range(10):
                assert [await waiters(look, name["SINK_SCHEMA"]) for name in names] == [most] * len(names)
                await asyncio.sleep(0.1)
        for name in names:
            for pause in deployment.patiently("everything applied", 30):
                rows = await look.fetch(f"SELECT received FROM {name['SINK_SCHEMA']}.sink_offsets")
                if sum(row["received"] for row in rows) >= 4_000:
                    break
                await asyncio.sleep(pause)
    finally:
        await locker.close()
        await look.close()


async def waiters(look: Any, schema: str) -> int:
    """Transactions that wait for the schema's table of records."""
    return int(
        await look.fetchval(
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND relation = $1::regclass",
            f"{schema}.records",
        )
    )
