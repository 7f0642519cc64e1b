"""Peak memory and speed under a flood, for several BACKFILL_MAX_MEMORY_MB: the ingest alone, then the worker alone.

The relay retains all events before the clock runs, the largest commits that the protocol allows among them. The ingest
takes them into an empty topic; then a worker takes the topic into an empty schema: each at its own highest speed. The
peak is the kernel's own (VmHWM of /proc/PID/status: Linux only).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import RATE, Figures
from benchmarks.programs import OURS
from benchmarks.servers import started
from benchmarks.stages import Site, ingest_alone, worker_alone
from benchmarks.workload import Workload, serve
from streams.settings import load_settings

MB = 1 << 20


async def measure(site: Site, limit: int) -> dict[str, Figures]:
    """Measure one run into a fresh topic and schema."""
    ingest, settings = await ingest_alone(site, OURS, backfill_max_memory_mb=limit)
    worker = await worker_alone(site, OURS, settings)
    await site.servers.forget(settings)
    return {"ingest": ingest, "worker": worker}


def report(limit: int, run: dict[str, Figures]) -> str:
    """Return a line for each process of a run."""
    return "\n".join(
        f"limit {limit} MB  {name:<6}  at rest {figures[f'rest.{name}'] / MB:>4.0f} MB  "
        f"peak {figures[f'peak.{name}'] / MB:>4.0f} MB  {figures[RATE]:>8,.0f} events/s  "
        f"CPU µs an event {figures[f'cpu.{name}']:5.1f}"
        for name, figures in run.items()
    )


async def run(local_dir: Path, workload: Workload, limits: list[int], runs: int) -> None:
    """Measure all runs over the same traffic, the limits one after the other."""
    with started(local_dir) as servers:
        async with serve(workload, servers.folder) as relay:
            site = Site(servers, relay, workload.events)
            for _ in range(runs):
                for limit in limits:
                    print(report(limit, await measure(site, limit)), flush=True)


def main() -> None:
    """Run ``python -m benchmarks.memory``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    add: Any = parser.add_argument
    add("--events", type=int, default=1_000_000, help="events a run (default: %(default)s)")
    add("--large-every", type=int, default=2000, help="a large commit after each so many (default: %(default)s)")
    add("--limits", type=int, nargs="+", default=[256, 512], help="BACKFILL_MAX_MEMORY_MB (default: %(default)s)")
    add("--runs", type=int, default=1, help="runs of each limit (default: %(default)s)")
    options = parser.parse_args()
    workload = Workload(
        options.events, time.time_ns() // 1_000_000 * 1000, plain=False, large_every=options.large_every
    )
    print(f"{options.events:,} events; {psutil.cpu_count()} cores, everything on this machine; all rows are checked.")
    asyncio.run(run(load_settings().local_dir.resolve(), workload, options.limits, options.runs))


if __name__ == "__main__":
    main()
