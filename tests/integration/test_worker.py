"""The worker as users start it, `faust -A streams.agents worker`, on real Kafka and Postgres, against our own sums."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from streams.kafka.groups import changelog
from streams.settings import Settings
from tests.conftest import SettingsFactory
from tests.support.burial import bury
from tests.support.patience import PATIENCE, PATIENCE_MS

PARTITIONS = 4
ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
COMMAND = [str(Path(sys.executable).with_name("faust")), "-A", "streams.agents"]
#: Seconds. A worker that takes longer to start than this is on a machine so busy that its end may take longer, too.
SLOW_START = 20.0
FAST = {"BACKFILL_PROFILE": "unlimited"}
#: So slow that a kill finds work to interrupt, so fast that the test ends.
STEADY = {"BACKFILL_BATCH_SIZE": "60", "BACKFILL_BATCH_DELAY_MS": "40", "BACKFILL_USE_IDLE": "false"}


def tid(us: int) -> str:
    number, text = us << 10, ""
    for _ in range(13):
        text = ALPHABET[number & 31] + text
        number >>= 5
    return text


@dataclass
class Feed:
    """Events on the topic, and what must come of them, computed apart from the product."""

    topic: str
    servers: str
    rnd: random.Random = field(default_factory=lambda: random.Random(3))
    want: dict[tuple[str, str, str], tuple[str, int | None]] = field(default_factory=dict)
    seq: int = 0
    began: int = field(default_factory=lambda: time.time_ns() // 1000 - 3_600_000_000)

    def __post_init__(self) -> None:
        self.dids = ["did:plc:" + "".join(self.rnd.choices(ALPHABET, k=24)) for _ in range(60)]

    def event(self) -> tuple[str, bytes]:
        self.seq += 1
        did = self.rnd.choice(self.dids)
        collection = "app.bsky.feed." + self.rnd.choice(["like", "post", "repost"])
        rkey, rev = f"k{self.rnd.randrange(400)}", tid(self.began + self.seq)
        deleted = self.rnd.random() < 0.1
        commit: dict[str, Any] = {"rev": rev, "collection": collection, "rkey": rkey, "operation": "create"}
        if deleted:
            commit["operation"] = "delete"
        else:
            commit |= {"record": {"$type": collection, "n": self.seq}, "cid": f"bafyrei{self.seq:052d}"}
        self.want[did, collection, rkey] = (rev, None if deleted else self.seq)
        event = {"did": did, "time_us": self.began + self.seq, "kind": "commit", "seq": self.seq, "commit": commit}
        return did, json.dumps(event).encode()

    def watermark(self) -> bytes:
        mark = {"kind": "watermark", "version": 1, "relay": "ws://relay", "run": 1, "topic_id": self.topic}
        return json.dumps(mark | {"seq": self.seq, "time": self.began + self.seq}).encode()

    async def produce(self, count: int) -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=self.servers, enable_idempotence=True, request_timeout_ms=PATIENCE_MS
        ) as producer:
            place: dict[str, int] = {}
            for number in range(count):
                did, value = self.event()
                partition = place.setdefault(did, len(place) % PARTITIONS)
                await producer.send(self.topic, value, key=did.encode(), partition=partition)
                if number % 500 == 499 or number == count - 1:
                    await producer.flush()
                    for p in range(PARTITIONS):
                        await producer.send(self.topic, self.watermark(), partition=p)
            await producer.flush()


class Deployment:
    """The topic, the database, and workers on both."""

    def __init__(self, environment: dict[str, str], folder: Path, look: asyncpg.Connection[Any]) -> None:
        self.environment = environment
        self.schema = environment["SINK_SCHEMA"]
        self.folder = folder
        self.look = look
        self.feed = Feed(environment["KAFKA_TOPIC"], environment["KAFKA_BOOTSTRAP_SERVERS"])
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str] = (*COMMAND, "worker"), **settings: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"worker{len(self.processes)}.log").open("wb")
        worker = subprocess.Popen(
            command,
            env={**os.environ, **self.environment, "WORKER_WEB_PORT": str(free_port()), **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
        )
        self.processes.append(worker)
        return worker

    def log(self, worker: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"worker{self.processes.index(worker)}.log").read_text()

    async def received(self) -> int:
        try:
            return int(await self.look.fetchval(f"SELECT coalesce(sum(received), 0) FROM {self.schema}.sink_offsets"))
        except asyncpg.UndefinedTableError:
            return 0

    async def until(self, received: int, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while (have := await self.received()) < received:
            logs = "\n".join(self.log(worker)[-2000:] for worker in self.processes)
            assert time.monotonic() < deadline, f"{have} of {received} received\n{logs}"
            await asyncio.sleep(0.05)

    async def rows(self) -> dict[tuple[str, str, str], tuple[str, int | None]]:
        found = await self.look.fetch(f"SELECT did, collection, rkey, rev, record->'n' AS n FROM {self.schema}.records")
        return {(r["did"], r["collection"], r["rkey"]): (r["rev"], r["n"] and int(r["n"])) for r in found}

    async def check(self) -> None:
        """Everything is there, once, and the counts add up."""
        assert await self.rows() == self.feed.want
        counts = await self.look.fetchrow(
            f"SELECT sum(received) AS received, sum(applied + skipped + dead) AS told FROM {self.schema}.sink_offsets"
        )
        assert counts is not None
        assert counts["received"] == counts["told"] == self.feed.seq

    async def cursor(self) -> str | None:
        value: str | None = await self.look.fetchval("SELECT cursor FROM public.firehose_cursor")
        return value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def stop(worker: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """A signal, and the exit with 0."""
    worker.send_signal(number)
    await ended(worker)
    assert worker.returncode == 0


async def ended(worker: subprocess.Popen[bytes], seconds: float = PATIENCE) -> int:
    deadline = time.monotonic() + seconds
    while worker.poll() is None:
        assert time.monotonic() < deadline, "the worker goes on"
        await asyncio.sleep(0.1)
    return worker.returncode


@pytest.fixture
async def deployment(settings_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Deployment]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings_environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    await admin.create_topics([NewTopic(settings_environment["KAFKA_TOPIC"], PARTITIONS, 1)])
    await admin.close()
    look = await asyncpg.connect(settings_environment["DATABASE_URL"])
    made = Deployment(settings_environment, tmp_path, look)
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.wait()
        await look.close()


async def test_events_become_rows_and_sigterm_saves_the_position(deployment: Deployment) -> None:
    await deployment.feed.produce(3000)
    worker = deployment.start(**FAST)
    await deployment.until(3000)
    await stop(worker)
    await deployment.check()
    assert await deployment.cursor() == "3000"
    log = deployment.log(worker)
    assert re.search(r"\[BACKFILL\] Progress: 3000 received, \d+ processed, \d+ skipped \(\d+\.\d evt/s\)", log)
    assert re.search(r"\[BACKFILL\] Memory: \d+MB / 1024MB limit", log)
    assert "[BACKFILL] Cursor: 3000 (" in log
    # Restarted it takes what is new, and only that.
    await deployment.feed.produce(500)
    again = deployment.start(**FAST)
    await deployment.until(3500)
    await stop(again, signal.SIGINT)
    await deployment.check()
    assert "Progress: 500 received" in deployment.log(again)


async def test_kafkas_own_offsets_follow(deployment: Deployment) -> None:
    await deployment.feed.produce(800)
    worker = deployment.start(**FAST)
    await deployment.until(800)
    await stop(worker)
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    group = ".".join(deployment.environment[name] for name in ("SINK_GROUP", "KAFKA_TOPIC", "SINK_SCHEMA"))
    committed = await admin.list_consumer_group_offsets(group)
    await admin.close()
    stored = await deployment.look.fetch(f"SELECT partition, next_offset FROM {deployment.schema}.sink_offsets")
    assert {row["partition"]: row["next_offset"] for row in stored} == {
        tp.partition: meta.offset for tp, meta in committed.items() if tp.topic == deployment.feed.topic
    }
    # They are for lag tools alone: somebody sets them back, and the worker goes on from the database's.
    servers = deployment.environment["KAFKA_BOOTSTRAP_SERVERS"]
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    topic = [TopicPartition(deployment.feed.topic, partition) for partition in range(PARTITIONS)]
    consumer.assign(topic)
    await consumer.commit(dict.fromkeys(topic, 0))
    await consumer.stop()
    await deployment.feed.produce(100)
    again = deployment.start(**FAST)
    await deployment.until(900)
    await deployment.check()
    assert "is read again" not in deployment.log(again)


async def test_sigkill_again_and_again(deployment: Deployment) -> None:
    await deployment.feed.produce(6000)
    group = ".".join(deployment.environment[name] for name in ("SINK_GROUP", "KAFKA_TOPIC", "SINK_SCHEMA"))
    for share in (1500, 3000):
        worker = deployment.start(**STEADY)
        await deployment.until(share)
        worker.kill()
        worker.wait()
        assert await bury(deployment.environment["KAFKA_BOOTSTRAP_SERVERS"], group) == 1
    deployment.start(**FAST)
    await deployment.until(6000)
    await deployment.check()


async def written_tables(settings: Settings) -> dict[int, int]:
    """How often each partition of the table of collections was written."""
    partitions = [TopicPartition(changelog(settings, "collections"), p) for p in range(PARTITIONS)]
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers()) as consumer:
        return {tp.partition: end for tp, end in (await consumer.end_offsets(partitions)).items()}


async def test_two_workers_share_and_one_takes_over(deployment: Deployment, settings: SettingsFactory) -> None:
    port = free_port()
    first = deployment.start(**STEADY, WORKER_WEB_PORT=str(port))
    second = deployment.start(**STEADY, WORKER_WEB_PORT=str(port), WORKER_ID="1")
    await deployment.feed.produce(5000)
    await deployment.until(2000)
    logs = deployment.log(first) + deployment.log(second)
    taken = re.search(rf"The web port {port} is in use: this process has (\d+)\.", logs)
    assert taken is not None
    assert int(taken[1]) > port  # the next free one: others on this machine may hold those between
    first.kill()
    first.wait()
    third = deployment.start(**FAST)
    await deployment.until(5000)
    await deployment.check()
    # Each writes the tables of its partitions, not the group's leader alone.
    before = await written_tables(settings())
    await deployment.feed.produce(1000)
    await deployment.until(6000)
    deadline = time.monotonic() + PATIENCE
    while any(count <= before[p] for p, count in (await written_tables(settings())).items()):
        assert time.monotonic() < deadline, f"{before}\n{await written_tables(settings())}"
        await asyncio.sleep(0.2)
    await stop(second)
    await stop(third)
    assert "Progress:" in deployment.log(second)


EARLY = """
import os, signal, sys
from faust.cli.faust import cli
from streams.worker.faust_worker import Worker

def checked(frame, event, argument):
    if event == "return" and frame.f_code is Worker._check.__code__:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(checked)
cli(["-A", "streams.agents", "worker"])
"""


async def test_sigterm_between_our_checks_and_fausts_start(deployment: Deployment) -> None:
    worker = deployment.start([sys.executable, "-c", EARLY])
    assert await ended(worker) == 0, deployment.log(worker)
    assert "Traceback" not in deployment.log(worker)


async def test_sigterm_does_not_wait_for_the_pace(deployment: Deployment) -> None:
    await deployment.feed.produce(1000)
    began = time.monotonic()
    worker = deployment.start(BACKFILL_BATCH_SIZE="5", BACKFILL_BATCH_DELAY_MS="60000", BACKFILL_USE_IDLE="false")
    await deployment.until(5)
    start = time.monotonic() - began
    await stop(worker)
    # What still waits after 9 s is ended by force; so is an honest end where all takes as long as on this machine.
    assert "The shutdown took more than" not in deployment.log(worker) or start > SLOW_START
    assert await deployment.received() == 5


async def test_what_retention_took_is_a_gap(deployment: Deployment) -> None:
    await deployment.feed.produce(400)
    worker = deployment.start(**FAST)
    await deployment.until(400)
    await stop(worker)
    stood = {
        row["partition"]: row["next_offset"]
        for row in await deployment.look.fetch(f"SELECT partition, next_offset FROM {deployment.schema}.sink_offsets")
    }
    await deployment.feed.produce(1200)
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    gone = TopicPartition(deployment.feed.topic, 1)
    await admin.delete_records({gone: RecordsToDelete(before_offset=stood[1] + 50)})
    await admin.close()
    deployment.start(**FAST)
    await deployment.until(1550)
    gaps = await deployment.look.fetch(f'SELECT partition, "offset", to_offset FROM {deployment.schema}.gaps')
    assert [tuple(row) for row in gaps] == [(1, stood[1], stood[1] + 50)]


async def test_a_deleted_topic_ends_it(deployment: Deployment) -> None:
    await deployment.feed.produce(100)
    worker = deployment.start(**FAST)
    await deployment.until(100)
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    await admin.delete_topics([deployment.feed.topic])
    await admin.close()
    assert await ended(worker) == 6
    assert "was deleted while we read it" in deployment.log(worker)
    assert "Traceback" not in deployment.log(worker)


async def test_a_database_that_is_cut_off_is_waited_for(deployment: Deployment) -> None:
    await deployment.feed.produce(4000)
    worker = deployment.start(**STEADY)
    for share in (500, 1500, 2500):
        await deployment.until(share)
        await deployment.look.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
    await deployment.until(4000)
    await deployment.check()
    assert worker.poll() is None


async def test_the_web_port_is_loopback_and_serves_no_tables(deployment: Deployment) -> None:
    port = free_port()
    await deployment.feed.produce(50)
    worker = deployment.start(**FAST, WORKER_WEB_PORT=str(port))
    await deployment.until(50)
    listening = [c.laddr for c in psutil.Process(worker.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [tuple(address) for address in listening] == [("127.0.0.1", port)]
    for path in ("/table/", "/table/progress/", "/router/", "/graph/", "/stats/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}{path}", timeout=PATIENCE)
        assert refused.value.code == 404


def failing(tmp_path: Path, environment: dict[str, str]) -> tuple[int, list[str]]:
    """The exit code, and what the worker says."""
    done = subprocess.run(
        [*COMMAND, "worker"], env={**os.environ, "LOCAL_DIR": str(tmp_path), **environment}, cwd=tmp_path,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"BACKFILL_BATCHSIZE": "5"}, 2, "did you mean BACKFILL_BATCH_SIZE?"),
        ({"BACKFILL_DAYS": "many"}, 2, "BACKFILL_DAYS"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "Kafka cannot be reached at 127.0.0.1:1"),
        ({"DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:1/x"}, 4, "cannot be reached"),
    ],
)
def test_what_is_missing_is_one_sentence_and_an_exit_code(
    settings_environment: dict[str, str], tmp_path: Path, change: dict[str, str], code: int, words: str
) -> None:
    returned, lines = failing(tmp_path, {**settings_environment, **change})
    assert returned == code
    assert words in lines[-1]
    assert "secret" not in "".join(lines)


def test_a_database_that_does_not_exist(settings_environment: dict[str, str], tmp_path: Path) -> None:
    url = settings_environment["DATABASE_URL"] + "_not"
    returned, lines = failing(tmp_path, {**settings_environment, "DATABASE_URL": url})
    assert returned == 4
    assert "no such database" in lines[-1]


def test_without_servers_the_worker_says_which_settings(tmp_path: Path) -> None:
    returned, lines = failing(tmp_path, {})
    assert returned == 2
    assert "KAFKA_BOOTSTRAP_SERVERS" in lines[-1]


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[Any]:
    def run(command: str) -> str:
        environment = {**os.environ, "LOCAL_DIR": str(tmp_path)}
        return subprocess.run(
            [*COMMAND, command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout

    yield run
    assert list(tmp_path.iterdir()) == []


def test_agents_and_tables_are_listed_without_any_server(listing: Any) -> None:
    assert "sink_postgres" in listing("agents")
    assert "progress" in (tables := listing("tables"))
    assert "collections" in tables
