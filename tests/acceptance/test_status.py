"""What the command ``status`` says is what Kafka and Postgres hold; it says when workers are down; a pause outlasts."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

from tests.acceptance.commands import FAUST, Finished, finish
from tests.acceptance.deployment import Deployment
from tests.support.patience import slowness

#: More than a worker applies while the test looks.
EVENTS = 60_000
#: Faster than the worker, and not all before the second watermark: what is covered grows in steps.
STEADY = {"BACKFILL_PROFILE": "", "BACKFILL_USE_IDLE": "false", "INGEST_BUSY_MB_PER_S": "4"}
SLOW = {"BACKFILL_BATCH_SIZE": "200", "BACKFILL_BATCH_DELAY_MS": "200", "BACKFILL_USE_IDLE": "false"}


async def told(deployment: Deployment, *arguments: str, **settings: str) -> Finished:
    return await finish([*FAUST, *arguments], {**deployment.environment, **settings}, deployment.folder)


async def status(deployment: Deployment) -> dict[str, Any]:
    """The Status; from another machine, where nothing of ours is but Kafka and Postgres."""
    elsewhere = str(deployment.folder / "elsewhere")
    done = await told(deployment, "status", "--json", LOCAL_DIR=elsewhere, RELAY_URL="ws://127.0.0.1:9")
    assert done.code == 0, done.errors
    found: dict[str, Any] = json.loads(done.output)
    return found


async def held(deployment: Deployment) -> dict[str, Any]:
    """The same figures by other ways."""
    rows = await deployment.look.fetch(
        f"SELECT partition, next_offset, watermark_seq FROM {deployment.schema}.sink_offsets ORDER BY partition"
    )
    return {
        **await deployment.counts(),
        "offsets": {row["partition"]: row["next_offset"] for row in rows},
        "watermarks": {row["partition"]: row["watermark_seq"] for row in rows},
        "ends": await deployment.ends(),
        "dead_letters": len(await deployment.table("dead_letters")),
        "gaps": len(await deployment.table("gaps")),
        "cursor": await deployment.cursor(),
    }


def said(status: dict[str, Any]) -> dict[str, Any]:
    """The figures of a Status in the same shape."""
    partitions = status["partitions"]
    return {
        **{name: status[name] for name in ("received", "applied", "skipped", "dead", "dead_letters", "gaps")},
        "offsets": {p["partition"]: p["next_offset"] for p in partitions},
        "watermarks": {p["partition"]: p["watermark_seq"] for p in partitions},
        "ends": {p["partition"]: p["end"] for p in partitions},
        "cursor": None if status["cursor"] is None else int(status["cursor"]),
    }


def assert_between(before: dict[str, Any], at: dict[str, Any], after: dict[str, Any]) -> None:
    """Every figure only grows: what was said lies between a look before and a look after."""
    for name, value in at.items():
        if isinstance(value, dict):
            for key, number in value.items():
                assert (before[name].get(key) or 0) <= (number or 0) <= (after[name].get(key) or 0), (name, key)
        else:
            assert (before[name] or 0) <= (value or 0) <= (after[name] or 0), (name, before[name], value, after[name])


async def test_status_agrees_with_the_servers_and_says_who_is_down(
    settings_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    async with Deployment.opened(settings_environment, tmp_path) as deployment:
        relay, _ = await deployment.generated(EVENTS, "--then-live", "200")
        worker = deployment.worker(**SLOW)
        deployment.ingest(relay.url, "--follow", **STEADY)
        await deployment.until_received(1000)
        before, at = await held(deployment), await status(deployment)
        after = await held(deployment)
        assert_between(before, said(at), after)
        assert at["lag"] == sum(p["end"] - p["next_offset"] for p in at["partitions"]) > 0
        assert {(p["kind"], p["alive"]) for p in at["processes"]} == {("worker", True), ("ingest", True)}
        assert {p["worker"].rpartition(":")[2] for p in at["partitions"]} == {str(worker.pid)}
        assert at["rates"]["postgres"] > 0
        for pause in deployment.patiently("what is covered, and what waits in Kafka"):
            at = await status(deployment)
            if {"covered", "pending"} <= {stretch["kind"] for stretch in at["coverage"]}:
                break
            await asyncio.sleep(pause)
        ends = [(stretch["begin"], stretch["end"]) for stretch in at["coverage"]]
        assert ends[0][0] == at["covered_from"]
        assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(ends)), "no hole and no overlap"
        assert not [text for text in at["troubles"] if "runs" in text or "reported" in text], at["troubles"]

        # Paused, it stands still, also after a restart; resumed, it goes on.
        done = await told(deployment, "pause", "--reason", "\x1b[31mred\x1b[0m, [b]said[/b] the test")
        assert done.code == 0, done.errors
        assert "Paused: the worker that run" in done.output
        await worker.line("is paused by")
        await asyncio.sleep(1.0)
        stood = await deployment.received()
        worker.kill()
        killed = time.monotonic()

        # kill -9: the page says so, once its session and its reports are over.
        for pause in deployment.patiently("`status` says that no worker runs"):
            asked = time.monotonic()
            at = await status(deployment)
            if any(text.startswith("No worker runs (the last one was seen") for text in at["troubles"]):
                break
            await asyncio.sleep(pause)
        assert asked - killed < 17 * await asyncio.to_thread(slowness)
        checked = await told(deployment, "status", "--check")
        assert checked.code == 9
        assert "No worker runs" in checked.output
        assert "paused since" in checked.output
        assert "\x1b[31m" not in checked.output

        worker = deployment.worker(**SLOW)
        await worker.line("is paused by")
        for pause in deployment.patiently("the new worker has its partitions"):
            at = await status(deployment)
            if all(p["worker"] for p in at["partitions"]):
                break
            await asyncio.sleep(pause)
        assert [p["worker"]["mode"] for p in at["processes"] if p["alive"] and p["kind"] == "worker"] == ["paused"]
        await asyncio.sleep(2.0)
        assert await deployment.received() == stood
        page = await told(deployment, "status")
        assert "paused" in page.output
        assert "\x1b" not in page.output
        assert "[b]said[/b]" in page.output

        done = await told(deployment, "resume")
        assert "Resumed" in done.output
        await deployment.until_received(stood + 500)
        assert (await status(deployment))["paused"] is None


async def test_servers_that_are_away_are_a_sentence(settings_environment: dict[str, str], tmp_path: Path) -> None:
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    none = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}

    async def run(environment: dict[str, str], *arguments: str) -> Finished:
        return await finish([*FAUST, *arguments], {**settings_environment, **environment}, tmp_path)

    kafka, database, both = await asyncio.gather(
        run(nowhere, "status"), run(none, "status"), run({**nowhere, **none, "RELAY_URL": "ws://127.0.0.1:9"}, "doctor")
    )
    assert (kafka.code, kafka.errors.count("\n"), "Kafka cannot be reached" in kafka.errors) == (3, 1, True)
    assert (database.code, database.errors.count("\n"), "cannot be reached" in database.errors) == (4, 1, True)
    assert both.code == 3
    assert [line[:20].split(":")[0] for line in both.output.splitlines() if line.startswith("fail")] == [
        "fail Kafka", "fail Postgres", "fail relay",
    ]  # fmt: skip
