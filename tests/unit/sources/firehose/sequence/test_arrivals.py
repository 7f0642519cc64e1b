"""Random sequences of arrivals: every event is taken, no input is read for ever, a reset is found and none invented."""

from __future__ import annotations

from random import Random

import pytest

from tests.arrivals.model import travel
from tests.arrivals.world import make_world


@pytest.mark.parametrize("seed", range(4))
def test_random_sequences_of_arrivals(seed: int) -> None:
    """The short form of ``python -m tests.arrivals --sequences 1000000``."""
    for number in range(500):
        rnd = Random(f"{seed} {number}")
        world = make_world(rnd)
        travel(world, rnd)
