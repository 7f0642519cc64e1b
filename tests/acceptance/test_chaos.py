"""The short form of the random campaign: a few dozen faults of a fixed seed (tests/chaos; ``make chaos`` is the long form)."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.campaign import campaign

#: CHAOS_SEED takes another.
SEED = int(os.environ.get("CHAOS_SEED", "1"))


async def test_nothing_is_lost_or_doubled_whatever_breaks(tmp_path: Path) -> None:
    report = await campaign(tmp_path, seed=SEED, faults=25, events=30_000, mean_seconds=2.0, say=print)
    assert not report.problems, "\n".join(report.problems)
    assert report.faults.total() == 25
    assert report.received >= report.events > 0
