"""A worker that stands at named places of its start until it is told to go on.

``python -m tests.support.halting_worker FOLDER``: at a place it makes the file FOLDER/PLACE.reached and waits for
FOLDER/PLACE.go, the first time that it comes there.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path
from typing import Any, Final

import aiokafka
from faust.app.base import App
from faust.cli.faust import cli
from faust.tables.recovery import Recovery

from streams.worker import checks

#: In the order in which a first start comes by: each is about to ask the broker for something.
PLACES: Final[dict[str, tuple[Any, str]]] = {
    "checked": (checks, "migrate_schema"),
    "producer": (aiokafka.AIOKafkaProducer, "start"),
    "consumer": (aiokafka.AIOKafkaConsumer, "start"),
    "assigned": (App, "_on_partitions_assigned"),
    "highwaters": (Recovery, "_build_highwaters"),
    "offsets": (Recovery, "_build_offsets"),
    "seek": (Recovery, "_seek_offsets"),
    "recovered": (Recovery, "on_recovery_completed"),
    "table": (aiokafka.AIOKafkaProducer, "send"),
}


def halt(place: str, folder: Path) -> None:
    """Stand there once, and leave the event loop to others meanwhile."""
    owner, name = PLACES[place]
    original = getattr(owner, name)
    reached, go = folder / f"{place}.reached", folder / f"{place}.go"

    @functools.wraps(original)
    async def halting(*arguments: Any, **options: Any) -> Any:
        if not reached.exists():
            reached.touch()
            while not go.exists():  # noqa: ASYNC110 (another process makes it)
                await asyncio.sleep(0.02)
        return await original(*arguments, **options)

    setattr(owner, name, halting)


def main() -> None:
    """Faust's worker, with a stop at each place."""
    for place in PLACES:
        halt(place, Path(sys.argv[1]))
    sys.argv = ["faust", "-A", "streams.agents", "worker"]
    cli()


if __name__ == "__main__":
    main()
