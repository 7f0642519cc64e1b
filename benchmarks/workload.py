"""The traffic that is measured: generated, the same for all that is compared in one run.

Its plan is fixed, so its first frames are the same for a relay that serves all of it and for a program that makes
only those.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from streams.runtime import child_process
from streams.simulator.rates import DENSE, PLAIN
from streams.simulator.recording import Frame, iso_time
from streams.simulator.traffic import Plan, Traffic

#: Seconds that a relay has to end.
_STOP_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Workload:
    """So many generated events. ``end_us``: the time of the last. ``plain``: what is rare has the network's rates."""

    events: int
    end_us: int
    plain: bool = True
    large_every: int = 0

    def frames(self, count: int) -> list[Frame]:
        """Return the first frames, as the relay serves them too."""
        plan = Plan(self.events, end_us=self.end_us, rates=PLAIN if self.plain else DENSE, large_every=self.large_every)
        return list(islice(Traffic(plan).frames(), count))

    def arguments(self) -> list[str]:
        """Return the options of ``python -m streams.simulator`` that make the same."""
        # The command reads the time in whole milliseconds.
        options = ["--generate", str(self.events), "--until", iso_time(self.end_us)]
        options += ["--large-every", str(self.large_every)]
        return [*options, "--plain"] if self.plain else options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a program that makes the first frames of a workload itself."""
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the whole workload (%(default)s)")
    parser.add_argument("--frames", type=int, default=50_000, help="frames to take of it (%(default)s)")
    parser.add_argument(
        "--end-us", type=int, default=1_790_000_000_000_000, help="time of its last event (%(default)s)"
    )


def workload_of(options: argparse.Namespace) -> Workload:
    """Return the workload that the options name."""
    return Workload(options.events, options.end_us)


def as_options(workload: Workload, frames: int) -> list[str]:
    """Return the options for the first frames of a workload."""
    return ["--events", str(workload.events), "--frames", str(frames), "--end-us", str(workload.end_us)]


@dataclass(frozen=True, slots=True)
class ServedRelay:
    """A relay that is up. ``oracle``: the file of what must come of its events."""

    url: str
    pid: int
    oracle: Path


@asynccontextmanager
async def serve(workload: Workload, folder: Path) -> AsyncIterator[ServedRelay]:
    """Run the development relay with the workload; it writes its oracle into the folder."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 (nothing else runs yet)
    oracle = folder / "oracle.json.gz"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.simulator", *workload.arguments(), "--oracle", str(oracle), stdin=DEVNULL,
        stdout=PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            sys.exit("The relay did not start.")
        yield ServedRelay(json.loads(line)["url"], process.pid, oracle)
    finally:
        await child_process.stop(process, _STOP_SECONDS)
