"""The checks of ``doctor``: this machine, Kafka, Postgres, the relay. Each ends by itself, whatever is broken."""

from __future__ import annotations

import asyncio
import datetime as dt
import resource
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import psutil
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams import __version__
from streams.errors import BrokerError, DatabaseError, MismatchError, RelayError, SettingsError, StreamsError
from streams.kafka.client import explained, kafka_client_options
from streams.kafka.disk import broker_folder
from streams.kafka.groups import members
from streams.kafka.topic import describe_topic
from streams.kafka.topic_limits import command, effective_configs, judge
from streams.kafka.versions import OLDEST, is_too_old
from streams.postgres.database import Database
from streams.postgres.migrate import NotMigratedError, check_schema
from streams.postgres.session import Pooling
from streams.resources.cgroups import Cgroups, find_cgroups
from streams.resources.memory_budgets import (
    WORKER_AT_REST,
    WORKER_GROWTH,
    LimitError,
    check_limit,
    container_says,
    memory_limit,
)
from streams.settings import Settings
from streams.sources.firehose.handshake import NotNow
from streams.sources.firehose.probing import probe
from streams.sources.firehose.relay import relay_name
from streams.sources.firehose.seek import Sighting
from streams.text import format_span

FindingState = Literal["ok", "warn", "fail"]

#: Seconds for each of the three servers.
TIMEOUT: Final = 12.0
#: Clocks may differ by so many seconds.
SKEW: Final = 30.0
#: Versions of which private surfaces are used (docs/gotchas.md).
PINNED: Final = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}
_GB: Final = 1e9


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at, how it is, and how to mend it. ``code``: the exit code that a failure deserves."""

    what: str
    state: FindingState
    text: str
    mend: str = ""
    code: int = 0


async def check_up(settings: Settings) -> list[Finding]:
    """Make all checks side by side; return the findings in the order of the way of an event."""
    parts = await asyncio.gather(
        _within("Kafka", BrokerError.exit_code, lambda: kafka(settings)),
        _within("Postgres", DatabaseError.exit_code, lambda: postgres(settings)),
        _within("relay", RelayError.exit_code, lambda: relay(settings)),
    )
    return [*machine(settings), *(finding for part in parts for finding in part)]


async def _within(what: str, code: int, looks: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """Return the findings; a server that does not answer, or answers something unforeseen, is one."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return await looks()
    except TimeoutError:
        return [Finding(what, "fail", "does not answer", "look whether it is up and reachable from here", code)]
    except StreamsError as error:
        return [_fault(what, error)]
    except Exception as error:
        return [Finding(what, "fail", f"gives an unforeseen answer: {error!r}"[:300], "look at its log", code)]


def _fault(what: str, error: StreamsError, state: Literal["warn", "fail"] = "fail") -> Finding:
    """Return what an error says, as a finding."""
    code = error.exit_code if state == "fail" else 0
    return Finding(what, state, error.what.rstrip("."), error.mend.rstrip("."), code)


# -- this machine


def machine(settings: Settings) -> list[Finding]:
    """Return the findings about Python, packages, files, memory and disk."""
    return [
        *_python(),
        *_packages(),
        _files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        memory(settings, psutil.virtual_memory().available, find_cgroups()),
        _disk(settings),
    ]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 (somebody may run it from the sources)
        yield Finding("Python", "fail", version, "use Python 3.11 or newer", SettingsError.exit_code)
    else:
        yield Finding("Python", "ok", f"{version}, atproto-streams {__version__}")


def _packages() -> Iterator[Finding]:
    for name, pinned in PINNED.items():
        try:
            held = metadata.version(name)
        except metadata.PackageNotFoundError:
            held = "none"
        if held == pinned:
            yield Finding(name, "ok", held)
        else:
            yield Finding(name, "warn", f"{held}, and this was tested with {pinned}", f"pip install {name}=={pinned}")


def _files(limit: int) -> Finding:
    if 0 <= limit < 1024:
        return Finding("open files", "warn", f"at most {limit}", "ulimit -n 4096")
    return Finding("open files", "ok", f"at most {limit}" if limit >= 0 else "no limit")


def memory(settings: Settings, available: int, groups: Cgroups) -> Finding:
    """Check that a process may have enough memory, as a worker does at its start, and that two can have it."""
    limit, container = memory_limit(settings, groups), container_says(settings, groups)
    try:
        check_limit(limit, WORKER_AT_REST - WORKER_GROWTH, "worker")
    except LimitError as error:
        return _fault("memory", error)
    text = f"BACKFILL_MAX_MEMORY_MB {settings.backfill_max_memory_mb} a process"
    if container is not None:
        text = container.removesuffix(".")
    text = f"{text}; {available / _GB:.1f} GB available"
    if 2 * limit.nbytes > available:
        return Finding("memory", "warn", text, "set BACKFILL_MAX_MEMORY_MB lower, or give more")
    return Finding("memory", "ok", text)


def _disk(settings: Settings) -> Finding:
    folder = broker_folder_or_here(settings)
    usage = shutil.disk_usage(folder)
    text = f"{usage.free / _GB:.1f} of {usage.total / _GB:.1f} GB free at {folder}"
    if usage.free < max(2 * _GB, usage.total * 0.05):
        return Finding("disk", "warn", text, "free some: a full disk stops Kafka and Postgres")
    return Finding("disk", "ok", text)


def broker_folder_or_here(settings: Settings) -> Path:
    """Return the embedded broker's folder if it is on this machine, else LOCAL_DIR or the working directory."""
    try:
        folder = broker_folder(settings)
    except SettingsError:
        folder = None
    return folder or (settings.local_dir if settings.local_dir.is_dir() else Path.cwd())


# -- Kafka


async def kafka(settings: Settings) -> list[Finding]:
    """Check that it can be reached, the topic, the group. Raises BrokerError, SettingsError."""
    where = settings.bootstrap_servers()
    admin = AIOKafkaAdminClient(**kafka_client_options(settings), request_timeout_ms=5_000)
    try:
        await admin.start()
        brokers = (await admin.describe_cluster())["brokers"]
        found = [Finding("Kafka", "ok", f"{where}: {len(brokers)} broker{'s' if len(brokers) != 1 else ''}")]
        if await is_too_old(settings):
            found.append(
                Finding("Kafka", "fail", f"it is older than {OLDEST}", "use a newer one", BrokerError.exit_code)
            )
        found.extend(await _topic(settings, admin, len(brokers)))
        count = len(await members(admin, settings))
        found.append(Finding("group", "ok", f"{settings.sink_group}: {count} worker{'' if count == 1 else 's'} in it"))
        return found
    except KafkaError as error:
        raise await explained(settings, error) from None
    finally:
        await admin.close()


async def _topic(settings: Settings, admin: AIOKafkaAdminClient, brokers: int) -> list[Finding]:
    info = await describe_topic(admin, settings.kafka_topic)
    if info is None:
        return [Finding("topic", "ok", f"there is no {settings.kafka_topic} yet: the ingest, or a worker, makes it")]
    described = (await admin.describe_topics([settings.kafka_topic]))[0]["partitions"]
    configs = await effective_configs(admin, settings.kafka_topic)
    text = f"{info.name}: {info.partitions} partitions, replication {info.replication}"
    return [Finding("topic", "ok", text), *judged_topic(settings, configs, described, info.replication, brokers)]


def judged_topic(
    settings: Settings, configs: dict[str, str], partitions: list[dict[str, Any]], replication: int, brokers: int
) -> Iterator[Finding]:
    """Yield what is wrong with a topic's settings and replicas."""
    least = int(configs.get("min.insync.replicas", "1"))
    if dead := [p["partition"] for p in partitions if p["leader"] < 0]:
        yield Finding("topic", "fail", f"partitions without a leader: {dead}", "start the brokers that are down", 3)
    elif short := [p["partition"] for p in partitions if len(p["isr"]) < max(least, 1)]:
        yield Finding("topic", "fail", f"too few replicas in sync (min.insync.replicas {least}): partitions {short}",
                      "start the brokers that are down: nothing can be written", 3)  # fmt: skip
    if replication < min(3, brokers):
        yield Finding("topic", "warn", f"replication {replication}, and there are {brokers} brokers",
                      "what one disk loses is lost: copy it into a topic with more (the command copy)")  # fmt: skip
    for fault in judge(configs, replication):
        state: FindingState = "fail" if fault.fatal else "warn"
        mend = command(settings, settings.kafka_topic, fault.mend)
        yield Finding("topic", state, fault.text, mend, MismatchError.exit_code if fault.fatal else 0)
    retention = int(configs.get("retention.ms", "-1"))
    yield Finding("retention", "ok", "for ever" if retention < 0 else format_span(retention / 1000))


# -- Postgres


async def postgres(settings: Settings) -> list[Finding]:
    """Check that it can be reached, its version, the schema, our rights, its settings. Raises StreamsError."""
    database = Database(settings.database_dsn(), settings.sink_schema, 1, quiet=True)
    try:
        await database.start(timeout=5.0)
        before = time.time()
        row = await database.fetchrow("doctor", settings.sink_schema)
        assert row is not None
        facts = dict(row)
        skew = facts["now"].timestamp() - (before + time.time()) / 2
        schema = await _schema(database)
        through = "" if database.pooling is Pooling.DIRECT else ", through a pooler that gives us sessions"
        return [Finding("Postgres", "ok", f"{database.place}: version {facts['version']}{through}"), schema,
                *judged_database(settings, facts, schema.state == "ok"), clock("Postgres", skew)]  # fmt: skip
    finally:
        await database.close()


async def _schema(database: Database) -> Finding:
    try:
        await check_schema(database)
    except NotMigratedError as error:
        return _fault("schema", error, "warn")
    except MismatchError as error:
        return _fault("schema", error)
    return Finding("schema", "ok", f"{database.schema}, of this program's version")


def judged_database(settings: Settings, facts: dict[str, Any], is_there: bool) -> Iterator[Finding]:
    """Yield the findings about rights, connections, and the settings that matter."""
    code = DatabaseError.exit_code
    if facts["standby"] or facts["read_only"]:
        yield Finding("Postgres", "fail", "it is read-only", "point DATABASE_URL at the primary", code)
    if facts["encoding"] != "UTF8":
        yield Finding("Postgres", "fail", f"the database's encoding is {facts['encoding']}",
                      "use one with UTF8: records hold every script", code)  # fmt: skip
    if not is_there and not (facts["may_create"] and facts["may_public"]):
        yield Finding("rights", "fail", "our user may not make the schema, or public.firehose_cursor",
                      "GRANT CREATE on the database and on schema public", code)  # fmt: skip
    elif is_there and not facts["may_write"]:
        yield Finding("rights", "fail", "our user may not write the schema's tables",
                      f"GRANT ALL on schema {settings.sink_schema} and on its tables", code)  # fmt: skip
    else:
        yield Finding("rights", "ok", "enough")
    free, need = facts["free"], settings.backfill_max_concurrent + 5
    if free < need:
        yield Finding("connections", "warn", f"{free} free, and a worker takes {need}", "raise max_connections")
    else:
        yield Finding("connections", "ok", f"{free} free, a worker takes {need}")
    if facts["max_wal"] < 2 << 30:
        yield Finding("max_wal_size", "warn", f"{facts['max_wal'] >> 20} MB: checkpoints come often while it is filled",
                      "ALTER SYSTEM SET max_wal_size = '4GB' (or an eighth of the free disk), and reload")  # fmt: skip
    if facts["wal_compression"] in {"pglz", "on"}:  # on: what Postgres 14 calls it
        yield Finding("wal_compression", "warn", "pglz: it takes most of the CPU of a write after a checkpoint",
                      "ALTER SYSTEM SET wal_compression = off, and reload")  # fmt: skip
    if facts["buffers"] < 128 << 20:
        yield Finding("shared_buffers", "warn", f"{facts['buffers'] >> 20} MB",
                      "ALTER SYSTEM SET shared_buffers = '1GB', and restart")  # fmt: skip


# -- the relay


async def relay(settings: Settings) -> list[Finding]:
    """Check that it can be reached, what it keeps, and its clock. Raises RelayError."""
    name = relay_name(settings.relay_url)
    try:
        # One after the other: some relays take one connection of each address at a time.
        head = await probe(settings.relay_url, None)
        oldest = await probe(settings.relay_url, 0)
    except NotNow as error:
        return [Finding("relay", "warn", f"{name} does not take us now ({error})", "it counts connections: ask later")]
    except (OSError, TimeoutError) as error:
        return [Finding("relay", "fail", f"{name} cannot be reached ({str(error) or type(error).__name__})",
                        "check RELAY_URL and the network", RelayError.exit_code)]  # fmt: skip
    first, last = oldest.first, head.first
    newest = "it is quiet now" if last is None else f"its newest frame is {_seen(last)}"
    text = f"{name}: {'what it keeps is not known' if first is None else f'keeps from {_seen(first)} on'}; {newest}"
    found = [Finding("relay", "ok", text)]
    if last is not None and last.time is not None:
        found.append(clock("relay", last.time / 1e6 - time.time()))
    return found


def clock(whose: str, skew: float) -> Finding:
    """Check that two clocks agree. ``skew``: seconds that theirs is ahead."""
    text = f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the {whose}'s" if abs(skew) >= 1 else (
        f"as the {whose}'s")  # fmt: skip
    if abs(skew) > SKEW:
        return Finding("clock", "warn", text, "keep the clocks by NTP: days are counted by ours")
    return Finding("clock", "ok", text)


def _seen(sighting: Sighting) -> str:
    if sighting.time is None:
        return f"seq {sighting.seq}"
    return f"seq {sighting.seq} of {dt.datetime.fromtimestamp(sighting.time / 1e6, dt.UTC):%Y-%m-%d %H:%M:%S}Z"


def exit_code(findings: list[Finding]) -> int:
    """Return the exit code of the first check that failed."""
    return next((finding.code for finding in findings if finding.state == "fail"), 0)
