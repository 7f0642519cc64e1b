"""A deployment for each test, and relays for the session with much traffic."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.local.stack import Stack
from streams.simulator.oracle import State, load_oracle
from tests.acceptance.deployment import Deployment, Relay
from tests.acceptance.filled import Filled, filling
from tests.conftest import Servers

#: Events of the bigger relay. ACCEPTANCE_EVENTS takes another number, for a slow machine.
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
    """As much as the promise says."""
    with serving(EVENTS, tmp_path_factory.mktemp("traffic")) as served:
        yield served


@pytest.fixture(scope="session")
def some_traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    """Less, for what must only have a middle."""
    with serving(EVENTS * 3 // 10, tmp_path_factory.mktemp("traffic")) as served:
        yield served


@pytest.fixture(scope="session")
def filled(stack: Stack | Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """One with the default names, for what the documents and the examples do."""
    if not isinstance(stack, Stack):
        pytest.skip("needs the embedded stack, not servers from outside")
    with filling(stack, tmp_path_factory.mktemp("filled")) as made:
        yield made


@contextmanager
def serving(events: int, folder: Path) -> Iterator[Traffic]:
    oracle = folder / "oracle.json"
    relay = Relay("relay", ["--generate", str(events), "--seed", "1", "--oracle", str(oracle)], folder)
    try:
        with asyncio.Runner() as runner:
            runner.run(relay.ready())
        yield Traffic(relay.url, load_oracle(oracle), relay.facts["events"], relay.facts["last_seq"])
    finally:
        relay.kill()


@pytest.fixture
async def deployment(settings_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Deployment]:
    async with Deployment.opened(settings_environment, tmp_path) as made:
        yield made
