"""A rate over a moving window."""

from __future__ import annotations

import pytest

from streams.runtime.rates import Rate


def test_there_is_no_rate_before_two_samples() -> None:
    rate = Rate(10.0)
    assert (rate.last, rate.seconds, rate.change, rate.per_second) == (None, 0.0, 0.0, 0.0)
    rate.add(5.0, 100)
    assert (rate.last, rate.seconds, rate.per_second) == (100, 0.0, 0.0)


@pytest.mark.parametrize("every", [0.5, 1.0, 3.0, 30.0])
def test_it_is_the_growth_over_the_window_and_a_little_more(every: float) -> None:
    rate = Rate(10.0)
    for sample in range(100):
        rate.add(sample * every, 7 * sample * every)
    assert 10.0 <= rate.seconds < 10.0 + every or rate.seconds == every
    assert rate.per_second == pytest.approx(7)
    for sample in range(100, 200):  # it stands still
        rate.add(sample * every, 7 * 99 * every)
    assert rate.per_second == 0.0


def test_what_begins_again_has_no_rate_yet() -> None:
    rate = Rate(10.0)
    rate.add(0.0, 10)
    rate.add(1.0, 20)
    rate.clear()
    rate.add(2.0, 0)
    assert (rate.last, rate.per_second) == (0, 0.0)
    rate.add(3.0, 4)
    assert rate.per_second == 4.0
