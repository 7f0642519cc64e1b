"""A worker that was frozen, cut off or killed writes nothing into partitions that moved on, and what it had moves soon.

LONG=1 stops the worker for 90 s instead of 20.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from aiokafka.errors import KafkaError

from tests.acceptance.conftest import Traffic, serving
from tests.acceptance.deployment import Deployment
from tests.acceptance.proxy import Proxy
from tests.acceptance.test_crash_points import beside
from tests.acceptance.test_workers import shares
from tests.support.patience import slowness

EVENTS = 2_400
PARTITIONS = 4
#: Seconds that a worker stands still: longer than its session of 10 s.
STOPPED = 90.0 if os.environ.get("LONG") else 20.0
#: Seconds within which the partitions of a worker that was killed must move; more where the machine is busy.
MOVED = 15.0
#: Bytes that are more than a ping or a cursor: a statement with events in it.
A_STATEMENT = 2_000
#: So slow that a freeze of some seconds finds work to interrupt.
PACE = {"BACKFILL_BATCH_SIZE": "10", "BACKFILL_BATCH_DELAY_MS": "33", "BACKFILL_USE_IDLE": "false"}
#: A worker alone does half of the events while another is stopped: when that one wakes, there is something left to do.
SLOW = PACE | {"BACKFILL_BATCH_DELAY_MS": str(int(STOPPED / (EVENTS / 2) * 10 * 1000))}


@pytest.fixture(scope="module")
def little_traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    with serving(EVENTS, tmp_path_factory.mktemp("traffic")) as served:
        yield served


@asynccontextmanager
async def by_proxy(deployment: Deployment) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the database, and the address by way of it."""
    url = urlsplit(deployment.environment["DATABASE_URL"])
    async with Proxy(str(url.hostname), int(url.port or 0)) as proxy:
        login, at, _ = url.netloc.rpartition("@")
        yield proxy, url._replace(netloc=f"{login}{at}127.0.0.1:{proxy.port}").geturl()


async def shared(deployment: Deployment) -> list[set[int]]:
    """What each worker has; nothing while the broker cannot say."""
    try:
        return await shares(deployment)
    except KafkaError:
        return []


async def until_shared(deployment: Deployment, workers: int) -> None:
    for pause in deployment.patiently(f"{workers} workers share the partitions"):
        found = await shared(deployment)
        if len(found) == workers and all(found) and sum(map(len, found)) == PARTITIONS:
            return
        await asyncio.sleep(pause)


async def until_moved(deployment: Deployment, since: dict[int, int], enough: int = PARTITIONS) -> float:
    """The seconds until so many partitions stand beyond ``since``."""
    began = time.monotonic()
    for pause in deployment.patiently(f"{enough} partitions move on from {since}"):
        now = await deployment.offsets()
        if sum(now[partition] > offset for partition, offset in since.items()) >= enough:
            break
        await asyncio.sleep(pause)
    return time.monotonic() - began


async def until_in_flight(deployment: Deployment, proxy: Proxy) -> None:
    """A transaction is on its way to a database that does not hear of it."""
    for pause in deployment.patiently("a statement is held"):
        if proxy.held > A_STATEMENT:
            return
        await asyncio.sleep(pause)


async def begun(deployment: Deployment, traffic: Traffic, events: int = EVENTS // 6) -> None:
    """Everything is in the topic, and the workers have begun."""
    assert await deployment.ingest(traffic.relay).ended() == 0
    await deployment.until_received(events)


async def ends_right(deployment: Deployment, traffic: Traffic) -> None:
    await deployment.until_applied()
    counts = await deployment.check(traffic.oracle, traffic.last_seq)
    assert counts["received"] == traffic.events
    assert await deployment.table("gaps") == await deployment.table("dead_letters") == []


async def stopped_beyond_its_session(deployment: Deployment, traffic: Traffic) -> None:
    """SIGSTOP, the other takes over, SIGCONT: what the zombie had in hand is dropped, and it takes part again."""
    zombie, other = deployment.worker(**SLOW), deployment.worker(**SLOW)
    await until_shared(deployment, 2)
    await begun(deployment, traffic)
    zombie.process.send_signal(signal.SIGSTOP)
    stood, since = await deployment.offsets(), time.monotonic()
    await until_moved(deployment, stood)
    await asyncio.sleep(max(0.0, since + STOPPED - time.monotonic()))
    zombie.process.send_signal(signal.SIGCONT)
    await until_shared(deployment, 2)
    moved = await deployment.offsets()
    assert moved != await deployment.ends(), "nothing was left to do together"
    await ends_right(deployment, traffic)
    assert zombie.running
    assert other.running


async def told_to_stop_in_a_rebalance(deployment: Deployment, _: Traffic) -> None:
    """One joins, and one does not answer: nobody has anything until that one's session ends. SIGTERM does not wait."""
    frozen, worker = deployment.worker(**PACE), deployment.worker(**PACE)
    await until_shared(deployment, 2)
    frozen.process.send_signal(signal.SIGSTOP)
    joining = deployment.worker(**PACE)
    for pause in deployment.patiently("a rebalance"):
        if not await shared(deployment):
            break
        await asyncio.sleep(pause)
    await asyncio.gather(worker.stop(), joining.stop())


async def cut_off_from_the_database(deployment: Deployment, traffic: Traffic) -> None:
    """The network freezes with a transaction in it, another worker joins; what is late does no harm."""
    async with by_proxy(deployment) as (proxy, url):
        cut_off = deployment.worker(**PACE, DATABASE_URL=url)
        await begun(deployment, traffic)
        proxy.freeze_at(A_STATEMENT + 1)
        await until_in_flight(deployment, proxy)
        stood = await deployment.offsets()
        deployment.worker(**PACE)
        await until_moved(deployment, stood, enough=PARTITIONS // 2)
        await asyncio.sleep(5)  # the one that is cut off has given its transaction up by now
        assert proxy.held > A_STATEMENT
        proxy.thaw()
        await until_shared(deployment, 2)
        await until_moved(deployment, stood)
        await ends_right(deployment, traffic)
        assert cut_off.running


async def killed_with_a_transaction_on_its_way(deployment: Deployment, traffic: Traffic) -> None:
    """The partitions of a worker that was killed move in time; its last transaction arrives after that, for nothing."""
    async with by_proxy(deployment) as (proxy, url):
        killed = deployment.worker(**PACE, DATABASE_URL=url)
        deployment.worker(**PACE)
        await until_shared(deployment, 2)
        await begun(deployment, traffic)
        proxy.freeze_at(A_STATEMENT + 1)
        await until_in_flight(deployment, proxy)
        stood = await deployment.offsets()
        limit = MOVED * await asyncio.to_thread(slowness)
        killed.kill()
        took = await until_moved(deployment, stood)
        assert took <= limit, f"the partitions of a killed worker moved after {took:.1f} s"
        assert proxy.held > A_STATEMENT
        proxy.thaw()
        for pause in deployment.patiently("the late transaction is delivered"):
            if not proxy.held:
                break
            await asyncio.sleep(pause)
        await ends_right(deployment, traffic)


CASES = (
    stopped_beyond_its_session, cut_off_from_the_database, killed_with_a_transaction_on_its_way,
    told_to_stop_in_a_rebalance,
)  # fmt: skip


async def test_zombies(deployment: Deployment, little_traffic: Traffic) -> None:
    """Side by side: most of the time is the sessions'."""

    async def one(number: int) -> None:
        async with beside(deployment, f"zombie.{number}") as made:
            try:
                await CASES[number](made, little_traffic)
            except (AssertionError, OSError) as error:
                raise AssertionError(f"{CASES[number].__name__}: {error}\n{made.tails()}") from error

    ends = await asyncio.gather(*(one(number) for number in range(len(CASES))), return_exceptions=True)
    assert not any(ends), "\n\n".join(str(end) for end in ends if end)
