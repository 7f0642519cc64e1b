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


async def test_the_same_twice_in_the_topic_is_skipped(deployment: Deployment) -> None:
    """The second time nothing is applied, and the counts add up."""
    relay, oracle = await deployment.generated(20_000)
    for arguments in ((), ("--restart",)):
        assert await deployment.ingest(relay.url, *arguments).ended() == 0
    worker = deployment.worker()
    await deployment.until_applied()
    counts = await deployment.check(oracle, oracle["last_seq"] or 0)
    assert counts["received"] == 40_000
    assert counts["skipped"] >= 20_000
    await worker.stop()
