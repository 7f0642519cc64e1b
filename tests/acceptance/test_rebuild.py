"""``rebuild``: a schema made anew beside the live one is exactly what the live one is, and takes its place under traffic."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.crashpoint import REBUILD_POINTS
from streams.local.compare import compare
from tests.acceptance.commands import FAUST, Command, Finished, finish
from tests.acceptance.deployment import Deployment

EVENTS = 20_000


class Live(Deployment):
    """A deployment that can be rebuilt."""

    def start_rebuild(self, *arguments: str, **settings: str) -> Command:
        return self._start("rebuild", [*FAUST, "rebuild", *arguments], **settings)

    async def rebuild(self, *arguments: str, **settings: str) -> Finished:
        return await finish([*FAUST, "rebuild", *arguments], {**self.environment, **settings}, self.folder, 120)

    async def rebuilt(self, schema: str, *arguments: str, **settings: str) -> str:
        """Rebuild to a good end; returns what was said."""
        done = await self.rebuild("--schema", schema, *arguments, **settings)
        assert done.code == 0, done.output + done.errors
        return done.output

    async def refused(self, schema: str, *arguments: str, code: int = 6, **settings: str) -> str:
        done = await self.rebuild("--schema", schema, *arguments, **settings)
        assert done.code == code, done.output + done.errors
        assert "Traceback" not in done.errors
        return done.errors


@pytest.fixture
async def live(settings_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Live]:
    async with Live.opened({**settings_environment, "KAFKA_PARTITIONS": "4"}, tmp_path) as made:
        yield made


async def fill(live: Live, events: int = 4_000) -> tuple[str, dict]:
    relay, oracle = await live.generated(events)
    worker = live.worker()
    await live.until_done(live.ingest(relay.url))
    await live.check(oracle, oracle["last_seq"] or 0)
    await worker.stop()
    return relay.url, oracle


async def test_basic(live: Live) -> None:
    _, oracle = await fill(live)
    out = await live.rebuilt("made_anew", "--compare")
    print(out)
    assert not await compare(live.environment["DATABASE_URL"], "made_anew", oracle)
    out = await live.rebuilt("made_anew", "--swap")
    print(out)
    assert not await live.differences(oracle)
