"""Producers for batches that their user makes, and the ``BulkProducer``: messages into partitions as fast as they come.

A bulk producer is for a copy: in order, and with a bound on the bytes that are not acknowledged. Its caller must check
only that everything arrived. The ingest's way is ``publisher.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer

from streams.kafka.client import kafka_client_options
from streams.kafka.topic import MAX_MESSAGE_BYTES, TopicInfo, partition_for
from streams.settings import Settings

#: Least bytes of a batch, however many partitions there are.
LEAST_BATCH: Final = 16 * 1024
#: aiokafka wants a list.
_NONE: Final[list[tuple[str, bytes]]] = []
#: Bytes of a batch before compression. aiokafka has one request in flight per broker: small batches are slow
#: (docs/performance.md).
BATCH_BYTES: Final = 896 * 1024
#: Seconds until aiokafka gives a batch up.
SEND_TIMEOUT: Final = 40.0
#: Seconds that anybody waits for a producer to close.
STOP_TIMEOUT: Final = 1.0
#: DIDs whose partition is remembered (murmur2 in Python costs more than everything else per event); about 30 MB.
DID_CACHE: Final = 100_000
#: Characters: longer ones, up to 2,048, are legal, and a stranger could fill the memory with them.
LONGEST_KEPT: Final = 128
#: Producers that are still closing: asyncio itself keeps no reference to a task.
_CLOSING: Final[set[asyncio.Task[None]]] = set()


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


class BulkProducer:
    """A producer, and a lane for each partition, as a context. ``messages`` counts those that were added."""

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
        """Return the lane for messages of the key."""
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

    async def wait_acknowledged(self) -> None:
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
    """Read the outcome: after a first failure nobody asks for the others', and asyncio would warn."""
    if not sent.cancelled():
        sent.exception()


def make_producer(settings: Settings, batch_bytes: int, *, idempotent: bool = True) -> AIOKafkaProducer:
    """Return a producer for batches that its user makes: acknowledged by all replicas, nothing lingers in it."""
    return AIOKafkaProducer(
        **kafka_client_options(settings),
        enable_idempotence=idempotent,
        acks="all",
        compression_type="zstd",
        linger_ms=0,
        max_batch_size=batch_bytes,
        max_request_size=MAX_MESSAGE_BYTES,
        request_timeout_ms=int(SEND_TIMEOUT * 1000),
    )


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Close it. It may wait long for unsent batches to expire: it does so in the background."""
    closing = asyncio.get_running_loop().create_task(producer.stop(), name="producer-stop")
    _CLOSING.add(closing)
    closing.add_done_callback(_closed)
    await asyncio.wait((closing,), timeout=STOP_TIMEOUT)


def _closed(closing: asyncio.Task[None]) -> None:
    _CLOSING.discard(closing)
    if not closing.cancelled():
        closing.exception()  # read, so that asyncio does not warn: unsent batches are known already
