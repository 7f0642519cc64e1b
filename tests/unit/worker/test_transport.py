"""Positions against the log: another topic is one whose end lies before them, not one that grew meanwhile.

And the fetches beside them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from streams.errors import MismatchError
from streams.worker.fetching import FetchThread
from streams.worker.slices import SLICE_RECORDS, Chain
from streams.worker.transport import POLL_LINGER, Consumer

P0 = TP("t", 0)


class Log:
    """A partition that grows while the database is asked for our position, which another worker moves on."""

    def __init__(self, grows_to: int) -> None:
        self.end, self.grows_to = 10, grows_to

    async def call_thread(self, ask: Any, keys: list[TopicPartition]) -> dict[Any, int]:
        return ask(keys)

    def beginning_offsets(self, keys: list[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(keys, 0)

    def end_offsets(self, keys: list[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(keys, self.end)

    async def positions(self, _: dict[int, int]) -> dict[int, int]:
        self.end = self.grows_to
        return {0: 15}


async def load(log: Log) -> dict[TP, int]:
    consumer: Any = SimpleNamespace(_thread=log, aio=log, pipeline=log)
    return await Consumer._load(consumer, {P0})


async def test_a_position_that_moved_on_while_we_waited_for_it_is_no_other_topic() -> None:
    assert await load(Log(grows_to=20)) == {P0: 15}


async def test_a_log_that_ends_before_our_position_is_another_topic() -> None:
    with pytest.raises(MismatchError, match="was read to offset 15, and now stands at 12"):
        await load(Log(grows_to=12))


class Drains(FetchThread):
    """A thread that notes how long each fetch may wait."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    async def drain(self, active: set[TP] | None, timeout: float, max_bytes: int) -> dict[Any, Any]:
        self.timeouts.append(timeout)
        return {}


async def test_a_fetch_is_short_while_a_partition_has_no_position() -> None:
    """It waits for the others' records, and a worker's first slice would come a second later."""
    chain, thread = Chain(), Drains()
    chain.void([P0])
    consumer: Any = SimpleNamespace(
        _chain=chain, _thread=thread, _last_fetch=SLICE_RECORDS, assignment=lambda: {P0, TP("changelog", 0)},
        is_sliced=lambda topic: topic == "t",
        pipeline=SimpleNamespace(budget=SimpleNamespace(remaining=lambda _: 1 << 20)),
    )  # fmt: skip
    await Consumer._getmany(consumer, None, 5.0)
    chain.arm(P0, 0)
    await Consumer._getmany(consumer, None, 5.0)
    assert thread.timeouts == [POLL_LINGER, 5.0]
