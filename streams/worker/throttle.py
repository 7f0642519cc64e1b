"""The time at which the next batch may start, and its size: pace, concurrency, memory and idleness.

The decisions are small classes that are told the time (``Pacer``, ``IdleJudge``, and ``MemoryJudge`` of
``memory_watch.py``); ``Throttle`` feeds them and waits. It knows nothing of slices, Kafka or Postgres. A wait ends in
the moment when it may, and asks ``still_ours`` ten times a second.
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

from streams.resources.idleness import NOT_KNOWN, IdleJudge, MachineSample, reason
from streams.resources.in_flight import InFlightBudget
from streams.resources.machine import SAMPLE_SECONDS, Machine
from streams.resources.memory_budgets import container_says, effective_memory_limit, worker_budgets
from streams.resources.memory_watch import MemoryWatch
from streams.settings import Settings
from streams.status.process import MachineUse, Mode, machine_use

log = logging.getLogger(__name__)

#: Most records of one transaction: more gains nothing and takes memory.
LARGEST_BATCH: Final = 4000
#: While memory is short: records a transaction.
SMALLEST_BATCH: Final = 100
#: Longest time between two checks that the slice is still ours, in seconds.
ASK_SECONDS: Final = 0.1
#: The network's rate, in events a second.
NETWORK_RATE: Final = (300, 600)


class Pacer:
    """An exact pacer: ``batch_size`` events a batch at most, ``delay`` seconds from a batch's end to the next start.

    A batch may be made of several transactions (of several partitions). It has ended when none of them is running, and
    what is left of it may be taken until the next one may start.
    """

    def __init__(self, batch_size: int, delay: float) -> None:
        self.batch_size = batch_size
        self.delay = delay
        self._left = 0
        self._running = 0
        self._ended = -math.inf

    @property
    def rate(self) -> float:
        """Events a second at most; infinite without a delay."""
        return self.batch_size / self.delay if self.delay else math.inf

    def wait(self, now: float) -> float:
        """Return the seconds until ``acquire`` may give some; infinite while only the end of a transaction can help."""
        if self._left:
            return 0.0
        if self._running and self.delay:
            return math.inf
        return max(0.0, self._ended + self.delay - now)

    def acquire(self, now: float, want: int, free: bool = False) -> int:
        """Return how many events may start now, of ``want``: 0 if it is too early. ``free``: neither wait nor count.

        Each call that gives something needs an ``end``.
        """
        assert want > 0
        if free:
            self._running += 1
            return want
        if self.wait(now) > 0:
            return 0
        if not self.delay or (not self._running and now >= self._ended + self.delay):
            self._left = self.batch_size  # a new batch; the rest of the one before is forfeited
        given = min(want, self._left)
        self._left -= given
        self._running += 1
        return given

    def end(self, now: float) -> None:
        """Note the end of a transaction, well or not."""
        self._running -= 1
        self._ended = now


class Throttle:
    """The throttle of one worker process. ``start`` it on the event loop; ``close`` it.

    ``transactions`` are under way now, ``transactions_max`` were at most: never more than MAX_CONCURRENT.
    """

    def __init__(self, settings: Settings, machine: Machine, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._settings = settings
        self._machine = machine
        self._pacer = Pacer(settings.backfill_batch_size, settings.backfill_batch_delay_ms / 1000)
        self._idle = IdleJudge()
        self._seen: MachineSample | None = None
        limit = effective_memory_limit(settings)
        self.memory = MemoryWatch(limit, machine.rss, InFlightBudget.of_worker(worker_budgets(limit)), clock)
        self._use_idle = settings.backfill_use_idle
        self._unlimited = self._pacer.delay == 0 and self._pacer.batch_size >= LARGEST_BATCH
        self._slots = asyncio.Semaphore(settings.backfill_max_concurrent)
        self._queue: deque[object] = deque()
        self._changed = asyncio.Event()
        self._paused = False
        self._sampler: asyncio.Task[None] | None = None
        self._gated = False
        self.transactions = self.transactions_max = 0

    # -- life

    async def start(self) -> None:
        """Log what the settings allow, and begin to look at memory and machine."""
        hopeless = not self._use_idle and not self._unlimited and self._pacer.rate <= NETWORK_RATE[0]
        level = logging.WARNING if hopeless else logging.INFO
        log.log(level, "[BACKFILL] Pace: %s", describe(self._pacer, self._use_idle))
        if (sentence := container_says(self._settings)) is not None:
            log.warning("[BACKFILL] Memory: %s", sentence)
        self._sampler = asyncio.create_task(self._sample())

    async def close(self) -> None:
        """Stop looking. Waits end by ``still_ours``."""
        if self._sampler is not None:
            self._sampler.cancel()
            with suppress(asyncio.CancelledError):
                await self._sampler

    # -- what people see

    @property
    def is_waiting(self) -> bool:
        """True while work stands still because of the throttle."""
        return bool(self._queue) or self._gated or self._paused or self.memory.state == "pause"

    @property
    def machine(self) -> MachineUse | None:
        """The use of the machine by others; None before the first look at it."""
        return None if self._seen is None else machine_use(self._seen, self._idle)

    @property
    def mode(self) -> Mode:
        """The reason for the present pace, in a word or two."""
        if self._paused:
            return Mode.PAUSED
        if self.memory.state != "go":
            return Mode.MEMORY if self.memory.state == "pause" else Mode.SMALL_BATCHES
        return Mode.WHOLE_SLICES if self._is_free else Mode.PACED

    @property
    def why(self) -> str:
        """The reason for the present pace, in a sentence."""
        mode = self.mode
        if mode is Mode.PAUSED:
            return "paused until the command `resume`"
        if mode in (Mode.MEMORY, Mode.SMALL_BATCHES):
            return self.memory.says
        if mode is Mode.WHOLE_SLICES:
            return "the settings have no limit" if self._unlimited else "the machine is idle but for us"
        because = "BACKFILL_USE_IDLE is off"
        if self._use_idle:
            because = reason(self._seen) if self._seen is not None else NOT_KNOWN
        delay, due = self._pacer.delay, self._pacer.wait(self._clock())
        if self._queue and 0 < due < math.inf:
            return f"waiting {due:.1f} s of the {delay:g} s delay: {because}"
        return f"{self._pacer.batch_size} events every {delay:g} s: {because}"

    # -- how large, and when

    @property
    def paused(self) -> bool:
        """True while the command ``pause`` lets nothing start. Transactions under way end; partitions are kept."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self._wake()

    @property
    def _is_free(self) -> bool:
        """True while the delay does not count: the machine is idle, or the settings have no limit."""
        return self._unlimited or (self._use_idle and self._idle.idle)

    @property
    def is_whole(self) -> bool:
        """True while batches are whole slices that do not wait."""
        return self._is_free and self.memory.state == "go" and not self._paused

    @property
    def largest(self) -> int:
        """The most events that one transaction may have now."""
        if self.memory.state != "go":
            return min(self._pacer.batch_size, SMALLEST_BATCH)
        return LARGEST_BATCH if self._is_free else self._pacer.batch_size

    async def acquire(self, want: int, still_ours: Callable[[], bool]) -> int:
        """Wait until a batch may start; return how many of ``want`` events may be in it, 0 when it is no longer ours.

        In the order of asking. A result above 0 needs an ``end`` after the transaction.
        """
        ticket = object()
        self._queue.append(ticket)
        try:
            while still_ours():
                is_next = self._queue[0] is ticket and not self._paused
                if is_next and (given := self._try(want)):
                    return given
                await self._until_changed(self._pacer.wait(self._clock()) if is_next else math.inf)
            return 0
        finally:
            self._queue.remove(ticket)
            self._wake()

    def _try(self, want: int) -> int:
        return self._pacer.acquire(self._clock(), min(want, self.largest), self._is_free)

    def end(self) -> None:
        """Note the end of a transaction that ``acquire`` allowed."""
        self._pacer.end(self._clock())
        self._wake()

    @asynccontextmanager
    async def slot(self, still_ours: Callable[[], bool]) -> AsyncIterator[None]:
        """Hold one of MAX_CONCURRENT places for a transaction. While paused it waits, as long as the work is ours."""
        async with self._slots:
            while self._paused and still_ours():
                await self._until_changed(math.inf)
            self.transactions += 1
            self.transactions_max = max(self.transactions_max, self.transactions)
            try:
                yield
            finally:
                self.transactions -= 1

    async def _until_changed(self, seconds: float) -> None:
        """Wait so many seconds, or until something changes, or until ``still_ours`` must be asked again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(ASK_SECONDS, seconds)):
                await self._changed.wait()

    def _wake(self) -> None:
        """Let all who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # -- memory

    async def wait_for_memory(self, wanted: Callable[[], bool]) -> None:
        """Wait while memory is short. The caller is about to pull more, and holds no slice."""
        try:
            while self.memory.state == "pause" and wanted():
                self._gated = True
                await asyncio.sleep(ASK_SECONDS)
        finally:
            self._gated = False

    async def _sample(self) -> None:
        while True:
            self._look_at_machine(await asyncio.to_thread(self._machine.sample))
            self.memory.look()
            await asyncio.sleep(SAMPLE_SECONDS)

    def _look_at_machine(self, sample: MachineSample) -> None:
        was, self._seen = self._idle.idle, sample
        if self._idle.sample(sample) != was and self._use_idle and not self._unlimited:
            log.info(
                "[BACKFILL] The machine is %s, %s: %s",
                "busy" if was else "idle", reason(sample), "pacing" if was else "whole slices, no waits",
            )  # fmt: skip
            self._wake()


def describe(pacer: Pacer, use_idle: bool) -> str:
    """Return a sentence: the rate that the settings allow, and if that can ever catch up with the network."""
    low, high = NETWORK_RATE
    if pacer.delay == 0:
        return f"batches of {pacer.batch_size} events without a delay: as fast as it goes."
    rate = pacer.rate
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
