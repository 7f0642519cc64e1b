"""Positions against the log: another topic is one whose end lies before them, not one that grew meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from streams.errors import MismatchError
from streams.worker.transport import Consumer

P0 = TP("t", 0)


class Log:
    """A partition that grows while the database is asked for our position, which another worker moves on."""

    def __init__(self, grows_to: int) -> None:
        self.end, self.grows_to = 10, grows_to

    async def call_thread(self, _: Any, __: Any, keys: list[TopicPartition]) -> tuple[dict[Any, int], dict[Any, int]]:
        return dict.fromkeys(keys, 0), dict.fromkeys(keys, self.end)

    async def positions(self, _: dict[int, int]) -> dict[int, int]:
        self.end = self.grows_to
        return {0: 15}


async def load(log: Log) -> dict[TP, int]:
    consumer: Any = SimpleNamespace(_thread=log, aio=None, pipeline=log)
    return await Consumer._load(consumer, {P0})


async def test_a_position_that_moved_on_while_we_waited_for_it_is_no_other_topic() -> None:
    assert await load(Log(grows_to=20)) == {P0: 15}


async def test_a_log_that_ends_before_our_position_is_another_topic() -> None:
    with pytest.raises(MismatchError, match="was read to offset 15, and now stands at 12"):
        await load(Log(grows_to=12))
