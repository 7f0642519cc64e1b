"""What operators and networks do to a deployment that works: each has a defined end, and the tables are right.

Side by side, each case with names of its own: most of the time is waiting for sessions and looks.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete

from streams.local.postgres import program_folder
from streams.simulator.oracle import Oracle, State, load_oracle
from streams.simulator.relay import DevRelay
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Traffic
from tests.acceptance.commands import Command
from tests.acceptance.deployment import Deployment
from tests.acceptance.test_crash_points import beside
from tests.support.patience import PATIENCE

EVENTS = 3_000

Case = Callable[[Deployment], Awaitable[None]]


class Live:
    """A relay in this process: what is out grows when it is told to."""

    def __init__(self, relay: DevRelay, oracle: State) -> None:
        self.relay, self.oracle = relay, oracle
        self.frames = len(relay.store)
        self.last_seq = oracle["last_seq"] or 0

    @property
    def url(self) -> str:
        return self.relay.url

    def publish(self, share: float) -> None:
        """Let out so much of all."""
        self.relay.publish(int(self.frames * share))

    def publish_rest(self) -> None:
        self.relay.publish(self.frames)


@asynccontextmanager
async def live(
    folder: Path, *, events: int = EVENTS, first_seq: int = 5_000_000_001, out: float = 0.3
) -> AsyncIterator[Live]:
    """``out``: how much is out at the start. The same traffic with another ``first_seq`` is another relay's."""
    oracle = Oracle()
    plan = Plan(events, seed=3, end_us=int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1e6), first_seq=first_seq)
    store = FrameStore(Traffic(plan, oracle).frames())
    file = folder / f"oracle-{first_seq}.json"
    oracle.write_to(file)
    async with DevRelay(store, published=int(len(store) * out)) as relay:
        yield Live(relay, load_oracle(file))


@asynccontextmanager
async def admin(deployment: Deployment) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def all_of_it(deployment: Deployment, relay: Live) -> None:
    """Everything that the relay has is applied, once, and the cursor says so."""
    relay.publish_rest()
    await deployment.until_cursor(relay.last_seq)
    await deployment.until_applied()
    await deployment.check(relay.oracle, relay.last_seq)
    assert await deployment.table("dead_letters") == []


async def refused(command: Command, code: int, words: str, seconds: float = PATIENCE) -> None:
    """It ends with the code, and a sentence with the words."""
    assert await command.ended(seconds) == code, command.tail()
    assert words in command.output, command.tail()
    assert "Traceback" not in command.output, command.tail()


# -- two ingests


async def a_frozen_ingest_is_replaced_and_gives_way(deployment: Deployment) -> None:
    async with live(deployment.folder) as relay:
        deployment.worker()
        first = deployment.ingest(relay.url, "--follow")
        await first.line('"event": "plan"')
        second = deployment.ingest(relay.url, "--follow", "--standby")
        await second.line("standing by")
        await deployment.until_received(EVENTS // 10)
        first.process.send_signal(signal.SIGSTOP)
        relay.publish(0.3)
        await second.line('"event": "plan"')
        first.process.send_signal(signal.SIGCONT)
        relay.publish(0.1)
        await refused(first, 7, "Another ingest holds")
        await all_of_it(deployment, relay)
        assert await deployment.table("gaps") == []


async def standbys_take_over_one_after_the_other(deployment: Deployment) -> None:
    async with live(deployment.folder) as relay:
        deployment.worker()
        follow = ("--follow", "--standby")
        first = deployment.ingest(relay.url, *follow)
        await first.line('"event": "plan"')
        second = deployment.ingest(relay.url, *follow)
        await second.line("standing by")
        await deployment.until_received(EVENTS // 10)
        first.kill()
        relay.publish(0.2)
        await second.line('"event": "plan"')
        third = deployment.ingest(relay.url, *follow)
        await third.line("standing by")
        second.process.send_signal(signal.SIGSTOP)
        relay.publish(0.2)
        await third.line('"event": "plan"')
        second.process.send_signal(signal.SIGCONT)
        await second.line("asking for it again")
        relay.publish(0.1)
        await third.stop()
        for pause in deployment.patiently("the one that was frozen has the topic again"):
            if second.output.count('"event": "plan"') == 2 or not second.running:
                break
            await asyncio.sleep(pause)
        await all_of_it(deployment, relay)
        assert await deployment.table("gaps") == []
        await second.stop()


# -- relays


async def another_relay_takes_over_by_time(deployment: Deployment) -> None:
    """The same traffic under other seqs, lower ones. What both sent is skipped, what only the second has is taken."""
    async with live(deployment.folder, out=0.6) as first, live(deployment.folder, first_seq=70_001, out=1) as second:
        worker = deployment.worker()
        ingest = deployment.ingest(first.url, "--follow")
        await ingest.line('"event": "plan"')
        await refused(deployment.ingest(second.url, "--from-time", "2026-11-19T12:00:00Z"), 7, "Another ingest holds")
        await deployment.until_cursor(first.relay.head or 0)
        await ingest.stop()
        await refused(deployment.ingest(second.url), 6, "is another relay")
        covered = datetime(2026, 11, 19, tzinfo=UTC) + timedelta(hours=10)
        assert await deployment.ingest(second.url, "--from-time", covered.isoformat()).ended() == 0
        await deployment.until_applied()
        counts = await deployment.check(second.oracle, second.last_seq)
        assert counts["received"] > EVENTS
        assert [row["mode"] for row in await deployment.table("runs ORDER BY run")] == ["start", "overlap"]
        await worker.stop()


# -- the topic


async def topic_deleted_while_both_work(deployment: Deployment) -> None:
    async with both_work(deployment) as (ingest, worker):
        async with admin(deployment) as client:
            await client.delete_topics([deployment.topic])
        await asyncio.gather(refused(worker, 6, "was deleted while we read it"), refused(ingest, 6, "was deleted"))


async def topic_created_again_at_once(deployment: Deployment) -> None:
    async with both_work(deployment) as (ingest, worker):
        async with admin(deployment) as client:
            await client.delete_topics([deployment.topic])
            await client.create_topics([NewTopic(deployment.topic, 4, 1)])
        await asyncio.gather(refused(worker, 6, "SINK_GROUP"), refused(ingest, 6, "re-created"))


async def partitions_added_behind_our_back(deployment: Deployment) -> None:
    async with both_work(deployment) as (ingest, worker):
        async with admin(deployment) as client:
            await client.create_partitions({deployment.topic: NewPartitions(6)})
        grown = "has 6 partitions and had 4"
        await asyncio.gather(refused(worker, 6, grown), refused(ingest, 6, grown))
        again = deployment.ingest("ws://127.0.0.1:9"), deployment.worker()
        await asyncio.gather(refused(again[0], 6, grown), refused(again[1], 6, "partitions"))


@asynccontextmanager
async def both_work(deployment: Deployment) -> AsyncIterator[tuple[Command, Command]]:
    """An ingest and a worker with traffic that goes on."""
    async with live(deployment.folder) as relay:
        ingest, worker = deployment.ingest(relay.url, "--follow"), deployment.worker()
        await deployment.until_received(EVENTS // 10)

        async def go_on() -> None:
            while True:
                relay.publish(0.002)
                await asyncio.sleep(0.2)

        task = asyncio.create_task(go_on())
        try:
            yield ingest, worker
        finally:
            task.cancel()


async def retention_overtakes_a_worker(deployment: Deployment) -> None:
    """What is cut away under a slow worker is a gap with its offsets: every event is received, or inside of one."""
    relay, oracle = await deployment.generated(30_000)
    assert await deployment.ingest(relay.url).ended() == 0
    messages = await deployment.messages()
    worker = deployment.worker(BACKFILL_BATCH_SIZE="200", BACKFILL_BATCH_DELAY_MS="40", BACKFILL_USE_IDLE="false")
    await deployment.until_received(1_000)
    starts = {p: end - 300 for p, end in (await deployment.ends()).items()}
    async with admin(deployment) as client:
        await client.delete_records(
            {TopicPartition(deployment.topic, p): RecordsToDelete(before_offset=o) for p, o in starts.items()}
        )
    await deployment.until_applied()
    rows = await deployment.table("gaps")
    # Where a partition was wholly in hand there is none.
    assert 0 < len(rows) == len({row["partition"] for row in rows})
    assert all(row["to_offset"] == starts[row["partition"]] for row in rows)
    gaps = dict.fromkeys(starts, (0, 0))
    gaps |= {row["partition"]: (row["offset"], row["to_offset"]) for row in rows}
    events = [message for message in messages if message["kind"] in ("commit", "identity", "account", "sync")]
    lost = sum(gaps[m["partition"]][0] <= m["offset"] < gaps[m["partition"]][1] for m in events)
    assert 0 < lost < len(events)
    assert await deployment.received() == len(events) - lost
    # What was in hand was written all the same.
    assert f"expected offset {rows[0]['offset']}, got {rows[0]['to_offset']}" in worker.output
    await deployment.until_cursor(oracle["last_seq"] or 0)
    assert worker.running


# -- the database


async def restored_from_an_older_dump(deployment: Deployment) -> None:
    """The ingest goes on meanwhile; the sink begins at the restored offsets by itself."""
    async with own_database(deployment) as made, live(made.folder) as relay:
        ingest, worker = made.ingest(relay.url, "--follow"), made.worker()
        await made.until_cursor(relay.relay.head or 0)
        await database_tool(made, "pg_dump", "-Fc", "-f", "old.dump")
        old = await made.offsets(), await made.cursor()
        relay.publish(0.4)
        await made.until_cursor(relay.relay.head or 0)
        await worker.stop()
        relay.publish(0.1)
        await made.look.close()
        name = urlsplit(made.environment["DATABASE_URL"]).path[1:]
        await deployment.look.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await deployment.look.execute(f"CREATE DATABASE {name}")
        await database_tool(made, "pg_restore", "--exit-on-error", "old.dump")
        made.look = await asyncpg.connect(made.environment["DATABASE_URL"])
        assert (await made.offsets(), await made.cursor()) == old
        worker = made.worker()
        await all_of_it(made, relay)
        assert await made.table("gaps") == []
        assert ingest.running


@asynccontextmanager
async def own_database(deployment: Deployment) -> AsyncIterator[Deployment]:
    """The deployment in a database of its own: a restore takes all that is in one."""
    url = urlsplit(deployment.environment["DATABASE_URL"])
    name = f"{url.path[1:]}_restored"
    await deployment.look.execute(f"CREATE DATABASE {name}")
    try:
        environment = {**deployment.environment, "DATABASE_URL": url._replace(path=f"/{name}").geturl()}
        async with Deployment.opened(environment, deployment.folder) as made:
            yield made
    finally:
        await deployment.look.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def database_tool(deployment: Deployment, name: str, *arguments: str) -> None:
    def run() -> None:
        done = subprocess.run(
            [str(program_folder() / name), "-d", deployment.environment["DATABASE_URL"], *arguments],
            cwd=deployment.folder, check=False, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    await asyncio.to_thread(run)


async def schema_dropped_under_a_worker(deployment: Deployment) -> None:
    async with both_work(deployment) as (ingest, worker):
        await deployment.look.execute(f"DROP SCHEMA {deployment.schema} CASCADE")
        await refused(worker, 6, "is not as we made it")
        assert ingest.running


async def schema_of_a_newer_version(deployment: Deployment) -> None:
    worker = deployment.worker()
    for pause in deployment.patiently("the schema"):
        if await deployment.table("atproto_streams_migrations"):
            break
        await asyncio.sleep(pause)
    await worker.stop()
    await deployment.look.execute(
        f"INSERT INTO {deployment.schema}.atproto_streams_migrations (version, name) VALUES (99, 'x')"
    )
    await refused(deployment.worker(), 6, "has version 99")


GROUPS: dict[str, tuple[Case, ...]] = {
    "ingests and relays": (
        a_frozen_ingest_is_replaced_and_gives_way,
        standbys_take_over_one_after_the_other,
        another_relay_takes_over_by_time,
    ),
    "the topic": (
        topic_deleted_while_both_work,
        topic_created_again_at_once,
        partitions_added_behind_our_back,
        retention_overtakes_a_worker,
    ),
    "the database": (restored_from_an_older_dump, schema_dropped_under_a_worker, schema_of_a_newer_version),
}


@pytest.mark.parametrize("group", GROUPS)
async def test_hard_cases(deployment: Deployment, group: str) -> None:
    async def one(number: int, case: Case) -> None:
        async with beside(deployment, f"hard.{number}") as made:
            try:
                await case(made)
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                raise AssertionError(f"{case.__name__}: {error}\n{made.tails()}") from error

    ends = await asyncio.gather(*(one(*numbered) for numbered in enumerate(GROUPS[group])), return_exceptions=True)
    assert not any(ends), "\n\n".join(
        repr(end) if not isinstance(end, AssertionError) else str(end) for end in ends if end
    )
