"""The bytes that are on their way, counted against the budgets: once a slice or batch, never once an event."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from streams.resources.memory_budgets import SMALLEST_IN_FLIGHT, IngestBudgets, WorkerBudgets

Kind = Literal["fetched", "slices", "staged", "unacknowledged"]
State = Literal["go", "pause", "small"]


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
