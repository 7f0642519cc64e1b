"""Waiting between tries ends when we are told to stop; the same trouble is said once a minute."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from streams.runtime import waiting
from streams.runtime.waiting import SAY_EVERY, RateLimitedLog, StopSignal, backoff, jittered
from tests.support.patience import PATIENCE


class Said(list[str]):
    def warning(self, text: str) -> None:
        self.append(text)


async def test_each_wait_is_longer_and_all_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.02)
    stop = StopSignal()
    took = []
    for attempt in range(4):
        began = time.monotonic()
        await stop.backoff(attempt)
        took.append(time.monotonic() - began)
    for attempt, seconds in enumerate(took):
        assert seconds >= 0.02 * 2**attempt * 0.5 - 0.005
    monkeypatch.setattr(waiting, "FIRST", 3600.0)
    monkeypatch.setattr(waiting, "LONGEST", 3600.0)
    backoffs = [asyncio.create_task(stop.backoff(0)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not stop.is_set
    stop.set()
    await asyncio.wait_for(asyncio.gather(*backoffs), PATIENCE)
    await asyncio.wait_for(stop.backoff(10), PATIENCE)
    assert stop.is_set


def test_the_same_trouble_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    clock = itertools.count(100.0, SAY_EVERY / 4)
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(clock))
    trouble = RateLimitedLog(said)
    for number in range(8):
        trouble.warning("kafka" if number % 2 else "relay", str(number))
    assert said == ["0", "1", "4", "5"]


def test_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    assert [backoff(attempt, 0.5, 5.0) for attempt in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff(10_000, 0.1, 60.0) == 60.0
    assert all(1.0 <= jittered(2.0) <= 2.0 for _ in range(100))
