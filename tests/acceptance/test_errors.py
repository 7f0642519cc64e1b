"""What the operator did wrong, or must mend: one sentence, no traceback, the documented exit code."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local.stack import Stack
from tests.acceptance.commands import INGEST, WORKER, Finished, finish, free_port
from tests.acceptance.deployment import Deployment

#: Nobody listens there.
AWAY = "127.0.0.1:1"
COMMANDS = {"ingest": [*INGEST, "--days", "-1"], "worker": WORKER}


def sentence(done: Finished) -> str:
    """The one line on standard error that is for people; log lines are JSON here."""
    assert "Traceback" not in done.output + done.errors
    [line] = [line for line in done.errors.splitlines() if not is_log_line(line)]
    assert line[-1] in ".?)", line
    return line


def is_log_line(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


async def run(deployment: Deployment, command: str, *arguments: str, **settings: str) -> Finished:
    environment = {"WORKER_WEB_PORT": str(free_port()), **deployment.environment, **settings}
    return await finish([*COMMANDS[command], *arguments], environment, deployment.folder)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        (("BACKFILL_DAYZ", "1"), 2, "did you mean BACKFILL_DAYS?"),
        (("BACKFILL_BATCH_SIZE", "many"), 2, "BACKFILL_BATCH_SIZE"),
        (("RELAY_URL", "ftp://relay.example"), 2, "RELAY_URL"),
    ],
)
async def test_a_setting_is_wrong(
    deployment: Deployment, command: str, setting: tuple[str, str], code: int, words: str
) -> None:
    done = await run(deployment, command, **dict([setting]))
    assert done.code == code
    assert words in sentence(done)


@pytest.mark.parametrize("command", COMMANDS)
async def test_nothing_is_set_and_nothing_is_up(tmp_path: Path, command: str) -> None:
    done = await finish(COMMANDS[command], {"LOCAL_DIR": str(tmp_path), "RELAY_URL": f"ws://{AWAY}/"}, tmp_path)
    assert done.code == 2
    assert "make run" in sentence(done)


async def test_somebody_is_away(deployment: Deployment) -> None:
    """Each is waited for, so all at once."""
    postgres = f"postgresql://somebody:hunter2@{AWAY}/there"
    cases = [
        ("ingest", {"KAFKA_BOOTSTRAP_SERVERS": AWAY}, 3, f"Kafka cannot be reached at {AWAY}"),
        ("worker", {"KAFKA_BOOTSTRAP_SERVERS": AWAY}, 3, f"Kafka cannot be reached at {AWAY}"),
        ("worker", {"DATABASE_URL": postgres}, 4, f"Postgres at {AWAY}/there cannot be reached"),
        ("ingest", {"RELAY_URL": f"ws://{AWAY}/"}, 5, f"The relay {AWAY} cannot be reached"),
    ]
    ends = await asyncio.gather(*(run(deployment, command, **settings) for command, settings, _, _ in cases))
    for done, (_, _, code, words) in zip(ends, cases, strict=True):
        assert done.code == code, done.errors
        assert words in sentence(done)
        assert "hunter2" not in done.errors + done.output


async def test_the_database_is_missing(deployment: Deployment) -> None:
    url = urlsplit(deployment.environment["DATABASE_URL"])._replace(path="/missing").geturl()
    done = await run(deployment, "worker", DATABASE_URL=url)
    assert done.code == 4
    assert "no such database" in sentence(done)


@pytest.fixture
async def role(embedded: Stack, deployment: Deployment) -> AsyncIterator[str]:
    """A role that the server asks for its password, which is ``right``."""
    look: asyncpg.Connection[Any] = deployment.look
    name, rules = f"role_{uuid.uuid4().hex}", embedded.postgres.data / "pg_hba.conf"
    trusting = rules.read_text()
    await look.execute(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD 'right'")
    rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{trusting}")
    await look.execute("SELECT pg_reload_conf()")
    try:
        yield name
    finally:
        rules.write_text(trusting)
        await look.execute("SELECT pg_reload_conf()")
        await look.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_the_password_is_wrong(deployment: Deployment, role: str) -> None:
    url = urlsplit(deployment.environment["DATABASE_URL"])
    done = await run(
        deployment, "worker", DATABASE_URL=url._replace(netloc=f"{role}:hunter2@{url.hostname}:{url.port}").geturl()
    )
    assert done.code == 4
    assert "password" in sentence(done)
    assert "hunter2" not in done.errors + done.output


@pytest.mark.parametrize("status", [403, 503])
async def test_the_relay_refuses(deployment: Deployment, status: int) -> None:
    relay, _ = await deployment.generated(10, "--fault", f"refuse:status={status},times=0")
    done = await run(deployment, "ingest", "--relay", relay.url)
    assert done.code == 5
    assert f"HTTP {status}" in sentence(done)


async def test_another_relay_than_the_topics(deployment: Deployment) -> None:
    first, _ = await deployment.generated(100)
    assert await deployment.ingest(first.url).ended() == 0
    second, _ = await deployment.generated(100, "--seed", "2")
    done = await run(deployment, "ingest", "--relay", second.url)
    assert done.code == 6
    assert "--from-time" in sentence(done)
    # With a time that is covered it goes on.
    done = await run(deployment, "ingest", "--relay", second.url, "--from-time", "2020-01-01T00:00:00Z")
    assert done.code == 0, done.errors


async def test_a_second_ingest_names_the_holder(deployment: Deployment) -> None:
    relay, _ = await deployment.generated(100)
    first = deployment.ingest(relay.url, "--follow")
    await first.line('"event": "plan"')
    done = await run(deployment, "ingest", "--relay", relay.url)
    assert done.code == 7
    assert f" pid {first.pid} " in sentence(done)
    await first.stop()


@pytest.mark.parametrize("length", ["longer", "shorter"])
async def test_the_topic_was_made_anew(deployment: Deployment, length: str) -> None:
    relay, _ = await deployment.generated(500)
    worker = deployment.worker()
    await deployment.until_done(deployment.ingest(relay.url))
    await worker.stop()
    before = await deployment.differences({"accounts": {}, "records": {}})
    await make_anew(deployment)
    # Whether the positions of the old topic exist in the new one, or lie beyond its end.
    for arguments in ((), ("--restart",)) if length == "longer" else ():
        assert await deployment.ingest(relay.url, *arguments).ended() == 0
    done = await run(deployment, "worker")
    assert done.code == 6, done.errors
    assert "re-created" in sentence(done)
    assert await deployment.differences({"accounts": {}, "records": {}}) == before


async def make_anew(deployment: Deployment) -> None:
    """Delete the topic, and create it again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    try:
        await admin.delete_topics([deployment.topic])
        for pause in deployment.patiently("the topic is gone"):
            if deployment.topic not in await admin.list_topics():
                break
            await asyncio.sleep(pause)
        await admin.create_topics([NewTopic(deployment.topic, 8, 1)])
    finally:
        await admin.close()
