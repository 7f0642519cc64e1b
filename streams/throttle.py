"""When may the next batch start, and how large may it be: pace, concurrency, memory and idleness.

The decisions are small classes that are told the time (``Pacer``, ``IdleJudge``, and ``MemoryJudge`` of ``memory.py``);
``Throttle`` feeds them and waits. It knows nothing of slices, Kafka or Postgres. Every wait asks ``still_ours`` ten
times a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from streams.memory import Account, MemoryWatch, memory_limit, worker_budgets
from streams.ops.machine import Machine
from streams.settings import Settings

log = logging.getLogger(__name__)

#: Most records of one transaction: more gains nothing and takes memory.
LARGEST_BATCH: Final = 4000
#: While memory is short: records a transaction.
SMALLEST_BATCH: Final = 100
#: Seconds between two looks at the memory and at the machine.
SAMPLE_SECONDS: Final = 1.0
#: Longest time between two questions whether the slice is still ours, in seconds.
ASK_SECONDS: Final = 0.1
#: What the network makes, in events a second.
NETWORK_RATE: Final = (300, 600)


class Pacer:
    """Exact pacing: at most ``batch_size`` events a batch, and ``delay`` seconds from a batch's end to the next start.

    A batch may be made of several transactions (of several partitions). It has ended when none of them is running, and
    what is left of it may be taken until the next one may start.
    """

    def __init__(self, batch_size: int, delay: float) -> None:
        self.batch_size = batch_size
        self.delay = delay
        self._left = 0
        self._running = 0
        self._ended = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until ``take`` may give something; infinite while only the end of a transaction can help."""
        if self._left:
            return 0.0
        if self._running and self.delay:
            return math.inf
        return max(0.0, self._ended + self.delay - now)

    def take(self, now: float, want: int, free: bool = False) -> int:
        """So many events may start now: at most ``want``, 0 if it is too early. ``free``: do not wait, nor count.

        Each take that gives something needs an ``end``.
        """
        assert want > 0
        if free:
            self._running += 1
            return want
        if self.wait(now) > 0:
            return 0
        if not self.delay or (not self._running and now >= self._ended + self.delay):
            self._left = self.batch_size  # a new batch; what is left of the one before is forfeited
        given = min(want, self._left)
        self._left -= given
        self._running += 1
        return given

    def end(self, now: float) -> None:
        """A transaction has ended, well or not."""
        self._running -= 1
        self._ended = now


class IdleJudge:
    """Whether the machine is idle but for us, from the share of its cores that others use. With hysteresis."""

    #: Others use more than BUSY of all cores for TO_BUSY samples: busy. Less than IDLE for TO_IDLE samples: idle.
    BUSY, IDLE, TO_BUSY, TO_IDLE = 0.20, 0.10, 2, 3

    def __init__(self) -> None:
        self.idle = False
        self._against = 0

    def sample(self, others: float) -> bool:
        """Take in one sample (0 to 1 of all cores); returns the judgement."""
        against = others > self.BUSY if self.idle else others < self.IDLE
        self._against = self._against + 1 if against else 0
        if self._against >= (self.TO_BUSY if self.idle else self.TO_IDLE):
            self.idle, self._against = not self.idle, 0
        return self.idle


class Throttle:
    """The throttle of one worker process. ``start`` it on the event loop; ``close`` it."""

    def __init__(self, settings: Settings, machine: Machine, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._machine = machine
        self._pacer = Pacer(settings.backfill_batch_size, settings.backfill_batch_delay_ms / 1000)
        self._idle = IdleJudge()
        limit = memory_limit(settings)
        self.memory = MemoryWatch(limit, machine.rss, Account.of_worker(worker_budgets(limit)), clock)
        self._use_idle = settings.backfill_use_idle
        self._unlimited = self._pacer.delay == 0 and self._pacer.batch_size >= LARGEST_BATCH
        self._slots = asyncio.Semaphore(settings.backfill_max_concurrent)
        self._queue: deque[object] = deque()
        self._sampler: asyncio.Task[None] | None = None
        self._gated = False

    # -- life

    async def start(self) -> None:
        """Say what the settings allow, and begin to look at memory and machine."""
        log.info("[BACKFILL] Pace: %s", describe(self._pacer, self._use_idle))
        self._sampler = asyncio.create_task(self._sample())

    async def close(self) -> None:
        """Look no longer. Waits end by ``still_ours``."""
        if self._sampler is not None:
            self._sampler.cancel()
            with suppress(asyncio.CancelledError):
                await self._sampler

    @property
    def is_waiting(self) -> bool:
        """Whether work stands still because the throttle wants it to."""
        return bool(self._queue) or self._gated or self.memory.state == "pause"

    # -- how large, and when

    @property
    def is_whole(self) -> bool:
        """Whether batches are whole slices that do not wait: the machine is idle, or the settings have no limit."""
        return self.memory.state == "go" and (self._unlimited or (self._use_idle and self._idle.idle))

    @property
    def largest(self) -> int:
        """Most events that one transaction may have now."""
        if self.memory.state != "go":
            return min(self._pacer.batch_size, SMALLEST_BATCH)
        return LARGEST_BATCH if self.is_whole else self._pacer.batch_size

    async def take(self, want: int, still_ours: Callable[[], bool]) -> int:
        """Wait until a batch may start; returns how many of ``want`` events may be in it, 0 when no longer ours.

        In the order of asking. A result above 0 needs an ``end`` after the transaction.
        """
        ticket = object()
        self._queue.append(ticket)
        try:
            while still_ours():
                if self._queue[0] is ticket and (given := self._try(want)):
                    return given
                await asyncio.sleep(min(ASK_SECONDS, max(self._pacer.wait(self._clock()), 0.001)))
            return 0
        finally:
            self._queue.remove(ticket)

    def _try(self, want: int) -> int:
        free = self._unlimited or (self._use_idle and self._idle.idle)
        return self._pacer.take(self._clock(), min(want, self.largest), free)

    def end(self) -> None:
        """The transaction of a ``take`` has ended."""
        self._pacer.end(self._clock())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of MAX_CONCURRENT places for a transaction."""
        async with self._slots:
            yield

    # -- memory

    async def room(self, wanted: Callable[[], bool]) -> None:
        """Wait while memory is short: called before more is pulled, and never with a slice in hand."""
        try:
            while self.memory.state == "pause" and wanted():
                self._gated = True
                await asyncio.sleep(ASK_SECONDS)
        finally:
            self._gated = False

    async def _sample(self) -> None:
        while True:
            others = await asyncio.to_thread(self._machine.sample)
            if self._use_idle and not self._unlimited:
                self._look_at_machine(others)
            self.memory.look()
            await asyncio.sleep(SAMPLE_SECONDS)

    def _look_at_machine(self, others: float) -> None:
        was = self._idle.idle
        if self._idle.sample(others) != was:
            log.info(
                "[BACKFILL] The machine is %s (others use %.0f%% of it): %s",
                "busy" if was else "idle", others * 100, "pacing" if was else "whole slices, no waits",
            )  # fmt: skip


def describe(pacer: Pacer, use_idle: bool) -> str:
    """What rate the settings allow, and whether that can ever catch up with the network."""
    low, high = NETWORK_RATE
    if pacer.delay == 0:
        return f"batches of {pacer.batch_size} events without a delay: as fast as it goes."
    rate = pacer.batch_size / pacer.delay
    text = f"{pacer.batch_size} events every {pacer.delay * 1000:.0f} ms: at most {rate:,.1f} events/s"
    if use_idle:
        text += " while the machine is busy with other work, no limit while it is idle"
    if rate <= low:
        verdict = "can never catch up"
    elif rate <= high:
        verdict = "may not catch up"
    else:
        verdict = "can catch up"
    return f"{text}. The network makes {low} to {high} events/s: that {'rate ' if use_idle else ''}{verdict} with it."
