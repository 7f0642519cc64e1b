"""Take the documents' pictures of the live page: ``python -m tests.support.pictures``. The deployment is its own.

A relay with generated traffic, two paced workers and an ingest that follows, on an embedded stack in a temporary
folder; a gap and some bad records are in it. Takes two minutes. Look at the pictures before they are committed.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from streams.local.stack import Stack
from tests.acceptance.commands import free_port
from tests.acceptance.deployment import Deployment, Relay
from tests.support import browser

DOCS: Final = Path(__file__).parents[2] / "docs"
#: name: width, height, colour scheme, pixels a point
PICTURES: Final = {
    "page-light": (1180, 1130, "light", 1),
    "page-dark": (1180, 1130, "dark", 1),
    "page-phone": (390, 844, "light", 2),
}
FIRST_SEQ: Final = 5_000_000_001
TRAFFIC: Final = (
    "--generate", "80000", "--days-span", "1", "--retain-seconds", "79200", "--then-live", "100",
    "--live-events", "50000",
    "--fault", "wrong_cid:scatter=3",
    "--fault", f"drop:seq={FIRST_SEQ + 20_000}", "--fault", "clamp:connection=4,count=400",
)  # fmt: skip
PACED: Final = {
    "BACKFILL_PROFILE": "background", "BACKFILL_BATCH_SIZE": "150", "BACKFILL_BATCH_DELAY_MS": "500",
    "BACKFILL_USE_IDLE": "false",
}  # fmt: skip
#: Seconds after which the pictures are taken: some is applied, much waits.
WAIT: Final = 60.0


async def take(stack: Stack) -> None:
    """Run a deployment, and photograph its page."""
    names = {"KAFKA_TOPIC": "firehose.events", "SINK_SCHEMA": "firehose", "SINK_GROUP": "backfill"}
    servers = {"KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers, "DATABASE_URL": stack.dsn}
    environment = {**servers, **names, "LOCAL_DIR": str(stack.folder)}
    async with Deployment.opened(environment, stack.folder) as deployment, browser.opened() as chromium:
        relay = Relay("relay", list(TRAFFIC), deployment.folder)
        deployment.commands.append(relay)
        await relay.ready(600.0)
        port = free_port()
        deployment.worker(**PACED, WORKER_WEB_PORT=str(port))
        deployment.worker(**PACED, WORKER_ID="1")
        deployment.ingest(
            relay.url, "--follow", days=1, INGEST_WEB_PORT=str(free_port()), BACKFILL_PROFILE="background"
        )
        await asyncio.sleep(WAIT)
        for name, (width, height, scheme, scale) in PICTURES.items():
            options = {"color_scheme": scheme, "device_scale_factor": scale, "reduced_motion": "reduce"}
            async with browser.page(chromium, viewport={"width": width, "height": height}, **options) as watched:
                await watched.page.goto(f"http://127.0.0.1:{port}/")
                await watched.page.wait_for_selector("#live[data-live=yes]")
                await asyncio.sleep(5.0)  # rates are known after the second look
                await watched.page.screenshot(path=DOCS / f"{name}.png")
                print(f"{name}.png", (DOCS / f"{name}.png").stat().st_size, watched.complaints or "")
                await watched.page.screenshot(path=Path(tempfile.gettempdir()) / f"{name}-full.png", full_page=True)


def main() -> None:
    """The command."""
    with tempfile.TemporaryDirectory(prefix="atproto-streams-pictures-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "stack", fsync=False)
        try:
            stack.up()
            asyncio.run(take(stack))
        finally:
            stack.down()


if __name__ == "__main__":
    main()
