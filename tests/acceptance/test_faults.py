"""Whatever a relay does wrong, the tables are right, and what could not be taken is told."""

from __future__ import annotations

from streams.simulator.oracle import State
from tests.acceptance.deployment import Deployment, Relay

EVENTS = 6_000
FIRST_SEQ = 5_000_000_001
#: A frame that goes out live tells an ingest where the head is: its first two connections look, the third reads.
LIVE = ("--then-live", "500", "--live-events", "200")


def counted(oracle: State) -> int:
    return int(oracle["counts"]["events"])


def last(oracle: State) -> int:
    assert oracle["last_seq"] is not None
    return oracle["last_seq"]


def faults(*specifications: str) -> list[str]:
    return [part for specification in specifications for part in ("--fault", specification)]


async def run(deployment: Deployment, relay: Relay) -> str:
    """Ingest to the head, and apply it; returns what the ingest said."""
    ingest, worker = deployment.ingest(relay.url), deployment.worker()
    await deployment.until_done(ingest)
    await worker.stop()
    return ingest.output


async def follow(deployment: Deployment, relay: Relay, last_seq: int) -> str:
    """Ingest and apply what comes, up to the last frame; returns what the ingest said."""
    ingest, worker = deployment.ingest(relay.url, "--follow"), deployment.worker()
    await deployment.until_cursor(last_seq)
    await ingest.stop()
    await deployment.until_applied()
    await worker.stop()
    return ingest.output


async def test_connections_that_break_and_frames_that_mean_nothing(deployment: Deployment) -> None:
    kinds = [
        "drop", "drop:hard=1", "close", "error", "error:name=ConsumerTooSlow", "duplicate:count=50", "rewind:count=100",
        "garbage", "empty", "text", "truncated", "no_header", "unknown_t", "unknown_op", "stall", "fragments:count=50",
    ]  # fmt: skip
    placed = [
        f"{kind}{',' if ':' in kind else ':'}seq={FIRST_SEQ + 300 * (number + 1)}" for number, kind in enumerate(kinds)
    ]
    relay, oracle = await deployment.generated(EVENTS, *faults(*placed))
    assert oracle["expected_skipped"] == 7
    output = await run(deployment, relay)
    counts = await deployment.check(oracle, last(oracle))
    assert counts["dead"] == oracle["expected_skipped"] == len(await deployment.table("dead_letters"))
    assert counts["received"] == counted(oracle) + counts["dead"]
    assert await deployment.table("gaps") == []
    assert "connecting again from the last event" in output
    assert f'"dead_letters": {counts["dead"]}' in output


async def test_operations_that_are_bad_among_good_ones(deployment: Deployment) -> None:
    kinds = (
        "missing_block", "wrong_cid", "bad_path", "bad_record", "not_utf8", "too_deep", "too_big",
        "garbage", "text", "truncated", "unknown_t", "unknown_op",
    )  # fmt: skip
    relay, oracle = await deployment.generated(EVENTS, *faults(*(f"{kind}:scatter=5" for kind in kinds)))
    bad = oracle["expected_dead"] + oracle["expected_skipped"]
    assert bad == 5 * len(kinds)
    await run(deployment, relay)
    counts = await deployment.check(oracle, last(oracle))
    assert counts["received"] == counted(oracle) + bad
    # All of them are in the topic. In the table the same bytes without a seq are one, and those of accounts that were
    # deleted went with them.
    told = [message for message in await deployment.messages() if message["kind"] == "dead_letter"]
    assert len(told) == bad
    purged = {row["did"] for row in await deployment.table("actors") if row["purged_at"] is not None}
    letters = {(letter["seq"], letter["reason"]) for letter in await deployment.table("dead_letters")}
    assert letters >= {(letter["seq"], letter["reason"]) for letter in told if letter["did"] not in purged}
    assert counts["dead"] >= len(letters) > len(kinds)


async def test_what_a_relay_leaves_out_is_a_gap(deployment: Deployment) -> None:
    drop = FIRST_SEQ + 2_000
    relay, oracle = await deployment.generated(
        EVENTS, *LIVE, *faults(f"drop:seq={drop}", "clamp:connection=4,count=600")
    )
    await follow(deployment, relay, last(oracle))
    [gap] = await deployment.table("gaps")
    assert "did not send these after a reconnect" in gap["reason"]
    assert drop <= gap["from_seq"] + 5 <= drop + 10
    assert gap["to_seq"] - gap["from_seq"] < 1500
    # Everything else is there: no event of the topic is in the gap, and those beside it are.
    seqs = {m["seq"] for m in await deployment.messages() if m["kind"] in ("commit", "identity", "account", "sync")}
    assert not [seq for seq in seqs if gap["from_seq"] <= seq <= gap["to_seq"]]
    assert max(seqs) == last(oracle)
    assert counted(oracle) - 1500 <= (await deployment.counts())["received"] < counted(oracle)


async def test_a_position_beyond_the_relays_head_begins_a_new_run(deployment: Deployment) -> None:
    arguments = faults(f"drop:seq={FIRST_SEQ + 2_000}", "future_cursor:connection=4")
    relay, oracle = await deployment.generated(EVENTS, *LIVE, *arguments)
    output = await follow(deployment, relay, last(oracle))
    await deployment.check(oracle, last(oracle))
    assert "the relay's sequence was reset" in output
    [gap] = await deployment.table("gaps")
    assert "FutureCursor" in gap["reason"]
    assert [row["mode"] for row in await deployment.table("runs ORDER BY run")] == ["start", "reset"]


async def test_a_sequence_that_begins_anew(deployment: Deployment) -> None:
    # The live frames begin in the old sequence, so that the look at the head sees that one.
    live = ("--then-live", "300", "--live-events", "1800")
    relay, oracle = await deployment.generated(EVENTS, "--reset-at", str(EVENTS - 1500), *live)
    await follow(deployment, relay, last(oracle))
    await deployment.check(oracle, last(oracle))
    [gap] = await deployment.table("gaps")
    assert "the relay's sequence was reset" in gap["reason"]
    assert [row["mode"] for row in await deployment.table("runs ORDER BY run")] == ["start", "reset"]
