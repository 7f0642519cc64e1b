"""The recording of a real PDS through the whole pipeline gives exactly what that PDS said was true afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streams.simulator.oracle import load_pds_state
from tests.acceptance.deployment import Deployment
from tests.support import lexicon_model as model
from tests.support.pgbouncer import needed, pgbouncer

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


async def views_show_the_state(dsn: str, schema: str) -> None:
    """Every record of a collection that has a lexicon, field by field, as the PDS said it and its lexicon types it."""
    look: asyncpg.Connection[Any] = await asyncpg.connect(dsn, server_settings={"search_path": schema})
    try:
        await look.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        seen = 0
        for nsid, (view, _) in model.VIEWS.items():
            expected = {}
            for did, records in EXPECTED["records"].items():
                for path, record in records.items():
                    collection, _, rkey = path.partition("/")
                    if collection == nsid:
                        # jsonb holds no NUL.
                        value = json.loads(json.dumps(record["value"]).replace("\\u0000", "\\ufffd"))
                        row = model.expected_row(nsid, did, rkey, record["cid"], value)
                        expected[row["uri"]] = row
            shown = [dict(row) for row in await look.fetch(f"SELECT * FROM {view}")]
            for row in shown:
                assert row.pop("rev")
                assert row.pop("indexed_at")
            assert {row["uri"]: row for row in shown} == expected
            seen += len(shown)
        assert seen > 1_000
        users = {row["did"]: row["handle"] for row in await look.fetch("SELECT did, handle FROM users")}
        visible = {did: account["handle"] for did, account in EXPECTED["accounts"].items() if account["status"] is None}
        assert users == visible
    finally:
        await look.close()


@needed
async def test_the_recording_through_a_pooler(settings_environment: dict[str, str], tmp_path: Path) -> None:
    """Through pgbouncer in session mode it is the same as without it."""
    with pgbouncer(settings_environment["DATABASE_URL"], tmp_path) as pooler:
        environment = {**settings_environment, "DATABASE_URL": pooler.url}
        async with Deployment.opened(environment, tmp_path) as deployment:
            relay = await deployment.relay("--frames", str(PDS / "frames.bin.gz"))
            assert (await run(deployment, relay.url))["dead"] == 0
            await views_show_the_state(settings_environment["DATABASE_URL"], deployment.schema)
            made = await deployment.look.fetch(
                "SELECT relname FROM pg_class "
                "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
            )
            assert [row[0] for row in made] == ["firehose_cursor"]


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
    await views_show_the_state(deployment.environment["DATABASE_URL"], deployment.schema)

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
