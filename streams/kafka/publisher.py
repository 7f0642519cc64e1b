"""The ingest's way into the topic: batches in order per partition, a byte budget, and the watermarks.

Everything per event is synchronous: ``add`` appends to the open batch of the DID's partition. One task a partition
hands full or lingering batches to aiokafka (two at once could overtake each other). ``unacknowledged`` counts the bytes
between ``add`` and the broker's answer; the caller stops reading from the relay while ``full`` is true.

A watermark is written only after every batch that it covers was acknowledged: an idempotent producer too gives up on
a batch after a while, and a later watermark must not stand over a lost one. After a failure the publisher is of no
more use: the caller makes a new one and goes back to the last durable watermark.

Where a topic takes less than our largest message, the publisher is ``careful``: a batch that is refused for its size is
taken apart until the record is found that the topic cannot hold, which becomes a dead letter; all others stay in order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from streams.errors import MismatchError
from streams.kafka.oversized import RefusedRecord, letter_for
from streams.kafka.producer import BATCH_BYTES, DID_CACHE, LONGEST_KEPT, close_producer, make_producer
from streams.kafka.topic import TopicInfo, partition_for
from streams.messages import ControlMessage, StreamPosition, Watermark, encode_control
from streams.runtime.drills import IngestPoint, crash_point
from streams.settings import Settings

#: Seconds until a batch that is not full is sent.
LINGER: Final = 0.2
#: Seconds between watermarks.
WATERMARK_EVERY: Final = 1.0
#: What the broker answers for a batch that is too large for the topic, or for a segment of its log.
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_NO_HEADERS: Final[list[tuple[str, bytes | None]]] = []


@dataclass(slots=True)
class _Batch:
    builder: Any
    size: int
    done: asyncio.Future[None]
    lane: _Lane
    #: The records in it, if it may have to be taken apart.
    records: list[RefusedRecord] | None = None


class _Lane:
    """One partition: an open batch, and the batches that wait to be sent, in order."""

    __slots__ = (
        "_append", "_publisher", "_queue", "_wake", "builder", "count", "last", "partition", "size", "task", "written",
    )  # fmt: skip

    def __init__(self, publisher: Publisher, partition: int) -> None:
        self._publisher = publisher
        self.partition = partition
        self._queue: deque[_Batch] = deque()
        self._wake = asyncio.Event()
        self.last: asyncio.Future[None] | None = None
        self.written = -1
        self._open()
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"lane-{partition}")

    def _open(self) -> None:
        self.builder = self._publisher.producer.create_batch()
        #: The compiled builder within: the one around it costs 0.6 µs a record, to count them. ``cut`` tells it.
        self._append = self.builder._builder.append
        self.count = self.size = 0

    def add(self, key: bytes | None, value: bytes, now_ms: int) -> None:
        if self._append(self.count, now_ms, key, value, _NO_HEADERS) is None:
            self.cut()
            self._append(0, now_ms, key, value, _NO_HEADERS)  # a first record always fits
        self.count += 1
        self.size += len(value)

    def cut(self) -> None:
        """Close the open batch and queue it."""
        if self.count:
            self.builder._relative_offset = self.count
            self.builder.close()
            self.last = asyncio.get_running_loop().create_future()
            self._queue.append(_Batch(self.builder, self.size, self.last, self))
            self._open()
            self._wake.set()

    def advance(self, offset: int) -> bool:
        """Note the offset of a batch. Return False if it is not behind the batch before.

        A topic that was deleted and re-created at once takes our batches as if nothing had happened.
        """
        if 0 <= offset <= self.written:
            return False
        self.written = max(self.written, offset)
        return True

    async def _run(self) -> None:
        publisher = self._publisher
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            batch = self._queue.popleft()
            crash_point(IngestPoint.BATCH_BEFORE_SEND)
            try:
                sent = await publisher.producer.send_batch(batch.builder, publisher.topic, partition=self.partition)
            except Exception as error:
                publisher.fail(error)
                return
            sent.add_done_callback(lambda sent, batch=batch: publisher.acknowledged(sent, batch))


class _CarefulLane(_Lane):
    """A lane of a topic that may refuse a batch for its size: it waits for each batch, and keeps its records."""

    __slots__ = ("_records",)

    def _open(self) -> None:
        super()._open()
        self._records: list[RefusedRecord] = []

    def add(self, key: bytes | None, value: bytes, now_ms: int) -> None:
        super().add(key, value, now_ms)
        self._records.append(RefusedRecord(key, value, now_ms))

    def cut(self) -> None:
        records = self._records
        if self.count:
            super().cut()
            self._queue[-1].records = records

    async def _run(self) -> None:
        publisher = self._publisher
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            batch = self._queue.popleft()
            try:
                await self._write(batch)
            except Exception as error:
                publisher.fail(error)
                return
            publisher.written_whole(batch)

    async def _write(self, batch: _Batch) -> None:
        """Send a batch, in halves where it is refused for its size. Raises KafkaError, MismatchError."""
        publisher = self._publisher
        parts = [(batch.builder, batch.records or [])]
        while parts:
            builder, records = parts.pop()
            try:
                sent = await publisher.producer.send_batch(builder, publisher.topic, partition=self.partition)
                offset = (await sent).offset
            except TOO_LARGE:
                if len(records) == 1:
                    publisher.bury(records[0])
                    continue
                half = len(records) // 2
                parts += [self._packed(records[half:]), self._packed(records[:half])]
            else:
                if not self.advance(offset):
                    raise publisher.re_created()

    def _packed(self, records: list[RefusedRecord]) -> tuple[Any, list[RefusedRecord]]:
        builder = self._publisher.producer.create_batch()
        for key, value, now_ms in records:
            builder.append(timestamp=now_ms, key=key, value=value)
        return builder, records


class Publisher:
    """The way into the topic for one ingest. Not for use after ``failure`` is set."""

    def __init__(
        self,
        settings: Settings,
        info: TopicInfo,
        *,
        budget: int,
        on_change: Callable[[], None],
        remembered: int = DID_CACHE,
        takes: int | None = None,
        on_buried: Callable[[], None] = lambda: None,
    ) -> None:
        """``budget``: most unacknowledged bytes; ``on_change`` is called when ``full`` or ``failure`` changes.

        ``remembered``: most DIDs whose partition is kept in mind. ``takes``: the topic may refuse a record for its
        size, and takes so many bytes as far as is known; ``on_buried`` is called for each. It is then written without
        idempotence, whose numbers a refused batch breaks: a batch may come twice, which changes nothing.
        """
        self.topic = info.name
        self.partitions = info.partitions
        self.budget = budget
        self._remembered = remembered
        self.unacknowledged = 0
        self.full = False
        self.failure: BaseException | None = None
        self.durable: StreamPosition | None = None
        self._failed: asyncio.Future[None]
        self._lanes: list[_Lane] = []
        #: The last batch of each lane when its watermark was acknowledged.
        self._watermarked: list[asyncio.Future[None] | None] = []
        self._on_change = on_change
        #: The DIDs that were added lately, with their lanes and keys. All of them are valid: ``add`` is given no other.
        self.known: dict[str, tuple[_Lane, bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._make_watermark: Callable[[StreamPosition], Watermark] | None = None
        self._position: Callable[[], StreamPosition] | None = None
        self._writing_watermarks = asyncio.Lock()
        self._lane = _Lane if takes is None else _CarefulLane
        self._on_buried = on_buried
        batch_bytes = BATCH_BYTES if takes is None else min(BATCH_BYTES, takes)
        self.producer = make_producer(settings, batch_bytes, idempotent=takes is None)

    async def start(self) -> None:
        """Connect. Raises aiokafka's KafkaError."""
        try:
            await self.producer.start()
        except BaseException:
            await self.producer.stop()
            raise
        self._failed = asyncio.get_running_loop().create_future()
        self._lanes = [self._lane(self, partition) for partition in range(self.partitions)]
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._linger(), name="linger"),
            loop.create_task(self._write_regularly(), name="watermarks"),
        ]

    async def stop(self) -> None:
        """Stop, without the batches that are not sent: call ``drain`` first to keep them."""
        for task in (*self._tasks, *(lane.task for lane in self._lanes)):
            task.cancel()
        await close_producer(self.producer)

    # -- the hot path
    def add(self, did: str, values: Iterable[bytes]) -> None:
        """Append the messages of one frame, in order. ``did`` is valid, and ``known`` from now on."""
        place = self.known.get(did)
        if place is None:
            place = self._place(did)
        lane, key = place
        now_ms = time.time_ns() // 1_000_000
        size = 0
        for value in values:
            lane.add(key, value, now_ms)
            size += len(value)
        self.unacknowledged += size
        if self.unacknowledged > self.budget:
            self._fill()

    def control(self, message: ControlMessage, partition: int = 0) -> None:
        """Append a control message."""
        value = encode_control(message)
        self._lanes[partition].add(None, value, time.time_ns() // 1_000_000)
        self.unacknowledged += len(value)
        if self.unacknowledged > self.budget:
            self._fill()

    # -- watermarks
    def begin_run(
        self, make_watermark: Callable[[StreamPosition], Watermark], position: Callable[[], StreamPosition]
    ) -> None:
        """Begin a run. ``make_watermark`` makes its watermarks; ``position``: up to where everything was added."""
        self._make_watermark = make_watermark
        self._position = position
        self.durable = None

    async def write_watermarks(self, *, anyway: bool = False) -> None:
        """Write watermarks for what was added so far, and wait until they are acknowledged.

        If the position is the same as before, none is written; ``anyway``: write even then.
        """
        async with self._writing_watermarks:
            make = self._make_watermark
            if self._position is None or make is None:
                return
            position = self._position()
            if position == self.durable and not anyway:
                return
            await self._wait_acknowledged()
            watermark = make(position)
            crash_point(IngestPoint.WATERMARK_BEFORE_WRITE)
            for lane in self._lanes:
                self.control(watermark, lane.partition)
            await self._wait_acknowledged()
            crash_point(IngestPoint.WATERMARK_ACKNOWLEDGED)
            if make is self._make_watermark:
                self.durable = position
                self._watermarked = [lane.last for lane in self._lanes]

    async def _wait_acknowledged(self) -> None:
        """Wait until everything that was added so far is acknowledged. Raises the publisher's failure."""
        for lane in self._lanes:
            lane.cut()
        failed = self._failed
        for last in [lane.last for lane in self._lanes if lane.last is not None]:
            await asyncio.wait((last, failed), return_when=asyncio.FIRST_COMPLETED)
            self.check()

    def check(self) -> None:
        """Raise SendError if Kafka did not take a batch."""
        if self.failure is not None:
            raise SendError(str(self.failure) or repr(self.failure))

    async def drain(self) -> None:
        """Send everything, with watermarks behind it. Raises the publisher's failure."""
        for lane in self._lanes:
            lane.cut()
        await self.write_watermarks(anyway=[lane.last for lane in self._lanes] != self._watermarked)
        await self._wait_acknowledged()
        while any(lane.count for lane in self._lanes):  # the letter of a record that was refused meanwhile
            await self._wait_acknowledged()

    @property
    def written(self) -> dict[int, int]:
        """Return the offset of the last batch that was acknowledged, by partition; -1 before the first."""
        return {lane.partition: lane.written for lane in self._lanes}

    def limit(self, budget: int) -> None:
        """Use another budget from now on."""
        self.budget = budget
        if self.unacknowledged > budget:
            self._fill()

    # -- inside
    def _place(self, did: str) -> tuple[_Lane, bytes]:
        if len(self.known) >= self._remembered:
            self.known.clear()
        key = did.encode()
        place = (self._lanes[partition_for(key, self.partitions)], key)
        if len(did) <= LONGEST_KEPT:
            self.known[did] = place
        return place

    def _fill(self) -> None:
        if not self.full:
            self.full = True
            for lane in self._lanes:
                lane.cut()
            self._on_change()

    def acknowledged(self, sent: asyncio.Future[Any], batch: _Batch) -> None:
        """Take in the broker's answer to a batch (called by its future)."""
        error: BaseException | None = asyncio.CancelledError() if sent.cancelled() else sent.exception()
        if error is not None:
            self.fail(error)
            return
        if not batch.lane.advance(sent.result().offset):
            self.fail(self.re_created())
            return
        self.written_whole(batch)

    def re_created(self) -> MismatchError:
        """Return the error for a topic whose offsets go back."""
        return MismatchError(
            f"The topic {self.topic} was re-created while we wrote to it",
            "start again to fill the new one, with another SINK_SCHEMA or an emptied one.",
        )

    def bury(self, record: RefusedRecord) -> None:
        """Append a dead letter in the place of a record that the topic cannot hold. Raises MismatchError."""
        make = self._make_watermark
        self.control(letter_for(record, make(StreamPosition(0, None)) if make is not None else None, self.topic))
        self._on_buried()

    def written_whole(self, batch: _Batch) -> None:
        """Note that the whole batch is in the topic."""
        crash_point(IngestPoint.BATCH_ACKNOWLEDGED)
        self.unacknowledged -= batch.size
        if not batch.done.done():
            batch.done.set_result(None)
        if self.full and self.unacknowledged < self.budget // 2:
            self.full = False
            self._on_change()

    def fail(self, error: BaseException) -> None:
        """Note a failure and wake all that wait. Only the first one counts."""
        if self.failure is None:
            self.failure = error
            self._failed.set_result(None)
            self._on_change()

    async def _linger(self) -> None:
        while True:
            await asyncio.sleep(LINGER)
            for lane in self._lanes:
                lane.cut()

    async def _write_regularly(self) -> None:
        while self.failure is None:
            await asyncio.sleep(WATERMARK_EVERY)
            try:
                await self.write_watermarks()
            except SendError:
                return


class SendError(Exception):
    """A batch was not acknowledged."""
