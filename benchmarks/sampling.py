"""CPU and peak memory of processes while something runs, sampled in the background of the benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

from benchmarks.cpu import CpuLedger, by_postgres_kind
from benchmarks.procfs import postgres_kind, read_memory, read_title, sample_family

#: Seconds between samples.
EVERY: Final = 0.1
#: The name under which a Postgres is sampled: its children are told apart.
POSTGRES: Final = "postgres"


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes spent, by name: CPU seconds, Postgres' by kind; bytes of memory, at first and at its peak."""

    cpu: dict[str, float] = field(default_factory=dict)
    postgres: dict[str, float] = field(default_factory=dict)
    rest: dict[str, int] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)


class Sampler:
    """Samples families of processes, each by its root's pid, from the entry of the context until its end.

    ``apart``: pids of backends of our own, which only watch: their seconds are not Postgres'.
    """

    def __init__(self, roots: Mapping[str, int], *, apart: frozenset[int] = frozenset()) -> None:
        self._roots = dict(roots)
        self._apart = apart
        self._ledgers: dict[str, CpuLedger] = {}
        self._rests: dict[str, int] = {}
        self._peaks: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.sample()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self.sample()

    def _kind(self, name: str, pid: int) -> str:
        if name != POSTGRES:
            return "child"
        return "watching" if pid in self._apart else postgres_kind(read_title(pid))

    def sample(self) -> None:
        """Look once. What a process spent that has ended since is that of the last look."""
        for name, root in self._roots.items():
            sample = sample_family(root, lambda pid, name=name: self._kind(name, pid))  # type: ignore[misc]
            if sample is not None:
                if name in self._ledgers:
                    self._ledgers[name].add(sample)
                else:
                    self._ledgers[name] = CpuLedger(sample)
            if name != POSTGRES:  # the postmaster's alone would say nothing
                self._sample_memory(name, root)

    def _sample_memory(self, name: str, pid: int) -> None:
        peak, now = read_memory(pid, "VmHWM"), read_memory(pid, "VmRSS")
        if peak is not None and now is not None:
            self._rests.setdefault(name, now)
            self._peaks[name] = peak

    def usage(self) -> Usage:
        """Look once more, and return what was spent since the entry."""
        self.sample()
        spent = {name: ledger.spent() for name, ledger in self._ledgers.items()}
        for seconds in spent.values():
            seconds.pop("watching", None)
        postgres = by_postgres_kind(spent[POSTGRES]) if POSTGRES in spent else {}
        cpu = {name: sum(seconds.values()) for name, seconds in spent.items()}
        return Usage(cpu, postgres, dict(self._rests), dict(self._peaks))
