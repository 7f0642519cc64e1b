"""Waiting between tries ends when we are told to stop; the same trouble is said once a minute."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from streams.runtime import waiting as patience
from streams.runtime.waiting import SAY_EVERY, Patience
from tests.support.patience import PATIENCE


class Said(list[str]):
    def warning(self, text: str) -> None:
        self.append(text)


async def test_each_wait_is_longer_and_all_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST", 0.02)
    tried = Patience(Said())
    took = []
    for attempt in range(4):
        began = time.monotonic()
        await tried.wait(attempt)
        took.append(time.monotonic() - began)
    for attempt, seconds in enumerate(took):
        assert seconds >= 0.02 * 2**attempt * 0.5 - 0.005
    monkeypatch.setattr(patience, "FIRST", 3600.0)
    monkeypatch.setattr(patience, "LONGEST", 3600.0)
    waiting = [asyncio.create_task(tried.wait(0)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not tried.ended
    tried.end()
    await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    await asyncio.wait_for(tried.wait(10), PATIENCE)
    assert tried.ended


def test_the_same_trouble_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    clock = itertools.count(100.0, SAY_EVERY / 4)
    monkeypatch.setattr(patience.time, "monotonic", lambda: next(clock))
    tried = Patience(said)
    for number in range(8):
        tried.say("kafka" if number % 2 else "relay", str(number))
    assert said == ["0", "1", "4", "5"]
