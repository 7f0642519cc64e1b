"""``rebuild`` as a command, beside a worker that writes: killed at each crash point, and swapped in under traffic."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from streams.runtime.drills import RebuildPoint
from tests.acceptance.commands import FAUST, Command
from tests.acceptance.deployment import Deployment

EVENTS = 15_000
#: So slow that the worker has by far not caught up when the first swap is made.
PACE = {"BACKFILL_BATCH_SIZE": "100", "BACKFILL_BATCH_DELAY_MS": "200", "BACKFILL_USE_IDLE": "false"}
CRAWL = {"BACKFILL_PROFILE": "background", "BACKFILL_USE_IDLE": "false"}


class Live(Deployment):
    """A deployment that is rebuilt."""

    def rebuild(self, schema: str, *arguments: str, **settings: str) -> Command:
        return self._start("rebuild", [*FAUST, "rebuild", "--schema", schema, *arguments], **settings)

    async def done(self, command: Command, code: int = 0) -> str:
        """What it said, ended with this code."""
        assert await command.ended() == code, self.tails()
        assert "Traceback" not in command.output
        return command.output

    async def dies(self, point: str, schema: str, *arguments: str) -> None:
        await self.done(self.rebuild(schema, *arguments, CRASH_AT=point), -signal.SIGKILL)

    async def count(self, schema: str, what: str = "sum(received)", table: str = "sink_offsets") -> int:
        # A connection of its own: two tasks count side by side.
        look = await asyncpg.connect(self.environment["DATABASE_URL"])
        try:
            return int(await look.fetchval(f"SELECT {what} FROM {schema}.{table}"))
        finally:
            await look.close()


@pytest.fixture
async def live(settings_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Live]:
    async with Live.opened({**settings_environment, "KAFKA_PARTITIONS": "4"}, tmp_path) as made:
        yield made


async def one_at_a_time_and_stopped(live: Live) -> None:
    """A paced one is asked to stop; while it runs, there is no second; it goes on where it was."""
    first = live.rebuild("slow", **CRAWL)
    await first.line("The network makes")
    second = live.rebuild("slow")
    assert "Another rebuild fills the schema slow" in await live.done(second, 7)
    await first.stop()
    assert "stopped" in first.output
    received = await live.count("slow")
    assert 0 < received < EVENTS
    # What was applied is not applied again: counts are in the schema.
    said = await live.done(live.rebuild("slow"))
    assert "going on from its own positions" in said
    assert await live.count("slow") >= received


async def swaps(live: Live) -> None:
    """Twice, with death at every crash point on the way."""
    for point in ("rebuild.after_schema", "rebuild.after_fill", "rebuild.before_swap_commit", "rebuild.after_swap"):
        await live.dies(point, "fresh", "--swap", "--keep-as", "before")
    assert await live.count("before") < EVENTS, "the worker had caught up before the swap"
    assert "The swap was made already" in await live.done(live.rebuild("fresh", "--swap", "--keep-as", "before"))

    await live.dies("rebuild.after_seed", "seeded", "--seed-from-live", "--swap")
    said = await live.done(live.rebuild("seeded", "--seed-from-live", "--swap", "--keep-as", "second"))
    assert "rows copied" not in said
    assert "swapped in" in said


async def test_swapped_in_under_traffic_with_death_at_every_crash_point(live: Live) -> None:
    assert len(RebuildPoint) == 5
    relay, oracle = await live.generated(EVENTS)
    worker = live.worker(**PACE)
    ingest = live.ingest(relay.url)
    assert await ingest.ended() == 0, ingest.tail()
    await live.until_received(1)
    await asyncio.gather(swaps(live), one_at_a_time_and_stopped(live))
    await live.until_applied()
    # The one worker has gone on by itself, and has neither lost nor doubled anything.
    counts = await live.check(oracle, oracle["last_seq"] or 0)
    assert counts["received"] == EVENTS
    assert await live.table("gaps") == await live.table("dead_letters") == []
    await worker.stop()
    assert "Traceback" not in worker.output
