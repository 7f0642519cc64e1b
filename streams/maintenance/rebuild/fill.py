"""The topic into the rebuilt schema: the worker's own way of a slice, without Faust and without a Kafka group.

What is applied is what stands in the schema's ``sink_offsets``, so a fill that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from faust.types import TP

from streams.errors import HeldError
from streams.maintenance.progress import Progress
from streams.maintenance.rebuild.schema import PartitionStart
from streams.sink_postgres import Fenced, PostgresSink, Written
from streams.worker.lanes import Lanes
from streams.worker.slices import Slice, rewound, split
from streams.worker.throttle import Throttle

log = logging.getLogger(__name__)

#: Messages taken at once from what was fetched.
CHUNK: Final = 4000
#: Seconds for which the transactions that are under way are waited for at the end.
CLOSE_SECONDS: Final = 5.0
#: Seconds between two looks whether what was read is written.
LOOK: Final = 0.02


class FillStopped(Exception):  # noqa: N818 (nothing went wrong)
    """The rebuild was asked to stop. Its position is saved."""


@dataclass(slots=True)
class _Event:
    """A slice on its way into the database."""

    value: Slice
    on_ack: Callable[[], None]

    def ack(self) -> bool:
        self.on_ack()
        return True


class Filler:
    """Reads with a consumer that is assigned to every partition, and writes through lanes. ``start`` it first.

    ``passed`` writes down up to where a partition is not read because the seed has its rows.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        sink: PostgresSink,
        throttle: Throttle,
        tell: Callable[[str], None],
        passed: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self._consumer, self._sink, self._throttle, self._tell = consumer, sink, throttle, tell
        self._passed = passed
        self._begins: Mapping[int, PartitionStart] = {}
        self._lanes = Lanes(self, sink, throttle, on_written=self._on_written, on_fault=self.fail)
        self._tps: dict[int, TopicPartition] = {tp.partition: tp for tp in consumer.assignment()}
        self._read: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._on_the_way = 0
        self._fault: BaseException | None = None
        self._stopping = False
        self.counts = Written()

    # -- what the lanes ask

    def is_current(self, piece: Slice) -> bool:
        """Return True where the slice may still be written."""
        return not self._stopping and self._fault is None

    def mark_durable(self, tp: TP, next_offset: int) -> None:
        """Note that the database has everything below."""
        self._written[tp.partition] = next_offset

    def reseek(self, tp: TP) -> None:
        """End the fill: another process wrote the partition."""
        self.fail(
            HeldError(f"Another process writes {tp.topic}/{tp.partition} under our group", "stop it, then go on.")
        )

    def _on_written(self, _partition: int, written: Written, _seconds: float) -> None:
        counts = self.counts
        self.counts = Written(
            received=counts.received + written.received, applied=counts.applied + written.applied,
            skipped=counts.skipped + written.skipped, dead=counts.dead + written.dead,
        )  # fmt: skip

    # -- life

    def fail(self, error: BaseException) -> None:
        """End the fill with this fault."""
        self._fault = self._fault or error

    def on_done(self, task: asyncio.Task[None]) -> None:
        """End the fill where a task beside it failed."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def stop(self) -> None:
        """Drop what is not written yet, and end."""
        self._stopping = True

    async def close(self) -> None:
        """Stop, and wait a moment for the transactions that are under way."""
        self.stop()
        await self._drained(time.monotonic() + CLOSE_SECONDS)

    @property
    def wanted(self) -> bool:
        """Return True while nobody has asked to stop and nothing has failed."""
        return not self._stopping and self._fault is None

    def check(self) -> None:
        """Raise what went wrong, or FillStopped."""
        if self._fault is not None:
            raise self._fault
        if self._stopping:
            raise FillStopped

    async def start(self, begins: Mapping[int, PartitionStart]) -> None:
        """Go to the schema's positions, and where it has none to ``begins``. Raises MismatchError for a shorter log."""
        self._begins = begins
        tps = list(self._tps.values())
        starts, ends = await self._consumer.beginning_offsets(tps), await self._consumer.end_offsets(tps)
        defaults = {p: begins[p].offset if p in begins else 0 for p in self._tps}
        found = await self._sink.positions(set(self._tps), defaults)
        for partition, tp in self._tps.items():
            offset = found[partition]
            if offset > ends[tp]:
                raise rewound(TP(tp.topic, partition), offset, ends[tp])
            await self._go(tp, offset, starts[tp])

    async def _go(self, tp: TopicPartition, offset: int, log_start: int) -> None:
        """Read on at the offset, or at the log's start where that is later.

        Then what lies between is a gap, but for what the seed has the rows of.
        """
        begin = self._begins.get(tp.partition)
        covered = 0 if begin is None else min(begin.covered, log_start)
        if offset < covered:
            await self._passed(tp.partition, covered)
            await self._move(tp, offset, covered)
            self._tell(
                f"{tp.topic}/{tp.partition} lost the offsets {offset} to {covered - 1} (retention): what the live "
                "schema kept of them was copied already"
            )
            offset = covered
        if offset < log_start:
            await self._sink.jump(tp.partition, offset, log_start)
            self._tell(f"{tp.topic}/{tp.partition} lost the offsets {offset} to {log_start - 1} (retention): a gap")
        self._read[tp.partition] = self._written[tp.partition] = max(offset, log_start)
        self._consumer.seek(tp, self._read[tp.partition])

    @property
    def positions(self) -> dict[int, int]:
        """Return the offset up to which each partition is written."""
        return dict(self._written)

    # -- filling

    async def to(self, targets: Mapping[int, int], seconds: float | None = None) -> bool:
        """Write everything below the targets; whether that was done, and within ``seconds``.

        Raises FillStopped, HeldError, and what the sink raises.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        todo = {p: target for p, target in targets.items() if self._read[p] < target}
        self._consumer.pause(*(tp for p, tp in self._tps.items() if p not in todo))
        self._consumer.resume(*(self._tps[p] for p in todo))
        progress = Progress(sum(target - self._read[p] for p, target in todo.items()), self._tell)
        while todo:
            self.check()
            done = set()
            if deadline is not None and time.monotonic() > deadline:
                return False
            await self._throttle.wait_for_memory(lambda: self.wanted)
            for partition, messages in (await self._fetch(todo)).items():
                await self._submit(partition, [m for m in messages if m.offset < todo[partition]])
                if messages[-1].offset >= todo[partition]:  # there is nothing below the target any more
                    self._consumer.seek(self._tps[partition], self._read[partition])
                    done.add(partition)
            done |= {p for p in todo.keys() - done if await self._position(p) >= todo[p]}
            for partition in done:
                self._consumer.pause(self._tps[partition])
                del todo[partition]
            progress.show(progress.total - sum(target - self._read[p] for p, target in todo.items()))
        if not await self._wait_written(deadline):
            return False
        await self._bridge(targets)
        return True

    async def _bridge(self, targets: Mapping[int, int]) -> None:
        """Move the positions over the holes in front of the targets; all that was read is written."""
        for partition, target in targets.items():
            if (offset := self._read[partition]) < target:
                await self._move(self._tps[partition], offset, target)
                self._read[partition] = self._written[partition] = target

    async def _move(self, tp: TopicPartition, offset: int, to: int) -> None:
        """Move the database's position without writing anything. Raises HeldError, and what the sink raises."""
        try:
            await self._sink.write(tp.partition, offset, to, (), lambda: self.wanted)
        except Fenced:
            self.check()
            self.reseek(TP(tp.topic, tp.partition))
            self.check()

    async def _position(self, partition: int) -> int:
        """Return the offset behind what was read, and behind a hole after it."""
        return max(self._read[partition], int(await self._consumer.position(self._tps[partition])))

    async def _fetch(self, todo: Mapping[int, int]) -> dict[int, list[Any]]:
        try:
            found = await self._consumer.getmany(*(self._tps[p] for p in todo), timeout_ms=500, max_records=CHUNK)
        except OffsetOutOfRangeError:
            await self._wait_written(None)
            starts = await self._consumer.beginning_offsets([self._tps[p] for p in todo])
            for tp, start in starts.items():
                await self._go(tp, self._read[tp.partition], start)
            return {}
        return {tp.partition: messages for tp, messages in found.items() if messages}

    async def _submit(self, partition: int, messages: list[Any]) -> None:
        tp = TP(self._tps[partition].topic, partition)
        for records in split(messages):
            self.check()
            # A slice begins where the one before ended: a hole between them is bridged by its base.
            piece = Slice(tp, self._read[partition], records, 0)
            self._read[partition] = piece.next_offset
            self._on_the_way += 1
            await self._lanes.submit(_Event(piece, self._acked))

    def _acked(self) -> None:
        self._on_the_way -= 1

    async def _wait_written(self, deadline: float | None) -> bool:
        """Wait until what was read is written. Return False after the deadline. Raises what went wrong."""
        if not await self._drained(deadline):
            return False
        self.check()
        return True

    async def _drained(self, deadline: float | None) -> bool:
        while self._on_the_way:
            if deadline is not None and time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK)
        return True
