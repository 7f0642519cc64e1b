"""A broker that goes away while a worker starts or is rebalanced is waited for, wherever the start is just then."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streams.local import ports
from streams.local.kafka import Kafka
from tests.acceptance.commands import Command
from tests.acceptance.proxy import Proxy
from tests.integration.test_worker import Feed
from tests.support.halting_worker import PLACES
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
#: Tries to reach a broker that is away, of all that the worker has: each of them has tried by then.
TRIES = 5


class Line(Proxy):
    """The way to the broker. While it is ``away`` each connection is reset, as where the broker was killed."""

    away = False
    tries = 0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            self.tries += 1
            writer.transport.abort()
        else:
            super()._accept(reader, writer)

    def go_away(self) -> None:
        self.away, self.tries = True, 0
        self.cut()


@dataclass
class Site:
    """A broker behind a line, and a worker that halts at each place."""

    line: Line
    worker: Command
    environment: dict[str, str]
    folder: Path

    async def until(self, what: Callable[[], bool], place: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                assert self.worker.running, f"at {place}: {self.worker.tail()}"
                await asyncio.sleep(0.02)

    async def reach(self, place: str) -> None:
        await self.until((self.folder / f"{place}.reached").exists, place)

    def go(self, place: str) -> None:
        (self.folder / f"{place}.go").touch()

    async def suffer(self, place: str) -> None:
        """The broker goes away while the worker is there, and comes back after the worker has looked for it."""
        self.line.go_away()
        self.go(place)
        await self.until(lambda: self.line.tries >= TRIES, place)
        self.line.away = False


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, int]]:
    """A broker of its own, which names the port of a line to it; and that port."""
    folder = tmp_path_factory.mktemp("kafka")
    kafka = Kafka(folder / "kafka", folder / "logs")
    [port] = ports.choose(1, [])
    kafka.advertised = [port]
    kafka.start()
    yield kafka, port
    kafka.kill()


@asynccontextmanager
async def opened(broker: tuple[Kafka, int], environment: dict[str, str], folder: Path) -> AsyncIterator[Site]:
    kafka, port = broker
    async with Line("127.0.0.1", int(kafka.bootstrap_servers.rpartition(":")[2]), port=port) as line:
        environment = environment | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}", "KAFKA_PARTITIONS": "4"}
        more = {"PYTHONPATH": str(ROOT), "BACKFILL_PROFILE": "unlimited"}
        command = [sys.executable, "-m", "tests.support.halting_worker", str(folder)]
        worker = Command("worker", command, environment | more, folder)
        try:
            yield Site(line, worker, environment, folder)
        finally:
            worker.kill()


async def _rows(environment: dict[str, str]) -> dict[tuple[str, str, str], Any]:
    look = await asyncpg.connect(environment["DATABASE_URL"])
    try:
        found = await look.fetch(
            f"SELECT did, collection, rkey, rev, record->'n' AS n FROM {environment['SINK_SCHEMA']}.records"
        )
    finally:
        await look.close()
    return {(r["did"], r["collection"], r["rkey"]): (r["rev"], r["n"] and int(r["n"])) for r in found}


async def test_it_is_waited_for_at_every_place_of_a_start(
    broker: tuple[Kafka, int], settings_environment: dict[str, str], tmp_path: Path
) -> None:
    async with opened(broker, settings_environment, tmp_path) as site:
        feed = Feed(site.environment["KAFKA_TOPIC"], site.environment["KAFKA_BOOTSTRAP_SERVERS"])
        await site.reach("checked")  # the topic is there
        await feed.produce(200)
        for place in PLACES:
            await site.reach(place)
            await site.suffer(place)
        async with asyncio.timeout(PATIENCE):
            while await _rows(site.environment) != feed.want:
                assert site.worker.running, site.worker.tail()
                await asyncio.sleep(0.05)
        await site.worker.stop()
        assert "Traceback" not in site.worker.output


@pytest.mark.parametrize("place", ["producer", "consumer", "highwaters"])
async def test_sigterm_ends_the_wait(
    broker: tuple[Kafka, int], settings_environment: dict[str, str], tmp_path: Path, place: str
) -> None:
    async with opened(broker, settings_environment, tmp_path) as site:
        for before in list(PLACES)[: list(PLACES).index(place)]:
            site.go(before)
        await site.reach(place)
        site.line.go_away()
        site.go(place)
        await site.until(lambda: site.line.tries >= TRIES, place)
        site.worker.process.send_signal(signal.SIGTERM)
        assert await site.worker.ended() == 0, site.worker.tail()
        assert "Traceback" not in site.worker.output, site.worker.tail()
