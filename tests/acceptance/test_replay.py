"""``replay``, ``cursor`` and ``rebuild --from`` as commands: refused while a worker runs, and done when none do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.commands import FAUST
from tests.acceptance.deployment import Deployment

EVENTS = 3000


class Asked(Deployment):
    """A deployment that commands are given to."""

    async def told(self, *arguments: str, code: int = 0) -> str:
        """What the command said, ended with that code."""
        command = self._start(arguments[0], [*FAUST, *arguments])
        assert await command.ended() == code, command.output
        assert "Traceback" not in command.output
        return command.output


@pytest.fixture
async def asked(settings_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Asked]:
    async with Asked.opened({**settings_environment, "KAFKA_PARTITIONS": "2"}, tmp_path) as made:
        yield made


async def test_what_is_set_back_is_read_again(asked: Asked) -> None:
    relay, oracle = await asked.generated(EVENTS)
    last = oracle["last_seq"] or 0
    worker = asked.worker(BACKFILL_PROFILE="unlimited")
    await asked.until_done(asked.ingest(relay.url))
    await asked.check(oracle, last)

    # While a worker runs: refused, or read again by itself, also where no message comes any more.
    refused, also, shown = await asyncio.gather(
        asked.told("replay", "--from", "earliest", code=7),
        asked.told("cursor", "set", "5", code=7),
        asked.told("cursor", "show"),
    )
    assert "1 worker of" in refused
    assert "--force" in also
    assert f"The cursor is the lowest watermark: {last}" in shown
    assert f"/0: at {(await asked.offsets())[0]} of {(await asked.ends())[0]}, 0 behind" in shown
    await asked.look.execute(f"DELETE FROM {asked.schema}.records")
    assert "are read again" in await asked.told("replay", "--from", "earliest", "--force")
    await asked.until_received(2 * EVENTS)
    await asked.until_applied()
    counts = await asked.check(oracle, last)
    assert counts["received"] == 2 * EVENTS
    await worker.stop()
    assert "Traceback" not in worker.output

    # While none runs.
    ends = await asked.ends()
    dry, ahead, nowhere, cursor, too_far = await asyncio.gather(
        asked.told("replay", "--from", "2020-01-01", "--partition", "1", "--dry-run"),
        asked.told("replay", "--from", f"0:{ends[0] + 1}", code=2),
        asked.told("replay", "--from", "earliest", "--partition", "7", code=2),
        asked.told("cursor", "set", "5"),
        asked.told("cursor", "set", str(last + 1), code=6),
    )
    assert f"/1: from {ends[1]} back to 0" in dry
    assert "beyond the end" in ahead
    assert "the topic has 0 to 1" in nowhere
    assert f"5 (it was {last})" in cursor
    assert f"Only what is up to {last} is in Postgres" in too_far
    assert await asked.cursor() == 5
    assert await asked.offsets() == ends
    await asked.told("replay", "--from", f"1:{ends[1] - 10}")
    assert await asked.offsets() == {**ends, 1: ends[1] - 10}
    worker = asked.worker(BACKFILL_PROFILE="unlimited")
    await asked.until_applied()
    await asked.check(oracle, last)
    await worker.stop()


async def test_a_rebuild_of_the_last_part(asked: Asked) -> None:
    relay, oracle = await asked.generated(EVENTS)
    worker = asked.worker(BACKFILL_PROFILE="unlimited")
    await asked.until_done(asked.ingest(relay.url))
    ends = await asked.ends()
    start = f"0:{ends[0] // 2}"
    said = await asked.told("rebuild", "--schema", "lately", "--from", start)
    received = int(await asked.look.fetchval("SELECT sum(received) FROM lately.sink_offsets"))
    assert EVENTS / 2 < received < EVENTS
    assert f"{received:,} received" in said
    assert "--seed-from-live" in await asked.told("rebuild", "--schema", "lately", "--swap", code=6)
    assert "beyond the end" in await asked.told("rebuild", "--schema", "x", "--from", f"1:{ends[1] + 5}", code=2)
    said = await asked.told("rebuild", "--schema", "seeded", "--from", start, "--seed-from-live", "--swap")
    assert "swapped in" in said
    assert not await asked.differences(oracle)
    await worker.stop()
