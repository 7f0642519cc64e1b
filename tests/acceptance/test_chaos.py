"""The random campaign in its short form: ``make chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.campaign import campaign

FAULTS = 25


async def test_nothing_is_lost_or_doubled_whatever_breaks(tmp_path: Path) -> None:
    report = await campaign(tmp_path, seed=1, faults=FAULTS, events=30_000, mean_seconds=2.0, say=print)
    assert not report.problems, "\n".join(report.problems)
    assert report.faults.total() == FAULTS
    assert report.received >= report.events > 0
