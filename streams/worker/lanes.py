"""Slices in, transactions out: in order per partition, paced by the throttle, bounded in number and bytes.

Adjacent slices are merged into one transaction where batches are whole; the throttle's small batches cut a slice into
several, each of which moves the partition's position inside the slice. A slice is acknowledged only when its last
record is committed, or when it is void: then what is left of it is dropped at once. Lanes never fetch and never commit
to Kafka. The numbers in comments are steps of the commit path (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from faust.types import TP

from streams.resources.in_flight import Gate
from streams.resources.memory_budgets import worker_budgets
from streams.runtime.drills import WorkerPoint, crash_point
from streams.sink_postgres import Fenced, Written
from streams.worker.slices import Slice, SlicedRecord, cut_events, values_size
from streams.worker.throttle import LARGEST_BATCH, Throttle

log = logging.getLogger(__name__)

#: Most slices that wait for their transactions, over all partitions.
DEPTH: Final = 8


class SliceEvent(Protocol):
    """The Faust event that carries a slice."""

    value: Slice

    def ack(self) -> bool:
        """Let Faust forget the slice."""


class SliceSource(Protocol):
    """The source of the slices: the transport's consumer."""

    def is_current(self, piece: Slice) -> bool:
        """Return True while the slice may still be written."""

    def mark_durable(self, tp: TP, next_offset: int) -> None:
        """Note that the database has committed everything below ``next_offset``."""

    def reseek(self, tp: TP) -> None:
        """Void the partition's slices, and read on from the database's position."""


class Sink(Protocol):
    """The target of the transactions."""

    async def write(
        self,
        partition: int,
        base: int,
        next_offset: int,
        records: Sequence[SlicedRecord],
        still_ours: Callable[[], bool],
    ) -> Written:
        """Apply the records, or nothing. Raises Fenced."""


@dataclass(slots=True)
class Item:
    """A slice in its lane; ``done`` records of it are committed, up to ``position``."""

    event: SliceEvent
    piece: Slice
    done: int
    position: int


class Lanes:
    """One lane a partition.

    ``on_written`` is called after each transaction, with its seconds (retries included); ``on_fault`` before the end.
    """

    def __init__(
        self,
        source: SliceSource,
        sink: Sink,
        throttle: Throttle,
        *,
        on_written: Callable[[int, Written, float], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._source, self._sink, self._throttle = source, sink, throttle
        self._on_written, self._on_fault = on_written, on_fault
        self._lanes: dict[TP, deque[Item]] = {}
        self._tasks: dict[TP, asyncio.Task[None]] = {}
        self._budgets = worker_budgets(throttle.memory.limit)
        self._gate = Gate(throttle.memory.budget)
        self._slices = self._bytes = 0
        self._freed = asyncio.Event()
        self._writing: set[TP] = set()
        self.most_writing = 0  # at once, since the start
        self.failed: BaseException | None = None

    @property
    def writing(self) -> int:
        """Transactions that are under way, or wait for a database that is away."""
        return len(self._writing)

    async def submit(self, event: SliceEvent) -> None:
        """Take in a slice once it fits the budget. After a failure drop it: the process ends."""
        # (2) Take: bounded in slices and bytes, over all partitions.
        piece = event.value
        while self._slices >= DEPTH or (self._slices and self._bytes + piece.nbytes > self._budgets.slices):
            self._freed.clear()
            await self._freed.wait()
        if self.failed is not None:
            event.ack()
            return
        crash_point(WorkerPoint.SLICE_TAKEN)
        self._slices += 1
        self._bytes += piece.nbytes
        self._lanes.setdefault(piece.tp, deque()).append(Item(event, piece, 0, piece.base))
        if piece.tp not in self._tasks:
            self._tasks[piece.tp] = asyncio.create_task(self._run(piece.tp))

    async def _run(self, tp: TP) -> None:
        lane = self._lanes[tp]
        try:
            while self._drop_void(lane):
                # (3) Pace: whole slices merged, or a part of one slice.
                if self._throttle.is_whole:
                    piece = lane[0].piece
                    async with self._throttle.slot(partial(self._source.is_current, piece)):
                        if self._throttle.is_whole and self._drop_void(lane):
                            await self._write_merged(tp, lane)
                else:
                    await self._write_paced(tp, lane)
        except Exception as error:
            self.failed = error
            self._on_fault(error)
            while lane:  # nothing of it will be written: the shutdown must not wait for it
                self._release(lane.popleft())
        finally:
            del self._tasks[tp]

    def _drop_void(self, lane: deque[Item]) -> bool:
        """Drop what may no longer be written; return True if anything is left."""
        while lane and not self._source.is_current(lane[0].piece):
            self._release(lane.popleft())
        return bool(lane)

    def _release(self, item: Item) -> None:
        """End a slice: let Faust forget it, and let the next one in."""
        item.event.ack()
        self._slices -= 1
        self._bytes -= item.piece.nbytes
        item.piece.clear()
        self._freed.set()

    async def _write_merged(self, tp: TP, lane: deque[Item]) -> None:
        """Write one transaction of as many adjacent slices as go into it."""
        first = lane[0]
        records: Sequence[SlicedRecord] = first.piece.records[first.done :] if first.done else first.piece.records
        base, position, size, merged = first.position, first.piece.next_offset, first.piece.nbytes, 1
        for item in list(lane)[1:]:
            piece = item.piece
            size += piece.nbytes
            if piece.base != position or len(records) + len(piece) > LARGEST_BATCH or size > self._budgets.batch:
                size -= piece.nbytes
                break
            records = [*records, *piece.records]
            position = piece.next_offset
            merged += 1
        async with self._gate.entered(size):
            written = await self._commit(tp, first.piece, base, position, records)
        if written:
            for _ in range(merged):
                self._release(lane.popleft())

    async def _write_paced(self, tp: TP, lane: deque[Item]) -> None:
        """Write one transaction of as many events of the first slice as the throttle allows."""
        item = lane[0]
        piece = item.piece
        still_ours = partial(self._source.is_current, piece)
        end, events = cut_events(piece.records, item.done, self._throttle.largest)
        if events:
            events = await self._throttle.acquire(events, still_ours)
            if not events:
                return
            end, _ = cut_events(piece.records, item.done, events)
        try:
            async with self._throttle.slot(still_ours):
                await self._write_part(tp, lane, item, end)
        finally:
            if events:
                self._throttle.end()

    async def _write_part(self, tp: TP, lane: deque[Item], item: Item, end: int) -> None:
        piece = item.piece
        is_rest = end == len(piece.records)
        position = piece.next_offset if is_rest else piece.records[end - 1].offset + 1
        records = piece.records[item.done : end]
        async with self._gate.entered(values_size(records)):
            written = await self._commit(tp, piece, item.position, position, records)
        if written:
            item.done, item.position = end, position
            if is_rest:
                self._release(lane.popleft())

    async def _commit(self, tp: TP, piece: Slice, base: int, position: int, records: Sequence[SlicedRecord]) -> bool:
        """Write the records; return True if they are in the database. If not, the partition's slices are void."""
        if not self._source.is_current(piece):
            return False
        self._writing.add(tp)
        self.most_writing = max(self.most_writing, self.writing)
        began = time.monotonic()
        try:
            # (4) Merge, (5) apply and (6) commit.
            written = await self._sink.write(
                tp.partition, base, position, records, lambda: self._source.is_current(piece)
            )
        except Fenced as error:
            log.info("%s/%d is read again: %s", *tp, error)
            if self._source.is_current(piece):
                self._source.reseek(tp)
            return False
        finally:
            self._writing.discard(tp)
        seconds = time.monotonic() - began
        crash_point(WorkerPoint.SLICE_AFTER_APPLY)
        # (7) Acknowledge: only what is committed.
        self._source.mark_durable(tp, position)
        crash_point(WorkerPoint.SLICE_ACKNOWLEDGED)
        self._on_written(tp.partition, written, seconds)
        return True
