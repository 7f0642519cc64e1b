"""A broker that goes away while a worker starts or is rebalanced is waited for, wherever the start is just then."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streams.local.stack import Stack
from tests.acceptance.commands import Command
from tests.halting_worker import PLACES
from tests.integration.test_worker import Feed


async def test_at_every_place(embedded: Stack, settings_environment: dict[str, str], tmp_path: Path) -> None:
    worker = Command(
        "worker",
        [sys.executable, "-m", "tests.halting_worker", str(tmp_path)],
        settings_environment | {"PYTHONPATH": str(Path(__file__).parents[2]), "BACKFILL_PROFILE": "unlimited"},
        tmp_path,
    )
    try:
        for place in PLACES:
            while not (tmp_path / f"{place}.reached").exists():
                assert worker.running, f"after {place}: {worker.tail()}"
                await asyncio.sleep(0.05)
            print("reached", place)
            await asyncio.to_thread(embedded.kafka.kill)
            (tmp_path / f"{place}.go").touch()
            await asyncio.sleep(3)
            assert worker.running, f"at {place}: {worker.tail()}"
            await asyncio.to_thread(embedded.kafka.start)
            if place == "recovered":
                feed = Feed(settings_environment["KAFKA_TOPIC"], settings_environment["KAFKA_BOOTSTRAP_SERVERS"])
                await feed.produce(100)
        await worker.stop()
    finally:
        print(worker.output)
        worker.kill()
