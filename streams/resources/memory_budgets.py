"""Memory bounded by construction: what the limit allows each kind of bytes in flight, what is there, what RSS demands.

``worker_budgets`` and ``ingest_budgets`` divide BACKFILL_MAX_MEMORY_MB (pure); an ``Account`` counts what is in flight
against them, once a slice or batch, never once an event; a ``MemoryWatch`` looks at RSS besides, once a second, because
no count is the truth. All constants about sizes stand here, each with its reason.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal

from streams.errors import SettingsError

log = logging.getLogger(__name__)

MB: Final = 1 << 20

# -- what things take, measured (benchmarks/memory.py and docs/performance.md say how)

#: RSS of a process that has started and does nothing: what the budgets leave alone.
WORKER_AT_REST: Final = 110 * MB
INGEST_AT_REST: Final = 65 * MB
#: What still comes between the check at the start and being at rest: Faust's services, connections, caches.
WORKER_GROWTH: Final = 15 * MB
INGEST_GROWTH: Final = 8 * MB
#: The largest message of the topic (max.message.bytes), and the largest frame of the protocol.
LARGEST_MESSAGE: Final = 8 * MB
LARGEST_FRAME: Final = 5 * MB
#: A transaction's values in memory, besides the slice itself, as a multiple of their bytes: a str takes 1 to 4 bytes a
#: character and keeps its UTF-8 (1), asyncpg's message is a copy (1), what the socket has not taken yet another (1).
STAGED_FACTOR: Final = 7
#: A fetched batch: the answer, the partition's part of it, and the batch that is being unpacked.
FETCH_FACTOR: Final = 3
#: A frame on its way: the websocket's buffer, the frame, its blocks, its messages as JSON (up to twice as long), the
#: producer's batch, its compressed form and the request.
FRAME_FACTOR: Final = 10
#: What a record takes besides its key and value: aiokafka's object, the offsets, the bytes objects' own heads.
RECORD_OVERHEAD: Final = 400

#: Of a container's memory our processes may have so much: the rest is the page cache's, and a peak's.
CONTAINER_PERCENT: Final = 90

# -- the least that can go through at all, while nothing can be freed

SMALLEST_IN_FLIGHT: Final = 1 * MB

Kind = Literal["fetched", "slices", "staged", "unacknowledged"]
State = Literal["go", "pause", "small"]


@dataclass(frozen=True, slots=True)
class WorkerBudgets:
    """Bytes for the ways of a slice. More than the caps gains no speed."""

    fetched: int
    """Compressed batches that aiokafka holds."""
    slices: int
    """Records taken from it and not yet in the database: in Faust's queue, in lanes."""
    staged: int
    """Values of all transactions under way. One that is larger goes alone."""
    batch: int
    """Values of one transaction of merged slices."""


@dataclass(frozen=True, slots=True)
class IngestBudgets:
    """What an ingest may hold."""

    unacknowledged: int
    """Bytes of events that Kafka has not acknowledged, open batches among them."""
    frame: int
    """The largest websocket message that is taken in."""
    dids: int
    """DIDs whose partition is remembered, at about 300 bytes."""


def worker_budgets(limit: int) -> WorkerBudgets:
    """A worker's shares of ``limit``, of what is left when it is at rest.

    At the worst 3/20 are fetched, 4/20 are slices and 9/20 are transactions; what is left is for one largest message
    that goes over each of them.
    """
    free = max(limit - WORKER_AT_REST, 16 * MB)
    return WorkerBudgets(
        fetched=_within(free // 20, 1 * MB, 8 * MB),
        slices=_within(free // 5, 4 * MB, 48 * MB),
        staged=_within(free * 9 // 20 // STAGED_FACTOR, 1 * MB, 64 * MB),
        batch=_within(free // 32, 1 * MB, 8 * MB),
    )


def ingest_budgets(limit: int) -> IngestBudgets:
    """An ingest's shares of ``limit``. A batch stands up to three times: as messages, as a batch and compressed."""
    free = max(limit - INGEST_AT_REST, 16 * MB)
    return IngestBudgets(
        unacknowledged=_within(free // 12, 4 * MB, 64 * MB),
        frame=_within(free // 4, 6 * MB, 32 * MB),
        dids=min(free // 6 // 300, 100_000),
    )


def _within(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


class LimitError(SettingsError):
    """Too little memory for a process. ``why`` and ``mend`` are the two halves of its sentence."""

    def __init__(self, why: str, mend: str) -> None:
        super().__init__(f"{why}. {mend[0].upper()}{mend[1:]}.")
        self.why, self.mend = why, mend


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """How many bytes a process may have: ``setting``, or less where it is in a container that has less.

    ``container`` is the container's own limit, or None; so many ``processes`` of ours share it.
    """

    setting: int
    container: int | None = None
    processes: int = 1

    @property
    def nbytes(self) -> int:
        """What holds."""
        if self.container is None:
            return self.setting
        return min(self.setting, self.container * CONTAINER_PERCENT // (100 * self.processes))

    @property
    def is_containers(self) -> bool:
        """Whether it is the container's limit that holds, and not the setting."""
        return self.nbytes < self.setting

    def container_for(self, nbytes: int) -> int:
        """The limit that a container needs, for each process of ours to have so many bytes."""
        return -(-nbytes * 100 * self.processes // CONTAINER_PERCENT)


def check_limit(limit: MemoryLimit, rss: int, who: Literal["worker", "ingest"]) -> None:
    """Refuse a limit under which the largest message or frame cannot pass. ``rss``: now, at the start."""
    if who == "worker":
        rest, largest = rss + WORKER_GROWTH, LARGEST_MESSAGE
        least, what = rest + largest * (1 + FETCH_FACTOR + STAGED_FACTOR), "message of the topic"
    else:
        rest, largest = rss + INGEST_GROWTH, LARGEST_FRAME
        least, what = rest + largest * FRAME_FACTOR, "frame"
    if limit.nbytes >= least:
        return
    needs = (
        f"it takes {rest // MB} MB at rest, and one largest {what} of {largest // MB} MB takes "
        f"{(least - rest) // MB} MB on its way"
    )
    if limit.container is None or not limit.is_containers:
        raise LimitError(
            f"BACKFILL_MAX_MEMORY_MB: {limit.nbytes // MB} MB are not enough for the {who}: {needs}",
            f"set it to {_megabytes(least)} or more",
        )
    also = f", and set BACKFILL_MAX_MEMORY_MB to {_megabytes(least)} or more" if limit.setting < least else ""
    shared = ", half of it for the worker and half for the ingest" if limit.processes == 2 else ""
    raise LimitError(
        f"The container has {limit.container // MB} MB, of which {CONTAINER_PERCENT} % are ours{shared}: "
        f"{limit.nbytes // MB} MB are not enough for the {who}: {needs}",
        f"give the container {_megabytes(limit.container_for(least))} MB or more "
        f"(docker-compose: CONTAINER_MEMORY_MB){also}",
    )


def _megabytes(nbytes: int) -> int:
    return -(-nbytes // MB)


# -- the account


class Hold:
    """Bytes that count until this object is gone: what is counted keeps it, so the count cannot outlive the bytes."""

    __slots__ = ("_given", "nbytes")

    def __init__(self, given: deque[int], nbytes: int) -> None:
        self._given, self.nbytes = given, nbytes

    def __del__(self) -> None:
        self._given.append(self.nbytes)  # in any thread, at any instruction: nothing but this


class Account:
    """The bytes in flight, by kind, against the budgets. ``peak`` is the most that they were."""

    def __init__(self, budgets: Mapping[Kind, int]) -> None:
        self.budgets = dict(budgets)
        self._bytes: dict[Kind, int] = dict.fromkeys(budgets, 0)
        self._given: dict[Kind, deque[int]] = {kind: deque() for kind in budgets}
        self.peak = 0
        self.state: State = "go"

    @classmethod
    def of_worker(cls, budgets: WorkerBudgets) -> Account:
        """A worker's."""
        return cls({"fetched": budgets.fetched, "slices": budgets.slices, "staged": budgets.staged})

    @classmethod
    def of_ingest(cls, budgets: IngestBudgets) -> Account:
        """An ingest's."""
        return cls({"unacknowledged": budgets.unacknowledged})

    def __getitem__(self, kind: Kind) -> int:
        """The bytes of this kind now."""
        given = self._given[kind]
        while given:
            self._bytes[kind] -= given.popleft()
        return self._bytes[kind]

    def hold(self, kind: Kind, nbytes: int) -> Hold:
        """Count so many bytes until the hold is dropped. On the event loop only."""
        self.add(kind, nbytes)
        return Hold(self._given[kind], nbytes)

    def add(self, kind: Kind, nbytes: int) -> None:
        """So many more, or less. On the event loop only."""
        self._bytes[kind] += nbytes
        if nbytes > 0:
            self.peak = max(self.peak, self.in_flight)

    def set(self, kind: Kind, nbytes: int) -> None:
        """So many now: for one who counts by himself, in any thread."""
        self._bytes[kind] = nbytes

    @property
    def in_flight(self) -> int:
        """All bytes in flight."""
        return sum(self[kind] for kind in self._bytes)

    @property
    def budget(self) -> int:
        """All that may be in flight."""
        return sum(self.budgets.values())

    def room(self, kind: Kind) -> int:
        """So many bytes of this kind may still be taken: 0 while memory is short, little while none can be freed."""
        if self.state == "pause":
            return 0
        budget = self.budgets[kind] if self.state == "go" else min(self.budgets[kind], SMALLEST_IN_FLIGHT)
        return max(0, budget - self[kind])


class Gate:
    """Lets transactions in while their values together are within the budget, in the order of asking."""

    def __init__(self, account: Account, kind: Kind = "staged") -> None:
        self._account, self._kind = account, kind
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def entered(self, nbytes: int) -> AsyncIterator[None]:
        """Wait until there is room. One that is larger than all the room goes alone."""
        account, kind = self._account, self._kind
        async with self._turn:
            while account[kind] and account[kind] + nbytes > account.budgets[kind]:
                self._left.clear()
                await self._left.wait()
            account.add(kind, nbytes)
        try:
            yield
        finally:
            account.add(kind, -nbytes)
            self._left.set()


# -- RSS


class MemoryJudge:
    """What to do at so much RSS: ``go``, ``pause``, or ``small``: go on with the smallest batches.

    Above the limit it pauses until RSS is below RESUME of it. A pause of PATIENCE seconds has freed nothing that can be
    freed: then work goes on with the smallest batches, until RSS is below again.
    """

    RESUME, PATIENCE = 0.9, 30.0

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.state: State = "go"
        self._since = 0.0

    def sample(self, now: float, rss: int) -> State:
        """Take in RSS in bytes; returns the judgement."""
        if self.state == "go":
            if rss > self.limit:
                self.state, self._since = "pause", now
        elif rss < self.limit * self.RESUME:
            self.state = "go"
        elif now - self._since >= self.PATIENCE:
            self.state = "small"
        return self.state


class MemoryWatch:
    """Looks at RSS, frees what can be freed, tells the account, says it once."""

    #: Seconds between two attempts to free something: a collection of everything takes a tenth of a second.
    RELEASE_EVERY: Final = 5.0

    def __init__(
        self, limit: int, rss: Callable[[], int], account: Account, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._judge = MemoryJudge(limit)
        self._rss, self._clock = rss, clock
        self._released = float("-inf")
        self.account = account
        self.rss = 0

    @property
    def limit(self) -> int:
        """Most bytes of RSS."""
        return self._judge.limit

    @property
    def state(self) -> State:
        """What to do."""
        return self._judge.state

    def look(self) -> bool:
        """Look once; whether the judgement has changed."""
        now = self._clock()
        self.rss = self._rss()
        if (self.rss > self.limit or self.state == "pause") and now - self._released >= self.RELEASE_EVERY:
            release_memory()
            self.rss, self._released = self._rss(), now
        was = self._judge.state
        state = self.account.state = self._judge.sample(now, self.rss)
        if state != was:
            log.log(logging.INFO if state == "go" else logging.WARNING, "[BACKFILL] Memory: %s", self.says)
        return state != was

    @property
    def says(self) -> str:
        """What is done, and why."""
        line = memory_line(self.rss, self.limit)
        if self.state == "pause":
            return f"{line}: pausing until some is freed"
        if self.state == "small":
            return f"{line}: nothing was freed in {MemoryJudge.PATIENCE:.0f} s: going on with the smallest batches"
        return f"{line}: going on"


def memory_line(rss: int, limit: int) -> str:
    """``245MB / 512MB limit``."""
    return f"{rss >> 20}MB / {limit >> 20}MB limit"


#: mallopt(3)'s names. A threshold that is set no longer grows by itself: a freed buffer of a megabyte goes back to the
#: system at once, where by default the allocator would keep up to 32 MB for the next. It is above asyncio's 256 KB for
#: each read from a socket, and the heap is trimmed by megabytes only: else each read is a call to the system more.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def tune_allocator() -> None:
    """Ask the C library to give large blocks back at once, and not to keep an arena a thread. glibc only."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 * MB)
        libc.mallopt(_M_TRIM_THRESHOLD, 4 * MB)
        libc.mallopt(_M_ARENA_MAX, 2)


def settle_memory() -> None:
    """After the start: what is there now stays, and no later collection looks at it (a tenth of a second each)."""
    release_memory()
    gc.freeze()


def release_memory() -> None:
    """Give back what can be given back: cycles, and the allocator's free pages."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
