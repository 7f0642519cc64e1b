"""A deployment with the names that the README uses, filled with a little generated traffic, for a whole session.

The documents' commands and the examples run against it as a reader's would: without a setting, on the embedded stack.
They must leave its records as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from streams.local.stack import Stack
from streams.simulator.oracle import State
from tests.acceptance.deployment import FAST, Deployment

EVENTS = 6_000
NAMES = {"KAFKA_TOPIC": "firehose.events", "SINK_SCHEMA": "firehose", "SINK_GROUP": "backfill"}


@dataclass(frozen=True)
class Filled:
    """What stands in it, and how it is reached."""

    deployment: Deployment
    oracle: State
    folder: Path
    relay: str

    @property
    def environment(self) -> dict[str, str]:
        """The stack and the relay; all else is the defaults."""
        return {"LOCAL_DIR": self.deployment.environment["LOCAL_DIR"], "RELAY_URL": self.relay, **FAST}

    @property
    def dsn(self) -> str:
        return self.deployment.environment["DATABASE_URL"]

    @property
    def bootstrap_servers(self) -> str:
        return self.deployment.environment["KAFKA_BOOTSTRAP_SERVERS"]


@contextmanager
def filling(stack: Stack, folder: Path) -> Iterator[Filled]:
    """The default names in the session's own stack, where no other test uses them."""
    servers = {"KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers, "DATABASE_URL": stack.dsn}
    environment = {**servers, **NAMES, "LOCAL_DIR": str(stack.folder)}

    async def fill() -> tuple[Deployment, State, str]:
        look = await asyncpg.connect(stack.dsn)
        try:
            deployment = Deployment(environment, folder, look)
            relay, oracle = await deployment.generated(EVENTS, "--days-span", "1")
            worker = deployment.worker()
            await deployment.until_done(deployment.ingest(relay.url))
            await deployment.until_cursor(oracle["last_seq"] or 0)
            await worker.stop()
            return deployment, oracle, relay.url
        finally:
            await look.close()

    with asyncio.Runner() as runner:
        deployment, oracle, relay = runner.run(fill())
    try:
        yield Filled(deployment, oracle, folder, relay)
    finally:
        deployment.close()
