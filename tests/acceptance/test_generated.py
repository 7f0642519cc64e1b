"""Generated events of all kinds, as many as the promise says, through the whole pipeline once."""

from __future__ import annotations

from tests.acceptance.conftest import Traffic
from tests.acceptance.deployment import Deployment


async def test_everything_that_the_relay_sent_is_there_once(deployment: Deployment, traffic: Traffic) -> None:
    worker = deployment.worker()
    await deployment.until_done(deployment.ingest(traffic.relay))
    counts = await deployment.check(traffic.oracle, traffic.last_seq)
    assert counts["received"] == traffic.events
    assert counts["dead"] == 0
    assert await deployment.table("dead_letters") == await deployment.table("gaps") == []
    [run] = await deployment.table("runs")
    assert (run["mode"], run["days"]) == ("start", -1)
    await worker.stop()
    assert f"Progress: {traffic.events} received" in worker.output
    assert f"Cursor: {traffic.last_seq} (" in worker.output


async def test_the_same_again_is_skipped(deployment: Deployment, traffic: Traffic) -> None:
    """The topic holds everything twice: the second time nothing is applied, and the counts add up."""
    for arguments in ((), ("--restart",)):
        assert await deployment.ingest(traffic.relay, *arguments).ended(120) == 0
    worker = deployment.worker()
    await deployment.until_applied(120)
    counts = await deployment.check(traffic.oracle, traffic.last_seq)
    assert counts["received"] == 2 * traffic.events
    assert counts["skipped"] >= traffic.events
    await worker.stop()
