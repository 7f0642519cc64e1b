"""DATABASE_URL in the real commands: what is malformed, or cannot be kept, is a sentence, the right code, no secret."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.commands import FAUST, INGEST, Finished, finish
from tests.acceptance.test_errors import sentence
from tests.support.pgbouncer import needed, pgbouncer

ROOT = Path(__file__).parents[2]
#: A command of each kind: they all read the settings in the same way. The forms of addresses are in
#: tests/unit/environment/test_database_url.py.
COMMANDS = {
    "worker": [*FAUST, "worker"],
    "ingest": [*INGEST, "--days", "-1"],
    "run": [sys.executable, "-m", "streams.local", "run"],
    "doctor": [*FAUST, "doctor"],
    "config": [*FAUST, "config", "show"],
    "cursor": [*FAUST, "cursor", "show"],
    "agents": [*FAUST, "agents"],
    "trending": [sys.executable, str(ROOT / "examples" / "trending.py")],
}
#: A password with an unescaped character, one for each command; the host is this machine's, where nobody listens.
PASSWORDS = (
    "12/s3cretX", "12?s3cretX", "a#s3cretX", "s3cretX@b", "s3cretX%zz", "s3cre[tX]s3cretX", "s3cretX b", "ab/s3cretX",
)  # fmt: skip


async def said(name: str, url: str, folder: Path, **settings: str) -> Finished:
    environment = {"DATABASE_URL": url, "LOCAL_DIR": str(folder), "RELAY_URL": "ws://127.0.0.1:9/", **settings}
    return await finish(COMMANDS[name], environment, folder)


async def test_no_command_tells_a_malformed_password(tmp_path: Path) -> None:
    for name, password in zip(COMMANDS, PASSWORDS, strict=True):
        done = await said(name, f"postgresql://postgres:{password}@127.0.0.1:9/atproto", tmp_path)
        everything = done.output + done.errors
        assert "s3cretX" not in everything, name
        assert "Traceback" not in everything, name
        assert "DATABASE_URL" in done.errors, (name, done)
        if name != "trending":  # an example ends with 1, whatever it was
            assert done.code == 2, (name, done)


async def test_forms_of_an_address(settings_environment: dict[str, str], tmp_path: Path) -> None:
    """What a real server answers, and what is refused before it is asked."""
    dsn = settings_environment["DATABASE_URL"]
    url, missing = urlsplit(dsn), tmp_path / "ca.pem"
    cases = [
        (f"{dsn}?sslmode=prefer&channel_binding=prefer", 6, "start a worker once"),
        (f"'{dsn}'", 6, "start a worker once"),
        (dsn.replace("postgresql://", "postgresql+asyncpg://"), 6, "start a worker once"),
        (f"{dsn}?pgbouncer=true&connection_limit=1&options=-c%20jit%3Don", 6, "start a worker once"),
        (f"{dsn}?options=-c%20nothing_of_postgres%3D1", 2, "nothing_of_postgres"),
        (f"{dsn}?sslmode=verify-full&sslrootcert={missing}", 2, str(missing)),
        (f"{dsn}?schema=mine", 2, "SINK_SCHEMA"),
        (
            f"postgresql://{url.username}:{url.password}@127.0.0.1:1,{url.netloc.rpartition('@')[2]}{url.path}",
            6,
            "start a",
        ),
    ]
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": settings_environment["KAFKA_BOOTSTRAP_SERVERS"]}
    ends = await asyncio.gather(*(said("cursor", case[0], tmp_path, **kafka) for case in cases))
    for done, (_, code, words) in zip(ends, cases, strict=True):
        assert done.code == code, done
        assert words in sentence(done)
        assert url.password is None or url.password not in done.output + done.errors


@needed
async def test_a_pooler_that_shares_sessions_ends_the_commands(
    settings_environment: dict[str, str], tmp_path: Path
) -> None:
    """Transaction mode: nothing is made, and the sentence names it."""
    with pgbouncer(settings_environment["DATABASE_URL"], tmp_path, "transaction") as pooler:
        environment = {**settings_environment, "DATABASE_URL": pooler.url, "LOCAL_DIR": str(tmp_path)}
        ends = await asyncio.gather(*(finish(COMMANDS[name], environment, tmp_path) for name in ("worker", "cursor")))
        for done in ends:
            assert done.code == 4, done
            assert "transaction mode" in sentence(done)
        doctor = await finish(COMMANDS["doctor"], environment, tmp_path)
        assert doctor.code in (3, 4), doctor  # on a busy machine Kafka may be too slow for it
        assert "transaction mode" in doctor.output
