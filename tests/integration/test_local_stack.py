"""The embedded stack from the shell: up, down, status, env; shared, and recovered after crashes with its data."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local import jars
from streams.local.postgres import Postgres, wal_config
from streams.local.stack import Stack
from streams.settings import read_stack_state
from tests.acceptance.commands import INGEST, WORKER, Command, free_port
from tests.acceptance.deployment import Relay
from tests.support.patience import PATIENCE, PATIENCE_MS

Result = subprocess.CompletedProcess[str]
COMMAND = [sys.executable, "-m", "streams.local"]


def local(folder: Path, command: str, *options: str) -> Result:
    return subprocess.run(
        [*COMMAND, command, "--dir", str(folder), *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack of this module's own, up; the tests use it in the order of this file. Homes have all kinds of names."""
    folder = tmp_path_factory.mktemp("stack") / "Ünï cödé 日本"
    try:
        yield folder
    finally:
        Stack(folder).down()


def test_down_before_the_first_up(folder: Path) -> None:
    assert local(folder, "status").returncode == 3
    env = local(folder, "env")
    assert (env.returncode, env.stdout) == (3, "")
    assert "streams.local up" in env.stderr
    assert local(folder, "down").returncode == 0
    assert read_stack_state(folder) is None


def test_two_at_once_start_it_once(folder: Path) -> None:
    command = [*COMMAND, "up", "--dir", str(folder), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    states = [json.loads(process.communicate(timeout=PATIENCE)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert states[0]["up"]
    assert [(s["kafka"]["pids"], s["postgres"]["pids"]) for s in states[1:]] == [
        (states[0]["kafka"]["pids"], states[0]["postgres"]["pids"])
    ]


def test_status_and_env_say_where_it_is(folder: Path) -> None:
    status = local(folder, "status", "--json")
    parts = json.loads(status.stdout)
    assert status.returncode == 0
    assert parts["kafka"]["resident_bytes"] > 50_000_000
    assert parts["postgres"]["data_bytes"] > 10_000_000
    assert "up" in local(folder, "status").stdout
    lines = dict(line.split("=", 1) for line in local(folder, "env").stdout.splitlines())
    state = read_stack_state(folder)
    assert state is not None
    assert lines == {
        "KAFKA_BOOTSTRAP_SERVERS": state["kafka_bootstrap_servers"],
        "DATABASE_URL": state["database_url"],
    }


def test_the_database_asks_for_a_password_that_only_its_owner_can_read(folder: Path) -> None:
    """Loopback is open to every user of the machine, and a superuser of Postgres may run programs."""
    stack = Stack(folder)
    password = stack.postgres.password
    assert len(password) == 32
    assert password in stack.dsn
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        asyncio.run(asyncpg.connect(stack.postgres.address))
    for file in (folder / "stack.json", folder / "postgres" / "password"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert not list((folder / "postgres").glob("password.*")), "what initdb read is gone"
    shown = [local(folder, "up").stdout, local(folder, "status").stdout, local(folder, "status", "--json").stdout]
    assert not [text for text in shown if password in text]
    environment = {**os.environ, "LOCAL_DIR": str(folder)}
    psql = subprocess.run(
        [*COMMAND, "psql", "-XAtc", "SELECT 'in'"], capture_output=True, text=True, env=environment, check=True
    )
    assert psql.stdout == "in\n"


def test_it_listens_on_loopback_only(folder: Path) -> None:
    stack = Stack(folder)
    for pid in [*stack.kafka.pids(), *stack.postgres.pids()]:
        listening = [c for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening
        assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}


def test_a_second_up_does_nothing(folder: Path) -> None:
    stack = Stack(folder)
    before = (stack.kafka.pids(), stack.postgres.pids(), stack.bootstrap_servers, stack.dsn)
    again = local(folder, "up")
    assert again.returncode == 0
    assert "already" in again.stdout
    assert stack.bootstrap_servers in again.stdout
    assert (stack.kafka.pids(), stack.postgres.pids(), stack.bootstrap_servers, stack.dsn) == before


def test_killed_broker_and_server_come_back_with_their_data(folder: Path) -> None:
    stack = Stack(folder)
    asyncio.run(write(stack))
    before = (stack.bootstrap_servers, stack.dsn)
    os.kill(stack.kafka.pids()[0], signal.SIGKILL)
    os.kill(stack.postgres.pids()[0], signal.SIGKILL)
    up = local(folder, "up")
    assert (up.returncode, "already" in up.stdout) == (0, False), up.stderr
    assert (stack.bootstrap_servers, stack.dsn) == before
    assert asyncio.run(read(stack)) == (b"kept", "kept")


async def test_who_found_it_waits_for_it(folder: Path, tmp_path: Path) -> None:
    """Ingest and worker without an address of their own: Kafka is killed, all is down, and up again."""
    stack = Stack(folder)
    relay = await Relay("relay", ["--generate", "20000"], tmp_path).ready()
    ports = {"WORKER_WEB_PORT": str(free_port()), "INGEST_WEB_PORT": str(free_port())}
    environment = {"LOCAL_DIR": str(folder), "RELAY_URL": relay.url, "BACKFILL_PROFILE": "unlimited", **ports}
    ingest = Command("ingest", [*INGEST, "--days", "-1", "--follow"], environment, tmp_path)
    worker = Command("worker", WORKER, environment, tmp_path)
    try:
        while await received(stack) == 0:
            assert (ingest.running, worker.running) == (True, True), ingest.tail() + worker.tail()
            await asyncio.sleep(0.2)
        os.kill(stack.kafka.pids()[0], signal.SIGKILL)
        for command in (ingest, worker):
            await command.line("The embedded Kafka cannot be reached at .* start it with .*Waiting for it")
        assert local(folder, "down").returncode == 0
        await asyncio.sleep(6)  # longer than the guard's look, and a heartbeat
        assert (ingest.running, worker.running) == (True, True), ingest.tail() + worker.tail()
        assert local(folder, "up").returncode == 0
        deadline = time.monotonic() + PATIENCE
        while await received(stack) < 20_000:
            assert time.monotonic() < deadline, ingest.tail() + worker.tail()
            await asyncio.sleep(0.2)
        await asyncio.gather(ingest.stop(), worker.stop())
    finally:
        for command in (ingest, worker, relay):
            command.kill()


def test_a_frozen_stack_is_thawed(folder: Path) -> None:
    stack = Stack(folder)
    pids = stack.kafka.pids() + stack.postgres.pids()
    stack.kafka.freeze()
    stack.postgres.freeze()
    assert local(folder, "status").returncode == 3
    assert local(folder, "up").returncode == 0
    assert stack.kafka.pids() + stack.postgres.pids() == pids
    assert asyncio.run(read(stack)) == (b"kept", "kept")


def test_down_stops_and_up_again_has_the_data_on_the_same_ports(folder: Path) -> None:
    stack = Stack(folder)
    before = (stack.bootstrap_servers, stack.dsn)
    down = local(folder, "down")
    assert (down.returncode, "killed" in down.stdout) == (0, False)
    assert (stack.kafka.pids(), stack.postgres.pids(), read_stack_state(folder)) == ([], [], None)
    assert local(folder, "up").returncode == 0
    assert (stack.bootstrap_servers, stack.dsn) == before
    assert asyncio.run(read(stack)) == (b"kept", "kept")


def test_a_process_that_is_not_ours_is_never_taken_for_ours(folder: Path, tmp_path: Path) -> None:
    stack = Stack(folder)
    pids = (stack.kafka.pids(), stack.postgres.pids())
    other = Stack(tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stack.json").write_text((folder / "stack.json").read_text())
    assert other.down()
    assert not (tmp_path / "other" / "stack.json").exists()
    assert (stack.kafka.pids(), stack.postgres.pids()) == pids


def test_a_broken_data_folder_is_one_sentence(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    up = local(tmp_path, "up")
    assert up.returncode == 4
    assert up.stderr.count("\n") == 1
    assert str(data) in up.stderr


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    up = local(tmp_path / "file" / "stack", "up")
    assert up.returncode == 2
    assert up.stderr.startswith("error: LOCAL_DIR: the folder")
    assert "Traceback" not in up.stderr


def wal_settings(server: Postgres) -> dict[str, str]:
    async def ask() -> dict[str, str]:
        connection = await asyncpg.connect(server.dsn)
        try:
            names = ["wal_compression", "max_wal_size", "checkpoint_timeout"]
            return {name: await connection.fetchval("SELECT current_setting($1)", name) for name in names}
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_a_folder_of_the_version_before_takes_the_wal_settings_at_its_next_start(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", tmp_path / "logs", fsync=False)
    try:
        server.start()
        settings = wal_settings(server)
        assert (settings["wal_compression"], settings["checkpoint_timeout"]) == ("off", "30min")
        server.stop()
        (server.data / "streams.conf").unlink()
        with (server.data / "postgresql.conf").open("a") as config:
            config.write("max_wal_size = 4GB\ncheckpoint_timeout = 15min\nwal_compression = on\n")
        server.start()
        again = wal_settings(server)
        assert (again["wal_compression"], again["checkpoint_timeout"]) == ("off", "30min")
        # What a user sets by ALTER SYSTEM stays.
        with (server.data / "postgresql.auto.conf").open("a") as config:
            config.write("max_wal_size = 3GB\n")
        server.restart()
        assert wal_settings(server) == {**again, "max_wal_size": "3GB"}
    finally:
        server.stop()


@pytest.mark.parametrize(("free", "size"), [(0, 2048), (15 << 30, 2048), (24 << 30, 3072), (1 << 40, 4096)])
def test_the_wal_may_have_an_eighth_of_the_free_disk_within_limits(free: int, size: int) -> None:
    assert f"max_wal_size = {size}MB\n" in wal_config(free)


def test_the_pinned_jars_are_one_cluster_of_versions() -> None:
    pinned = jars.pinned_jars()
    assert {jar.version for jar in pinned if jar.group == "org.apache.kafka"} == {jars.kafka_version()}
    assert all(len(jar.sha256) == 64 for jar in pinned)


async def received(stack: Stack) -> int:
    """What the sink has received, 0 while there is no schema yet."""
    connection = await asyncpg.connect(stack.dsn)
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(received), 0) FROM firehose.sink_offsets"))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return 0
    finally:
        await connection.close()


async def write(stack: Stack) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, acks="all", request_timeout_ms=PATIENCE_MS)
    await producer.start()
    await producer.send_and_wait("kept", b"kept")
    await producer.stop()
    connection = await asyncpg.connect(stack.dsn)
    await connection.execute("CREATE TABLE kept AS SELECT 'kept' AS word")
    await connection.close()


async def read(stack: Stack) -> tuple[bytes | None, str]:
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition("kept", 0)])
    message = await asyncio.wait_for(consumer.getone(), PATIENCE)
    await consumer.stop()
    connection = await asyncpg.connect(stack.dsn)
    word: str = await connection.fetchval("SELECT word FROM kept")
    await connection.close()
    return message.value, word
