"""The rows by collection in the status are those that the workers sent to Postgres."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.acceptance.commands import FAUST, finish
from tests.acceptance.deployment import Deployment

#: One event a transaction, so that nothing is merged, and the topic's own operations are the exact answer.
ONE_BY_ONE = {"BACKFILL_BATCH_SIZE": "1", "BACKFILL_BATCH_DELAY_MS": "0", "BACKFILL_USE_IDLE": "false"}


async def collections(deployment: Deployment) -> dict[str, int]:
    done = await finish([*FAUST, "status", "--json"], deployment.environment, deployment.folder)
    assert done.code == 0, done.errors
    return {row["name"]: row["count"] for row in json.loads(done.output)["collections"]}


async def test_rows_by_collection_are_what_was_sent(settings_environment: dict[str, str], tmp_path: Path) -> None:
    """Counted from the topic; nothing is killed here, so nothing may lack once it was written."""
    async with Deployment.opened(settings_environment, tmp_path) as deployment:
        relay, _ = await deployment.generated(1500)
        worker = deployment.worker(**ONE_BY_ONE)
        await deployment.until_done(deployment.ingest(relay.url))
        dead = {(row["partition"], row["offset"]) for row in await deployment.table("dead_letters")}
        operations = [m for m in await deployment.messages() if m.get("kind") == "commit"]
        sent = Counter(m["commit"]["collection"] for m in operations if (m["partition"], m["offset"]) not in dead)
        told: dict[str, int] = {}
        for _ in deployment.patiently("the tables are written once a second"):
            told = await collections(deployment)
            if told == sent:
                break
            assert told.keys() <= sent.keys()
        assert told == sent
        held = await deployment.look.fetch(f"SELECT collection, count(*) FROM {deployment.schema}.records GROUP BY 1")
        assert all(row["count"] <= told[row["collection"]] for row in held)
        # A single look has it, each time, also when no worker runs.
        await worker.stop()
        assert [await collections(deployment) for _ in range(4)] == [told] * 4
