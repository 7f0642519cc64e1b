"""BACKFILL_MAX_MEMORY_MB is kept, seen from outside: under a flood, hostile messages, a hog, a pause and an outage.

The peak is the kernel's own (VmHWM). FLOOD_EVENTS=1000000 for the promise's number; LONG=1 for pauses of ten minutes.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaProducer

from streams.simulator.oracle import State, load_oracle
from tests.acceptance.commands import FAUST, INGEST, WORKER, Command, finish, free_port
from tests.acceptance.deployment import Deployment, Relay
from tests.acceptance.proxy import Proxy
from tests.acceptance.test_zombies import by_proxy
from tests.support.patience import PATIENCE
from tests.support.peak import peak_bytes

FLOOD = int(os.environ.get("FLOOD_EVENTS", "60000"))
#: One of the largest commits after each so many events: 2 to 5 MB, records of 1 MB among them.
LARGE_EVERY = 400
#: Seconds of pause and outage: several sessions (10 s) long.
AWAY = 600.0 if os.environ.get("LONG") else 40.0
MB = 1 << 20
LIMIT = 256
EVENTS = 6_000
#: What a hog of this size leaves of LIMIT is less than nothing.
HOG = 400
PAUSING = rf"\[BACKFILL\] Memory: [3-9]\d\dMB / {LIMIT}MB limit: pausing until some is freed"
SMALL = r"nothing was freed in 30 s: going on with the smallest batches"
GOING_ON = rf"\[BACKFILL\] Memory: \d+MB / {LIMIT}MB limit: going on"


@dataclass(frozen=True)
class Flood:
    """A relay with much to send, and what must come of it."""

    url: str
    oracle: State


@pytest.fixture(scope="module")
def flood(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flood]:
    folder = tmp_path_factory.mktemp("flood")
    oracle = folder / "oracle.json"
    generate = ["--generate", str(FLOOD), "--large-every", str(LARGE_EVERY), "--oracle", str(oracle)]
    relay = Relay("relay", generate, folder)
    try:
        with asyncio.Runner() as runner:
            runner.run(relay.ready(seconds=PATIENCE + FLOOD / 1000))
        yield Flood(relay.url, load_oracle(oracle))
    finally:
        relay.kill()


class Peak:
    """The highest RSS of a command, as the kernel remembers it; asked while it runs."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self.bytes = 0
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self._command.running:
            self.look()
            await asyncio.sleep(0.05)

    def look(self) -> None:
        with suppress(OSError, StopIteration):
            self.bytes = peak_bytes(self._command.pid)

    @property
    def megabytes(self) -> int:
        self.look()
        return self.bytes // MB


def named(deployment: Deployment, name: str) -> Deployment:
    """Another deployment beside it: a topic, a schema and a group of its own."""
    own = {"KAFKA_TOPIC": f"{deployment.topic}.{name}", "SINK_SCHEMA": f"{deployment.schema}_{name}"}
    environment = {**deployment.environment, **own, "SINK_GROUP": f"{deployment.group}-{name}"}
    folder = deployment.folder / name
    folder.mkdir()
    return Deployment(environment, folder, deployment.look)


async def pour(deployment: Deployment, flood: Flood, limit: int) -> dict[str, tuple[float, int]]:
    """The flood through an ingest, then through a worker; the rate of each in events a second, and its peak in MB."""
    memory = {"BACKFILL_MAX_MEMORY_MB": str(limit)}
    ingest = deployment.ingest(flood.url, **memory)
    peak = Peak(ingest)
    await ingest.line('"plan"|plan')
    began = time.monotonic()
    assert await ingest.ended(60 + FLOOD / 500) == 0, ingest.tail()
    done = {"ingest": (FLOOD / (time.monotonic() - began), peak.bytes // MB)}

    worker = deployment.worker(**memory)
    peak = Peak(worker)
    first = 0
    for pause in deployment.patiently("the first events"):
        if first := await deployment.received():
            break
        await asyncio.sleep(pause)
    began = time.monotonic()
    await deployment.until_received(FLOOD, 60 + FLOOD / 500)
    done["worker"] = ((FLOOD - first) / (time.monotonic() - began), peak.megabytes)
    await deployment.until_applied()
    differences = await deployment.differences(flood.oracle)
    assert not differences, differences[:10]
    await worker.stop()
    return done


@pytest.mark.slow
@pytest.mark.alone
async def test_a_flood_stays_within_the_limit_at_the_speed_that_it_has_without_one(
    deployment: Deployment, flood: Flood
) -> None:
    best: dict[tuple[str, int], float] = {}
    for turn in range(4):
        limit = (LIMIT, 1024)[turn % 2]
        one = named(deployment, f"flood{turn}")
        try:
            figures = await pour(one, flood, limit)
        finally:
            one.close()
        print(limit, figures)
        for process, (rate, peak) in figures.items():
            assert peak <= limit, (process, figures)
            best[process, limit] = max(rate, best.get((process, limit), 0.0))
        if turn and all(best[process, LIMIT] >= 0.8 * best[process, 1024] for process in figures):
            return
    raise AssertionError(f"slower than 80 % of what it is with 1024 MB: {best}")


@pytest.mark.slow
async def test_a_flood_of_a_strangers_large_messages_stays_within_the_limit(deployment: Deployment) -> None:
    """8 MB each and compressed to nothing: as no event, as header, as key, and as a record in four bytes a letter."""
    worker = deployment.worker(BACKFILL_MAX_MEMORY_MB=str(LIMIT), BACKFILL_MAX_CONCURRENT="16")
    for pause in deployment.patiently("positions"):
        if len(await deployment.offsets()) == 8:
            break
        await asyncio.sleep(pause)
    peak = Peak(worker)
    size = 8 * MB - 64 * 1024
    did = "did:plc:" + "a" * 24
    record = b'{"$type":"app.bsky.feed.post","text":"\xf0\x9f\x99\x82' + b"a" * (size - 1000) + b'"}'
    event = (
        b'{"did":"%s","time_us":1700000000000000,"kind":"commit","seq":1,"commit":{"rev":"3kztiuvx7zs2n","operation":'
        b'"create","collection":"app.bsky.feed.post","rkey":"%s","record":%s,"cid":"bafyreigh"}}'
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"], compression_type="zstd",
        max_request_size=9 * MB, max_batch_size=9 * MB,
    )  # fmt: skip
    await producer.start()
    strange, records = 0, 0
    try:
        for number in range(48):
            partition = number % 8
            mark = b"[%d]" % number  # the same letter twice would be one
            key, value, header = (
                (b"key", mark + b" " * size, b""), (mark * (size // 5), mark, b""), (b"key", mark, b"x" * size)
            )[number % 3]  # fmt: skip
            headers = [("h", header)]
            send = [producer.send_and_wait(deployment.topic, value, key, partition, headers=headers)]
            strange += len(send)
            if number % 4 == 0:
                value = event % (did.encode(), b"%d" % number, record)
                send.append(producer.send_and_wait(deployment.topic, value, did.encode(), partition))
                records += 1
            await asyncio.gather(*send)
    finally:
        await producer.stop()
    await deployment.until_received(strange + records)
    counts = await deployment.counts()
    assert (counts["dead"], counts["applied"]) == (strange, records)
    assert peak.megabytes <= LIMIT
    assert "pausing" not in worker.output  # by construction, not because it stood still
    await worker.stop()


@pytest.mark.slow
async def test_a_hog_in_the_process_stops_pulling_until_it_is_gone(deployment: Deployment) -> None:
    """Ingest and worker alike, the worker before a topic that is full."""
    hog = {"BACKFILL_MAX_MEMORY_MB": str(LIMIT), "MEMORY_HOG": f"{HOG}:0:15"}
    relay, oracle = await deployment.generated(EVENTS)
    other = named(deployment, "filled")
    try:
        assert await other.ingest(relay.url).ended() == 0
        ingest, worker = deployment.ingest(relay.url, **hog), other.worker(**hog)
        await asyncio.gather(ingest.line(PAUSING), worker.line(PAUSING))
        await asyncio.sleep(1)
        written, received = sum((await deployment.ends()).values()), await other.received()
        await asyncio.sleep(3)
        # What was read before gets its watermark, in each of the 8 partitions.
        assert written <= sum((await deployment.ends()).values()) <= written + 8 < EVENTS
        assert received == await other.received() < EVENTS
        await asyncio.gather(ingest.line(GOING_ON), worker.line(GOING_ON))
        assert await ingest.ended() == 0
        await other.until_applied()
        for command in (ingest, worker):
            assert len(re.findall(PAUSING, command.output)) == 1, command.tail()
        await worker.stop()
        reader = deployment.worker()
        await deployment.until_applied()
        for one in (deployment, other):
            assert not await one.differences(oracle)
        await reader.stop()
    finally:
        other.close()


def generations(worker: Command) -> list[str]:
    """The group's generations that the worker has seen (aiokafka's log)."""
    return sorted(set(re.findall(r"with generation (\d+)", worker.output)))


@pytest.mark.slow
async def test_long_without_memory_or_database_keeps_the_partitions(deployment: Deployment) -> None:
    """Side by side: two workers over the same traffic, each in its own group; and an ingest that is short of memory."""
    relay, oracle = await deployment.generated(EVENTS)
    short, cut = named(deployment, "short"), named(deployment, "cut")
    info = [*FAUST, "worker", "-l", "info"]
    hog = {"BACKFILL_MAX_MEMORY_MB": str(LIMIT), "MEMORY_HOG": f"{HOG}:0:{AWAY:.0f}"}
    try:
        ends = await asyncio.gather(*(one.ingest(relay.url).ended() for one in (short, cut)))
        assert ends == [0, 0]
        async with by_proxy(deployment) as (proxy, address):
            began = time.monotonic()
            ingest = deployment.ingest(relay.url, **hog)
            first = short._start("worker", info, WORKER_WEB_PORT=str(free_port()), **hog)
            second = cut._start("worker", info, WORKER_WEB_PORT=str(free_port()), DATABASE_URL=address, **SLOWLY)
            await cut.until_received(1)
            await outage(proxy, began + AWAY)
            await asyncio.gather(ingest.line(SMALL), first.line(SMALL))
            await short.until_applied()
            await cut.until_applied()
            assert await ingest.ended() == 0
            for worker in (first, second):
                assert len(generations(worker)) == 1, (generations(worker), worker.tail())
            for one in (short, cut):
                assert not await one.differences(oracle)
            await asyncio.gather(first.stop(), second.stop())
    finally:
        short.close()
        cut.close()


#: About 20 s for EVENTS: the outage finds work to interrupt.
SLOWLY = {"BACKFILL_BATCH_SIZE": "150", "BACKFILL_BATCH_DELAY_MS": "500", "BACKFILL_USE_IDLE": "false"}


async def outage(proxy: Proxy, until: float) -> None:
    """Nothing passes until then."""
    proxy.cut()
    proxy.freeze()
    await asyncio.sleep(until - time.monotonic())
    proxy.thaw()


@pytest.mark.parametrize("command", [[*INGEST, "--days", "-1"], WORKER])
async def test_a_limit_that_nothing_large_can_pass_under_is_refused(deployment: Deployment, command: list[str]) -> None:
    environment = {**deployment.environment, "BACKFILL_MAX_MEMORY_MB": "64", "WORKER_WEB_PORT": str(free_port())}
    done = await finish(command, environment, deployment.folder)
    assert done.code == 2, done
    found = re.search(r"BACKFILL_MAX_MEMORY_MB: 64 MB are not enough .* Set it to (\d+) or more\.", done.errors)
    assert found is not None, done
    assert "Traceback" not in done.errors
    assert 80 < int(found[1]) <= 256
