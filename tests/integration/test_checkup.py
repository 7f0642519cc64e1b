"""`doctor`'s looks at real servers, as our own commands make them."""

from __future__ import annotations

from streams.kafka.topic import ensure_topic
from streams.status.doctor import Finding, kafka, postgres
from tests.conftest import SettingsFactory, migrated


async def test_what_we_made_ourselves_is_well(settings: SettingsFactory) -> None:
    made = settings()
    await ensure_topic(made)
    await migrated(made.database_dsn(), made.sink_schema)
    assert not_well(await kafka(made)) == []
    assert not_well(await postgres(made)) == []


def not_well(findings: list[Finding]) -> list[str]:
    return [f"{found.what}: {found.text}: {found.mend}" for found in findings if found.state != "ok"]
