"""The bytes that are on their way, counted against the budgets: once a slice or batch, never once an event."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from streams.resources.memory_budgets import SMALLEST_IN_FLIGHT, IngestBudgets, WorkerBudgets

Kind = Literal["fetched", "slices", "staged", "unacknowledged"]
#: Go on; pull nothing; or go on with the smallest batches.
MemoryState = Literal["go", "pause", "small"]


class InFlight:
    """Bytes that count until this object is gone: what is counted keeps it, so the count cannot outlive the bytes."""

    __slots__ = ("_given", "nbytes")

    def __init__(self, given: deque[int], nbytes: int) -> None:
        self._given, self.nbytes = given, nbytes

    def __del__(self) -> None:
        self._given.append(self.nbytes)  # in any thread, at any instruction: do nothing else


class InFlightBudget:
    """The bytes in flight, by kind, against their limits. ``peak`` is the most that they were."""

    def __init__(self, limits: Mapping[Kind, int]) -> None:
        self.limits = dict(limits)
        self._bytes: dict[Kind, int] = dict.fromkeys(limits, 0)
        self._given: dict[Kind, deque[int]] = {kind: deque() for kind in limits}
        self.peak = 0
        self.state: MemoryState = "go"

    @classmethod
    def of_worker(cls, budgets: WorkerBudgets) -> InFlightBudget:
        """Return a worker's budget."""
        return cls({"fetched": budgets.fetched, "slices": budgets.slices, "staged": budgets.staged})

    @classmethod
    def of_ingest(cls, budgets: IngestBudgets) -> InFlightBudget:
        """Return an ingest's budget."""
        return cls({"unacknowledged": budgets.unacknowledged})

    def __getitem__(self, kind: Kind) -> int:
        """Return the bytes of this kind now."""
        given = self._given[kind]
        while given:
            self._bytes[kind] -= given.popleft()
        return self._bytes[kind]

    def count(self, kind: Kind, nbytes: int) -> InFlight:
        """Count bytes until the object that this returns is dropped. On the event loop only."""
        self.add(kind, nbytes)
        return InFlight(self._given[kind], nbytes)

    def add(self, kind: Kind, nbytes: int) -> None:
        """Count more bytes, or fewer. On the event loop only."""
        self._bytes[kind] += nbytes
        if nbytes > 0:
            self.peak = max(self.peak, self.in_flight)

    def set(self, kind: Kind, nbytes: int) -> None:
        """Set the count. For callers that do their own counting, from any thread."""
        self._bytes[kind] = nbytes

    @property
    def in_flight(self) -> int:
        """All bytes in flight."""
        return sum(self[kind] for kind in self._bytes)

    @property
    def total(self) -> int:
        """All bytes that may be in flight."""
        return sum(self.limits.values())

    def remaining(self, kind: Kind) -> int:
        """Return how many bytes of this kind may still be taken.

        0 while memory is short; few while none can be freed.
        """
        if self.state == "pause":
            return 0
        limit = self.limits[kind] if self.state == "go" else min(self.limits[kind], SMALLEST_IN_FLIGHT)
        return max(0, limit - self[kind])


class Gate:
    """A gate that lets transactions in while all their values are within the budget, in the order of asking."""

    def __init__(self, budget: InFlightBudget, kind: Kind = "staged") -> None:
        self._budget, self._kind = budget, kind
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def entered(self, nbytes: int) -> AsyncIterator[None]:
        """Wait until the bytes fit. A transaction that is larger than the limit goes alone."""
        budget, kind = self._budget, self._kind
        async with self._turn:
            while budget[kind] and budget[kind] + nbytes > budget.limits[kind]:
                self._left.clear()
                await self._left.wait()
            budget.add(kind, nbytes)
        try:
            yield
        finally:
            budget.add(kind, -nbytes)
            self._left.set()
