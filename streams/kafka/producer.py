"""Messages into the partitions of a topic as fast as they come, in order, with a bound on what is not acknowledged.

For a copy: whoever fills it must look only at whether everything arrived. The ingest's way is ``publisher.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Self

from streams.kafka.publisher import BATCH_BYTES, DID_CACHE, LONGEST_KEPT, close_producer, make_producer
from streams.kafka.topic import TopicInfo, partition_for
from streams.settings import Settings

#: Least bytes of a batch, however many partitions there are.
LEAST_BATCH: Final = 16 * 1024
#: aiokafka wants a list.
_NONE: Final[list[tuple[str, bytes]]] = []


class Lane:
    """The open batch of one partition."""

    __slots__ = ("append", "builder", "count", "partition", "size")

    def __init__(self, partition: int, builder: Any) -> None:  # noqa: ANN401 (aiokafka is untyped here)
        self.partition = partition
        self.open(builder)

    def open(self, builder: Any) -> None:  # noqa: ANN401 (the same)
        """Begin a batch."""
        self.builder = builder
        self.append = builder.append
        self.count = self.size = 0


class Outlet:
    """A context: a producer and a lane for each partition. ``messages`` counts what was added."""

    def __init__(self, settings: Settings, info: TopicInfo, budget: int) -> None:
        """``budget``: most bytes in open batches, and most that are not acknowledged."""
        self._info = info
        self._budget = budget
        self._cut: list[tuple[int, Any, int]] = []
        self._in_flight: deque[tuple[asyncio.Future[Any], int]] = deque()
        self._bytes = 0
        self._where: dict[bytes, Lane] = {}
        self.lanes: list[Lane] = []
        self.messages = 0
        batch_bytes = max(LEAST_BATCH, min(BATCH_BYTES, budget // info.partitions))
        self._producer = make_producer(settings, batch_bytes)

    async def __aenter__(self) -> Self:
        """Connect. Raises KafkaError."""
        try:
            await self._producer.start()
        except BaseException:
            await close_producer(self._producer)
            raise
        self.lanes = [Lane(p, self._producer.create_batch()) for p in range(self._info.partitions)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await close_producer(self._producer)

    def lane_of(self, key: bytes) -> Lane:
        """Where messages of the key go."""
        where = self._where
        lane = where.get(key)
        if lane is None:
            if len(where) >= DID_CACHE:
                where.clear()
            lane = self.lanes[partition_for(key, self._info.partitions)]
            if len(key) <= LONGEST_KEPT:
                where[key] = lane
        return lane

    def add(
        self, lane: Lane, key: bytes | None, value: bytes | None, now_ms: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Append a message; ``now_ms`` is its time."""
        headers = list(headers) if headers else _NONE
        if lane.append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
            self._close(lane)
            lane.append(timestamp=now_ms, key=key, value=value, headers=headers)  # a first record always fits
        lane.count += 1
        if value is not None:
            lane.size += len(value)

    def add_control(self, value: bytes, partition: int) -> None:
        """Append a control message."""
        self.add(self.lanes[partition], None, value, time.time_ns() // 1_000_000)

    def _close(self, lane: Lane) -> None:
        if lane.count:
            self._cut.append((lane.partition, lane.builder, lane.size))
            self.messages += lane.count
            lane.open(self._producer.create_batch())

    async def send(self) -> None:
        """Send the batches that are full, and wait while too much is not acknowledged. Raises KafkaError."""
        cut, self._cut = self._cut, []
        for partition, builder, size in cut:
            sent = await self._producer.send_batch(builder, self._info.name, partition=partition)
            sent.add_done_callback(_read)
            self._in_flight.append((sent, size))
            self._bytes += size
            while self._in_flight and (self._bytes > self._budget or self._in_flight[0][0].done()):
                await self._oldest()

    async def settle(self) -> None:
        """Send everything; returns when all of it is acknowledged. Raises KafkaError where something is not."""
        for lane in self.lanes:
            self._close(lane)
        await self.send()
        while self._in_flight:
            await self._oldest()

    async def _oldest(self) -> None:
        sent, size = self._in_flight.popleft()
        await sent
        self._bytes -= size


def _read(sent: asyncio.Future[Any]) -> None:
    """After a first failure nobody asks for the others', and asyncio would warn."""
    if not sent.cancelled():
        sent.exception()
