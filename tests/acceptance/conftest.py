"""A deployment for each test, and one relay for the session whose traffic is as much as the kills need."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streams.local.oracle import State, load_oracle
from tests.acceptance.deployment import Deployment, Relay

#: Events of the session's relay. ACCEPTANCE_EVENTS takes another number, for a slow machine.
EVENTS = int(os.environ.get("ACCEPTANCE_EVENTS", "200000"))


@dataclass(frozen=True)
class Traffic:
    """Generated traffic that a relay serves for the whole session, and what must come of it."""

    relay: str
    oracle: State
    events: int
    last_seq: int


@pytest.fixture(scope="session")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    folder: Path = tmp_path_factory.mktemp("traffic")
    oracle = folder / "oracle.json"
    relay = Relay("relay", ["--generate", str(EVENTS), "--seed", "1", "--oracle", str(oracle)], folder)
    try:
        with asyncio.Runner() as runner:
            runner.run(relay.ready())
        yield Traffic(relay.url, load_oracle(oracle), relay.facts["events"], relay.facts["last_seq"])
    finally:
        relay.kill()


@pytest.fixture
async def deployment(settings_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Deployment]:
    look: asyncpg.Connection[Any] = await asyncpg.connect(settings_environment["DATABASE_URL"])
    made = Deployment(settings_environment, tmp_path, look)
    try:
        yield made
    finally:
        made.close()
        await look.close()
