"""`doctor`: what is judged, and the exit code. Its looks at real servers are in tests/integration/test_checkup.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.errors import BrokerError, DatabaseError, SettingsError
from streams.resources.cgroups import Cgroups
from streams.settings import Settings
from streams.status.doctor import Finding, _within, clock, exit_code, judged_database, judged_topic, memory

GOOD_TOPIC = {"min.insync.replicas": "1", "cleanup.policy": "delete", "max.message.bytes": "8388608",
              "message.timestamp.type": "LogAppendTime", "retention.ms": "604800000"}  # fmt: skip
GOOD_PARTITIONS = [{"partition": 0, "leader": 1, "isr": [1]}]
GOOD_DATABASE = {"standby": False, "read_only": False, "encoding": "UTF8", "may_create": True, "may_public": True,
                 "may_write": True, "free": 90, "max_wal": 4 << 30, "buffers": 1 << 30,
                 "wal_compression": "off"}  # fmt: skip


def settings(**changes: int) -> Settings:
    return Settings(_env_file=None, kafka_bootstrap_servers="host:9092", **changes)  # type: ignore[arg-type, call-arg]


def states(findings: Any) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings if finding.state != "ok"}


def topic(partitions: list[dict[str, Any]] = GOOD_PARTITIONS, **configs: str) -> dict[str, str]:
    changed = {name.replace("_", "."): value for name, value in configs.items()}
    return states(judged_topic(settings(), {**GOOD_TOPIC, **changed}, partitions, 1, 1))


def test_a_topic() -> None:
    assert topic() == {}
    assert topic([{"partition": 0, "leader": -1, "isr": []}]) == {"topic": "fail"}
    assert topic([{"partition": 0, "leader": 1, "isr": [1]}], min_insync_replicas="2") == {"topic": "fail"}
    assert topic(cleanup_policy="compact") == {"topic": "fail"}
    assert topic(max_message_bytes="1000012") == {"topic": "warn"}
    assert topic(message_timestamp_type="CreateTime") == {"topic": "warn"}
    assert topic(retention_ms="3600000") == {"topic": "warn"}
    assert topic(retention_ms="-1") == {}
    assert states(judged_topic(settings(), GOOD_TOPIC, GOOD_PARTITIONS, 1, 3)) == {"topic": "warn"}


def database(*, is_there: bool = True, **facts: Any) -> dict[str, str]:
    return states(judged_database(settings(), {**GOOD_DATABASE, **facts}, is_there))


def test_a_database() -> None:
    assert database() == {}
    assert database(standby=True) == {"Postgres": "fail"}
    assert database(read_only=True) == {"Postgres": "fail"}
    assert database(encoding="SQL_ASCII") == {"Postgres": "fail"}
    assert database(may_create=False) == {}  # what it would make is there
    assert database(may_create=False, is_there=False) == {"rights": "fail"}
    assert database(may_write=False) == {"rights": "fail"}
    assert database(free=3) == {"connections": "warn"}
    assert database(max_wal=64 << 20, buffers=16 << 20) == {"max_wal_size": "warn", "shared_buffers": "warn"}
    assert database(max_wal=1 << 30) == {"max_wal_size": "warn"}  # Postgres' default
    assert database(wal_compression="pglz") == database(wal_compression="on") == {"wal_compression": "warn"}
    assert database(wal_compression="lz4") == {}


GB = 1 << 30
NO_CONTAINER = Cgroups((), (), ())


def container(folder: Path, megabytes: int) -> Cgroups:
    (folder / "memory.max").write_text(f"{megabytes << 20}\n")
    return Cgroups((folder,), (), ())


def test_memory_is_judged_as_at_the_start(tmp_path: Path) -> None:
    assert memory(settings(), 8 * GB, NO_CONTAINER).state == "ok"
    assert memory(settings(), GB // 4, NO_CONTAINER).state == "warn"
    little = memory(settings(backfill_max_memory_mb=150), 8 * GB, NO_CONTAINER)
    assert (little.state, little.code, little.mend) == ("fail", SettingsError.exit_code, "Set it to 198 or more")
    assert little.text.startswith("BACKFILL_MAX_MEMORY_MB: 150 MB are not enough for the worker")
    # A container that has less is no fault while that is enough: it is what the process will have.
    within = memory(settings(backfill_max_memory_mb=2048), 8 * GB, container(tmp_path, 1024))
    assert within.state == "ok"
    assert "this process may have 921 MB of it" in within.text
    assert memory(settings(), 8 * GB, container(tmp_path, 600)).state == "ok"
    assert memory(settings(backfill_days=7), 8 * GB, container(tmp_path, 600)).state == "ok"
    shared = memory(settings(backfill_days=7), 8 * GB, container(tmp_path, 256))  # with the ingest
    assert shared.state == "fail"
    assert shared.text.startswith("The container has 256 MB, of which 90 % are ours, half of it for the worker")
    assert shared.mend == "Give the container 440 MB or more (docker-compose: CONTAINER_MEMORY_MB)"
    assert memory(settings(), 8 * GB, container(tmp_path, 256)).state == "ok"
    assert memory(settings(), 8 * GB, container(tmp_path, 128)).state == "fail"


def test_clocks() -> None:
    assert clock("relay", 0.2).text == "as the relay's"
    assert clock("relay", -5.0).text == "5.0 s ahead of the relay's"
    assert clock("relay", 100.0).state == "warn"


async def test_whoever_is_broken_is_a_finding() -> None:
    async def refused() -> list[Finding]:
        raise DatabaseError("Postgres refuses us", "correct the password.")

    async def unforeseen() -> list[Finding]:
        raise ZeroDivisionError

    [finding] = await _within("Postgres", 4, refused)
    assert (finding.state, finding.text, finding.mend) == ("fail", "Postgres refuses us", "correct the password")
    assert finding.code == DatabaseError.exit_code
    [finding] = await _within("Kafka", 3, unforeseen)
    assert finding.state == "fail"


@pytest.mark.parametrize(
    ("states_and_codes", "code"),
    [([("ok", 0)], 0), ([("warn", 0), ("ok", 0)], 0), ([("warn", 0), ("fail", 4), ("fail", BrokerError.exit_code)], 4)],
)
def test_the_exit_code_is_that_of_the_first_that_failed(states_and_codes: list[tuple[Any, int]], code: int) -> None:
    assert exit_code([Finding("x", state, "", "", number) for state, number in states_and_codes]) == code
