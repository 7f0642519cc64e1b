"""A changelog that was just created has appeared before the group is joined."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streams.kafka import transport


class Client:
    """Knows the topic from the third time that it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def fetch_all_metadata(self) -> Client:
        self.asked += 1
        return self

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        assert topic == "changelog"
        return {0, 1} if self.asked >= 3 else None


class Owner:
    should_stop = False

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


async def test_it_is_waited_for() -> None:
    client = Client()
    await transport._appeared(Owner(), cast(Any, client), "changelog")
    assert client.asked == 3


async def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "APPEAR_PATIENCE", 0.05)
    client = Client()
    client.asked = -(10**6)
    await asyncio.wait_for(transport._appeared(Owner(), cast(Any, client), "changelog"), 5)
    stopping = Owner()
    stopping.should_stop = True
    await transport._appeared(stopping, cast(Any, Client()), "changelog")
