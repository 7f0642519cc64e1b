"""The recording of a real PDS through the whole pipeline gives exactly what that PDS said was true afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.local.oracle import load_pds_state
from tests.acceptance.deployment import Deployment

PDS = Path(__file__).parents[1] / "fixtures" / "pds"
EXPECTED = load_pds_state(PDS / "state.json.gz")
LAST_SEQ = 781


@pytest.fixture
def settings_environment(settings_environment: dict[str, str]) -> dict[str, str]:
    """The default group, whose row in firehose_cursor other services know."""
    return {**settings_environment, "SINK_GROUP": "backfill"}


async def run(deployment: Deployment, relay: str, *arguments: str) -> dict[str, int]:
    """The whole run, from the ingest to the end of the worker; returns the counts."""
    ingest, worker = deployment.ingest(relay, *arguments), deployment.worker()
    await deployment.until_done(ingest)
    counts = await deployment.check(EXPECTED, LAST_SEQ)
    await worker.stop()
    return counts


async def test_the_recording_gives_exactly_the_state(deployment: Deployment) -> None:
    relay = await deployment.relay("--frames", str(PDS / "frames.bin.gz"))
    once = await run(deployment, relay.url)
    assert once["received"] > LAST_SEQ
    assert once["dead"] == 0
    deleted = [did for did, account in EXPECTED["accounts"].items() if account["deleted"]]
    assert len(deleted) == 3
    left = f"SELECT count(*) FROM {deployment.schema}.records WHERE did = ANY ($1) AND record IS NOT NULL"
    assert await deployment.look.fetchval(left, deleted) == 0
    row = await deployment.look.fetchrow("SELECT * FROM firehose_cursor WHERE service = 'backfill'")
    assert row is not None
    assert row["cursor"] == str(LAST_SEQ)

    # Repeated: the ingest resumes, and there is nothing that was not there.
    assert await run(deployment, relay.url) == once
    # From the beginning again: all of it a second time, and no row changes.
    twice = await run(deployment, relay.url, "--restart")
    assert twice["received"] == 2 * once["received"]
    assert [row["mode"] for row in await deployment.table("runs ORDER BY run")] == ["start", "resume", "restart"]

    # A second group reads the retained topic into a schema of its own.
    other = Deployment(
        {**deployment.environment, "SINK_GROUP": "second", "SINK_SCHEMA": f"{deployment.schema}_2"},
        deployment.folder / "second", deployment.look,
    )  # fmt: skip
    other.folder.mkdir()
    try:
        worker = other.worker()
        await other.until_applied()
        assert (await other.check(EXPECTED, LAST_SEQ))["received"] == twice["received"]
        await worker.stop()
    finally:
        other.close()
