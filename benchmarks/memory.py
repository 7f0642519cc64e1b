"""Peak memory and speed under a flood, for several BACKFILL_MAX_MEMORY_MB: the ingest alone, then the worker alone.

The relay retains all events before the clock runs, the largest commits that the protocol allows among them. The ingest
takes them into an empty topic; then a worker takes the topic into an empty schema: each at its own highest speed. The
peak is the kernel's own (VmHWM of /proc/PID/status: Linux only).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.end_to_end import LIMIT, Start, start_relay
from streams.kafka.topic import ensure_topic
from streams.local.processes import IngestProcess, WorkerProcess
from streams.local.stack import Stack
from streams.postgres.session import reading
from streams.settings import Settings, load_settings
from streams.simulator.compare import compare
from streams.simulator.oracle import load_oracle
from streams.status.lag import LagReader, lag_reader

MB = 1 << 20


@dataclass(slots=True)
class Figures:
    """One process in one run: seconds of work, CPU seconds, and its memory in bytes at rest and at its peak."""

    seconds: float
    cpu: float
    rest: int
    peak: int


class Probe:
    """A process that is measured."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._status = Path(f"/proc/{pid}/status")
        self.rest = self.memory("VmRSS")
        self._began, self._cpu = time.monotonic(), self._seconds()
        self.peak = 0
        self.cpu = 0.0

    def memory(self, what: str) -> int:
        """VmRSS or VmHWM, in bytes."""
        line = next(line for line in self._status.read_text().splitlines() if line.startswith(f"{what}:"))
        return int(line.split()[1]) * 1024

    def _seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def sample(self) -> None:
        """Remember what it is at: a process that ends cannot be asked any more."""
        try:
            self.peak = max(self.peak, self.memory("VmHWM"))
            self.cpu = self._seconds() - self._cpu
        except (OSError, StopIteration, psutil.NoSuchProcess):
            return

    def figures(self, began: float | None = None) -> Figures:
        """What was measured until now."""
        return Figures(time.monotonic() - (began or self._began), self.cpu, self.rest, self.peak)


async def take_in(settings: Settings, events: int) -> Figures:
    """The ingest alone, from its plan to its end."""
    ingest, start = IngestProcess(settings), Start()
    await ingest.start(start)
    try:
        while start.at is None:
            await asyncio.sleep(0.02)
            if ingest.code is not None:
                sys.exit(f"The ingest ended: {ingest.last_words()}")
        probe = Probe(ingest.pid)
        while ingest.code is None:
            probe.sample()
            await asyncio.sleep(0.05)
        return probe.figures(start.at)
    finally:
        await ingest.stop()


async def write_out(settings: Settings, reader: LagReader, events: int) -> Figures:
    """The worker alone, from its start with the topic full to the topic's end."""
    worker = WorkerProcess(settings)
    await worker.start()
    try:
        probe: Probe | None = None
        end = time.monotonic() + LIMIT + events / 500
        while time.monotonic() < end:
            await asyncio.sleep(0.05)
            received = (await reader.sink()).received
            if probe is None and received:
                probe = Probe(worker.pid)
            if probe is not None:
                probe.sample()
                if received >= events:
                    return probe.figures()
            if worker.code is not None:
                sys.exit(f"The worker ended: {worker.last_words()}")
        sys.exit("The worker is not done: see .local/logs/worker.log.")
    finally:
        await worker.stop()


async def measure(settings: Settings, url: str, oracle: Path, events: int, limit: int) -> dict[str, Figures]:
    """One run into a fresh topic and schema."""
    name = f"memory_{uuid.uuid4().hex[:8]}"
    settings = load_settings(
        **{
            **{field: getattr(settings, field) for field in settings.model_fields_set},
            "relay_url": url, "kafka_topic": name, "sink_schema": name, "sink_group": name, "backfill_days": -1,
            "backfill_profile": "unlimited", "backfill_max_memory_mb": limit,
        }
    )  # fmt: skip
    info = await ensure_topic(settings)
    ingest = await take_in(settings, events)
    async with lag_reader(settings, info) as reader:
        worker = await write_out(settings, reader, events)
    async with reading(settings.database_dsn(), settings.sink_schema) as connection:
        problems = await compare(connection, settings.sink_schema, load_oracle(oracle))
    if problems:
        sys.exit(f"The result is wrong, so its speed does not count: {problems[0]}")
    return {"ingest": ingest, "worker": worker}


def report(runs: list[tuple[int, dict[str, Figures]]], events: int) -> str:
    """A line for each process of each run."""
    lines = [
        f"{events:,} events; {psutil.cpu_count()} cores, everything on this machine; every run's rows were checked."
    ]
    lines += [
        f"limit {limit} MB  {name:<6}  at rest {figures.rest // MB:>4} MB  peak {figures.peak // MB:>4} MB  "
        f"{events / figures.seconds:>8,.0f} events/s  CPU µs an event {figures.cpu / events * 1e6:5.1f}"
        for limit, run in runs
        for name, figures in run.items()
    ]
    return "\n".join(lines)


async def run(settings: Settings, events: int, large_every: int, limits: list[int], runs: int) -> str:
    """All runs over the same traffic, the limits one after the other."""
    relay, url, oracle = await start_relay(settings, events, large_every)
    found: list[tuple[int, dict[str, Figures]]] = []
    try:
        for _ in range(runs):
            for limit in limits:
                found.append((limit, await measure(settings, url, oracle, events, limit)))
                print(report(found[-1:], events).splitlines()[1:], flush=True)
    finally:
        relay.terminate()
        await relay.wait()
    return report(found, events)


def main() -> None:
    """``python -m benchmarks.memory``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    add: Any = parser.add_argument
    add("--events", type=int, default=1_000_000, help="events a run (default: %(default)s)")
    add("--large-every", type=int, default=2000, help="a large commit after each so many (default: %(default)s)")
    add("--limits", type=int, nargs="+", default=[256, 512], help="BACKFILL_MAX_MEMORY_MB (default: %(default)s)")
    add("--runs", type=int, default=1, help="runs of each limit (default: %(default)s)")
    arguments = parser.parse_args()
    settings = load_settings()
    if settings.kafka_bootstrap_servers is None or settings.database_url is None:
        stack = Stack(settings.local_dir)
        stack.up()
        settings = load_settings(
            kafka_bootstrap_servers=stack.bootstrap_servers, database_url=stack.dsn, local_dir=settings.local_dir
        )
    print(asyncio.run(run(settings, arguments.events, arguments.large_every, arguments.limits, arguments.runs)))


if __name__ == "__main__":
    main()
