"""The source is held while there is a reason, and is told only when the first one comes and the last one goes."""

from __future__ import annotations

import itertools

import pytest

from streams.ingestion.backpressure import Backpressure, HoldReason


def test_the_source_is_told_of_the_first_reason_and_of_the_last() -> None:
    told: list[bool] = []
    held = Backpressure(told.append)
    for paused in (True, True, False):
        held.set(HoldReason.PAUSED, paused)
    assert told == [True, False]
    held.set(HoldReason.PACE, on=True)
    held.set(HoldReason.MEMORY, on=True)
    held.set(HoldReason.PACE, on=False)
    assert told == [True, False, True]
    assert held.is_held
    assert HoldReason.MEMORY in held
    assert HoldReason.PACE not in held
    held.set(HoldReason.RETENTION, on=False)
    held.set(HoldReason.MEMORY, on=False)
    assert told == [True, False, True, False]
    assert not held.is_held


@pytest.mark.parametrize("reason", HoldReason)
def test_it_counts_the_seconds_of_a_reason_from_when_it_came(reason: HoldReason) -> None:
    clock = itertools.count(100.0)
    held = Backpressure(lambda _: None, lambda: next(clock))
    assert held.seconds(reason) == 0.0
    held.set(reason, on=True)
    assert held.seconds(reason) == 1.0
    next(clock)
    assert held.seconds(reason) == 3.0
    held.set(reason, on=False)
    assert held.seconds(reason) == 0.0
