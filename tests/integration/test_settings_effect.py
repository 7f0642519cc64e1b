"""What single settings do, where no other test is about them; tests/unit/project/test_settings_table.py has all."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.errors import BrokerError, SettingsError
from streams.kafka.client import admin_client
from streams.kafka.retention import topic_configs
from streams.kafka.topic import ensure_topic
from streams.runtime.logs import set_up_logging
from streams.settings import Settings
from tests.acceptance.commands import INGEST, finish, free_port
from tests.acceptance.deployment import Deployment
from tests.conftest import SettingsFactory


async def test_a_new_topic_is_as_the_settings_say(settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(kafka_partitions=3, kafka_replication=1, kafka_retention_hours=5)
    info = await ensure_topic(made)
    assert (info.partitions, info.replication) == (3, 1)
    async with admin_client(made) as admin:
        assert (await topic_configs(admin, made.kafka_topic))["retention.ms"] == str(5 * 3_600_000)
    monkeypatch.setattr("streams.kafka.topic.START_TIMEOUT", 0.0)  # by default another broker may be on its way
    with pytest.raises(BrokerError, match="cannot be created"):  # there is one broker
        await ensure_topic(settings(kafka_topic=f"{made.kafka_topic}.more", kafka_replication=2))


async def test_what_the_ingest_is_told_to_keep_out_is_not_in_the_topic(
    settings_environment: dict[str, str], tmp_path: Path
) -> None:
    async with Deployment.opened(settings_environment, tmp_path) as deployment:
        relay, _ = await deployment.generated(2000)
        ingest = deployment.ingest(relay.url, INGEST_COLLECTIONS="app.bsky.feed.*")
        assert await ingest.ended() == 0, ingest.tail()
        events = [message for message in await deployment.messages() if message.get("kind") == "commit"]
        assert events
        assert all(message["commit"]["collection"].startswith("app.bsky.feed.") for message in events)


@pytest.mark.parametrize("idle", [1, 4])
async def test_a_quiet_relay_is_at_its_head_after_the_idle_time(
    settings_environment: dict[str, str], tmp_path: Path, idle: int
) -> None:
    """Nothing was ever sent: only the silence can end it."""
    async with Deployment.opened(settings_environment, tmp_path) as deployment:
        relay, _ = await deployment.generated(200, "--retain-from", "9000000000")
        environment = {**settings_environment, "RELAY_URL": relay.url, "INGEST_IDLE_SECONDS": str(idle)}
        done = await finish([*INGEST, "--days", "-1"], environment, tmp_path)
        assert done.code == 0, done.errors
        line = next(json.loads(text) for text in done.errors.splitlines() if "the relay is quiet" in text)
        assert idle <= line["idle_seconds"] < idle + 3


async def test_the_memory_limit_and_the_web_address_are_as_told(
    settings_environment: dict[str, str], tmp_path: Path
) -> None:
    async with Deployment.opened(settings_environment, tmp_path) as deployment:
        relay, _ = await deployment.generated(500)
        port = free_port()
        worker = deployment.worker(BACKFILL_MAX_MEMORY_MB="345", WORKER_WEB_BIND="127.0.0.2", WORKER_WEB_PORT=str(port))
        assert await deployment.ingest(relay.url).ended() == 0
        await deployment.until_applied()
        for pause in deployment.patiently("a report"):
            rows = await deployment.look.fetch(
                f"SELECT state FROM {deployment.schema}.processes WHERE kind = 'worker' AND state ->> 'received' <> '0'"
            )
            if rows:
                break
            await asyncio.sleep(pause)
        assert json.loads(rows[0]["state"])["memory"]["limit"] == 345 << 20
        socket.create_connection(("127.0.0.2", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        await worker.stop()
        assert "MB / 345MB limit" in worker.output


def _own(**fields: Any) -> Settings:
    return Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:9", **fields)  # type: ignore[call-arg]


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_logging_as_it_was")
def test_log_lines_are_as_the_settings_say() -> None:
    def said(**fields: Any) -> str:
        stream = io.StringIO()
        set_up_logging(_own(**fields), stream)
        logging.getLogger("test.log").info("hello")
        logging.getLogger("test.log").warning("careful")
        return stream.getvalue()

    assert [json.loads(line)["event"] for line in said().splitlines()] == ["hello", "careful"]  # no terminal
    assert [json.loads(line)["event"] for line in said(log_format="json").splitlines()] == ["hello", "careful"]
    assert said(log_format="console").splitlines()[0].endswith("hello")
    assert [json.loads(line)["event"] for line in said(log_level="warning").splitlines()] == ["careful"]


@pytest.mark.usefixtures("_logging_as_it_was")
def test_no_level_shows_a_password() -> None:
    """The connections of aiokafka say their requests at debug, SASL/PLAIN's too; websockets says its headers."""
    stream = io.StringIO()
    set_up_logging(_own(log_level="debug"), stream)
    for name in ("aiokafka.conn", "websockets.client"):
        logging.getLogger(name).debug("SaslAuthenticateRequest_v0(sasl_auth_bytes=%r)", b"\x00backfill\x00s3cret")
        logging.getLogger(name).info("connected")
    logging.getLogger("aiokafka.consumer").debug("fetching")
    assert "s3cret" not in stream.getvalue()
    assert (stream.getvalue().count("connected"), stream.getvalue().count("fetching")) == (2, 1)


def test_the_embedded_stack_is_looked_for_in_its_folder(tmp_path: Path) -> None:
    state = {"kafka_bootstrap_servers": "127.0.0.1:9", "database_url": "postgresql://embedded/here"}
    (tmp_path / "stack.json").write_text(json.dumps(state))
    made = Settings(_env_file=None, local_dir=tmp_path)  # type: ignore[call-arg]
    assert made.bootstrap_servers() == "127.0.0.1:9"
    assert made.database_dsn() == "postgresql://embedded/here"
    (tmp_path / "stack.json").unlink()  # it is down: who found it waits for it there, and so do his children
    assert made.bootstrap_servers() == "127.0.0.1:9"
    assert made.as_environment()["DATABASE_URL"] == "postgresql://embedded/here"
    with pytest.raises(SettingsError, match="No Kafka"):
        Settings(_env_file=None, local_dir=tmp_path).bootstrap_servers()  # type: ignore[call-arg]
