"""When a topic's retention is raised, and when the ingest waits instead."""

from __future__ import annotations

import pytest

from streams.kafka.retention import Verdict, judge

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("retention", "lag", "allows", "verdict"),
    [
        (168 * HOUR, 10 * HOUR, True, Verdict()),
        (168 * HOUR, 80 * HOUR, True, Verdict(raise_to=336 * HOUR)),
        (168 * HOUR, 80 * HOUR, False, Verdict(wait=True)),
        (168 * HOUR, 10 * HOUR, False, Verdict()),
        (-1, 9999 * HOUR, False, Verdict()),
    ],
)
def test_judge(retention: int, lag: int, allows: bool, verdict: Verdict) -> None:
    assert judge(retention, lag, disk_allows=allows) == verdict
