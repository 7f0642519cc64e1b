"""The short form of ``python -m tests.arrivals --through``: random worlds by the whole way into Postgres."""

from __future__ import annotations

from tests.arrivals.through import all_through, kinds
from tests.conftest import SettingsFactory

WORLDS = range(20)


async def test_what_a_relay_sent_once_is_in_postgres(settings: SettingsFactory) -> None:
    made = settings(kafka_partitions=1, ingest_idle_seconds=1.5)
    assert await all_through(made, WORLDS, seed=1) == {}
    assert kinds(WORLDS, seed=1)["began anew"] > 0
