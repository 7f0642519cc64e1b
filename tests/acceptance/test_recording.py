"""The recording of a real PDS, through the whole pipeline, gives what that PDS said is true; also the second time."""

from __future__ import annotations

from pathlib import Path

from streams.local.oracle import load_pds_state
from tests.acceptance.deployment import Deployment

PDS = Path(__file__).parent.parent / "fixtures" / "pds"
STATE = load_pds_state(PDS / "state.json.gz")
LAST_SEQ = 781
EVENTS = 1648


async def records_of_deleted_accounts(deployment: Deployment) -> list[str]:
    deleted = {did for did, account in STATE["accounts"].items() if account["deleted"]}
    assert len(deleted) == 3
    return [row["did"] for row in await deployment.table("records") if row["did"] in deleted]


async def test_the_recording(deployment: Deployment) -> None:
    relay = await deployment.relay("--frames", str(PDS / "frames.bin.gz"))
    worker = deployment.worker()

    # Once.
    await deployment.until_done(deployment.ingest(relay.url))
    counts = await deployment.check(STATE, LAST_SEQ)
    assert (counts["received"], counts["dead"]) == (EVENTS, 0)
    assert await records_of_deleted_accounts(deployment) == []

    # The whole run again: the ingest resumes, and there is nothing new.
    await worker.stop()
    worker = deployment.worker()
    await deployment.until_done(deployment.ingest(relay.url, days=7))
    assert (await deployment.check(STATE, LAST_SEQ))["received"] == EVENTS

    # Everything a second time.
    await deployment.until_done(deployment.ingest(relay.url, "--restart"))
    counts = await deployment.check(STATE, LAST_SEQ)
    assert (counts["received"], counts["dead"]) == (2 * EVENTS, 0)
    assert await records_of_deleted_accounts(deployment) == []
    await worker.stop()

    # A second group reads the retained topic into another schema.
    second = Deployment(
        {
            **deployment.environment,
            "SINK_GROUP": f"{deployment.group}-second",
            "SINK_SCHEMA": f"{deployment.schema}_second",
        },
        deployment.folder / "second",
        deployment.look,
    )
    second.folder.mkdir()
    try:
        worker = second.worker()
        await second.until_applied()
        assert (await second.check(STATE, LAST_SEQ))["received"] == 2 * EVENTS
        assert await records_of_deleted_accounts(second) == []
        await worker.stop()
    finally:
        second.close()
