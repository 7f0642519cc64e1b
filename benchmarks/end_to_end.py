"""Relay to rows, everything on this machine: events a second, and CPU µs an event for each process.

The clock runs from the ingest's plan (it is about to connect) until the last event is in Postgres. The worker is up
before, the traffic is generated before. Kafka and Postgres are the embedded ones, or those of the settings; in the
second case their CPU is not known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from streams.kafka.topic import ensure_topic
from streams.local.process import family
from streams.local.processes import IngestProcess, WorkerProcess
from streams.local.stack import Stack
from streams.postgres.session import reading
from streams.settings import Settings, load_settings
from streams.simulator.compare import compare
from streams.simulator.oracle import load_oracle
from streams.status.lag import LagReader, lag_reader

#: Seconds that one run may take.
LIMIT = 300.0


@dataclass(slots=True)
class Start:
    """Hears the ingest: when its plan was made."""

    at: float | None = None

    def heard(self, line: dict[str, Any]) -> None:
        """One log line of the ingest."""
        if line.get("event") == "plan":
            self.at = time.monotonic()


class Cpu:
    """CPU seconds of process trees, children that have ended included."""

    def __init__(self, trees: dict[str, list[psutil.Process]]) -> None:
        self._trees = trees
        self._before = {name: self._seconds(name) for name in trees}
        self._last = dict(self._before)

    def _seconds(self, name: str) -> float:
        total = 0.0
        for root in self._trees[name]:
            try:
                for number, process in enumerate([root, *root.children(recursive=True)]):
                    times = process.cpu_times()
                    total += times.user + times.system
                    if number == 0:
                        total += times.children_user + times.children_system
            except psutil.NoSuchProcess:
                continue
        return total

    def sample(self) -> None:
        """Remember what was spent so far: a process that ends cannot be asked any more."""
        for name in self._trees:
            self._last[name] = max(self._last[name], self._seconds(name))

    def spent(self) -> dict[str, float]:
        """Seconds since the beginning, by name."""
        return {name: self._last[name] - self._before[name] for name in self._trees}


async def start_relay(settings: Settings, events: int, large_every: int = 0) -> tuple[Process, str, Path]:
    """The development relay with so many events, generated once and kept; its URL and its oracle."""
    folder = settings.local_dir / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{events}-{large_every}" if large_every else str(events)
    frames, oracle = folder / f"frames-{name}.gz", folder / f"oracle-{name}.json.gz"
    source = ["--frames", str(frames)] if frames.exists() and oracle.exists() else [
        "--generate", str(events), "--save", str(frames), "--oracle", str(oracle),
        "--large-every", str(large_every),
    ]  # fmt: skip
    relay = await asyncio.create_subprocess_exec(sys.executable, "-m", "streams.simulator", *source, stdout=PIPE)
    assert relay.stdout is not None
    return relay, json.loads(await relay.stdout.readline())["url"], oracle


async def measure(settings: Settings, stack: Stack | None, events: int) -> dict[str, Any]:
    """One run into a fresh topic and schema."""
    relay, url, oracle = await start_relay(settings, events)
    name = f"bench_{uuid.uuid4().hex[:8]}"
    settings = load_settings(
        **{
            **{field: getattr(settings, field) for field in settings.model_fields_set},
            "relay_url": url, "kafka_topic": name, "sink_schema": name, "sink_group": name, "backfill_days": -1,
            "backfill_profile": "unlimited",
        }
    )  # fmt: skip
    info = await ensure_topic(settings)
    worker, ingest, start = WorkerProcess(settings), IngestProcess(settings), Start()
    try:
        async with lag_reader(settings, info) as reader:
            await worker.start()
            await _until_assigned(reader, info.partitions)
            await ingest.start(start)
            trees = {
                "relay": [psutil.Process(relay.pid)],
                "ingest": [psutil.Process(ingest.pid)],
                "worker": [psutil.Process(worker.pid)],
            }
            if stack is not None:
                trees["kafka"] = [p for broker in stack.kafka.brokers for p in family(broker.find())[:1]]
                trees["postgres"] = [psutil.Process(stack.postgres.pids()[0])]
            cpu = Cpu(trees)
            seconds = await _until_applied(reader, events, start, cpu)
    finally:
        await asyncio.gather(ingest.stop(), worker.stop())
        relay.terminate()
        await relay.wait()
    async with reading(settings.database_dsn(), settings.sink_schema) as connection:
        problems = await compare(connection, settings.sink_schema, load_oracle(oracle))
    if problems:
        sys.exit(f"The result is wrong, so its speed does not count: {problems[0]}")
    return {"events": events, "seconds": seconds, "cpu": cpu.spent()}


async def _until_assigned(reader: LagReader, partitions: int) -> None:
    end = time.monotonic() + 60
    while len(await reader.positions()) < partitions:
        if time.monotonic() > end:
            sys.exit("The worker did not start: see .local/logs/worker.log.")
        await asyncio.sleep(0.1)


async def _until_applied(reader: LagReader, events: int, start: Start, cpu: Cpu) -> float:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        await asyncio.sleep(0.1)
        cpu.sample()
        if (await reader.sink()).received >= events and start.at is not None:
            return time.monotonic() - start.at
    sys.exit(f"Not done after {LIMIT:.0f} s.")


def report(runs: list[dict[str, Any]]) -> str:
    """The figures, a line a run, and the best and the median rate."""
    lines = [
        f"{psutil.cpu_count()} cores, everything on this machine, profile unlimited; every run's rows were checked."
    ]
    for run in runs:
        each = {name: seconds / run["events"] * 1e6 for name, seconds in run["cpu"].items()}
        costs = "  ".join(f"{name} {us:.1f}" for name, us in each.items())
        lines.append(
            f"{run['events']:,} events in {run['seconds']:.1f} s: {run['events'] / run['seconds']:,.0f} events/s; "
            f"CPU µs an event: {costs}  sum {sum(each.values()):.1f}"
        )
    rates = sorted(run["events"] / run["seconds"] for run in runs)
    lines.append(f"median {rates[len(rates) // 2]:,.0f} events/s, best {rates[-1]:,.0f}")
    return "\n".join(lines)


def main() -> None:
    """``make bench``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--events", type=int, default=300_000, help="events a run (default: %(default)s)")
    parser.add_argument(
        "--runs", type=int, default=3, help="runs, each into a fresh topic and schema (default: %(default)s)"
    )
    arguments = parser.parse_args()
    settings = load_settings()
    stack = None
    if settings.kafka_bootstrap_servers is None or settings.database_url is None:
        stack = Stack(settings.local_dir)
        stack.up()
        settings = load_settings(
            kafka_bootstrap_servers=stack.bootstrap_servers, database_url=stack.dsn, local_dir=settings.local_dir
        )
    runs = [asyncio.run(measure(settings, stack, arguments.events)) for _ in range(arguments.runs)]
    print(report(runs))


if __name__ == "__main__":
    main()
