"""Ways that were given up because they cost too much, put back for one run to show what they cost.

Each folder beside this file holds a ``sitecustomize.py`` that changes our program when a process starts. To add one:
its folder, and a line in ``WRONG_WAYS``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.figures import Figures
from benchmarks.programs import OURS, Version
from benchmarks.stages import Site, ingest_alone, worker_alone
from benchmarks.summary import INGEST, WORKER


class WrongWay(NamedTuple):
    """A wrong way: the stage that it is measured in, the figure that shows it, and the folder of its change."""

    name: str
    stage: str
    figure: str
    folder: str

    def version(self) -> Version:
        """Return this version of the program with the wrong way in it."""
        return replace(OURS, name=self.name, change=Path(__file__).parent / self.folder)


#: The share of its stage that each costs at least in a small run on a busy machine: in a long one a fifth or more.
LEAST_SHARE: Final = 0.1
WRONG_WAYS: Final = (WrongWay("frames by websockets' parser", INGEST, "cpu.ingest", "frames_by_websockets"),)


async def measure_stage(site: Site, stage: str, version: Version) -> Figures:
    """Measure one stage of a version alone."""
    found, settings = await ingest_alone(site, version if stage == INGEST else OURS)
    if stage == WORKER:
        found = await worker_alone(site, version, settings)
    await site.servers.forget(settings)
    return found
