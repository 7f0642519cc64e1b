"""Live latency: from the time at which the relay sends a frame to the transaction that writes its row.

The relay sends at a steady rate, and writes into each frame when it is sent; Postgres writes into each row when its
transaction began, which takes some milliseconds more. All clocks are this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import uuid
from asyncio.subprocess import DEVNULL, PIPE
from typing import Any, Final

import psutil

from streams.kafka.topic import ensure_topic
from streams.local.processes import WorkerProcess, end_with_parent
from streams.local.stack import Stack
from streams.postgres.session import reading
from streams.runtime import child_process
from streams.settings import Settings, load_settings

#: Events before the live ones: what was there when the ingest began.
HISTORY: Final = 5_000
#: Seconds of the live stream that do not count: everything starts.
WARM_UP: Final = 5
#: Seconds in which so many events must have arrived.
PATIENCE: Final = 180.0
FIGURES: Final = """
    SELECT count(*) AS rows, percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (
        ORDER BY extract(epoch FROM indexed_at - time)) AS seconds
    FROM {schema}.records WHERE time > to_timestamp($1)"""


async def measure(settings: Settings, rate: int, seconds: int) -> dict[str, Any]:
    """Return the figures of one run into a fresh topic and schema."""
    live = rate * (WARM_UP + seconds)
    relay = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.simulator", "--generate", str(HISTORY + live), "--then-live", str(rate),
        "--live-events", str(live), "--live-buffer", str(live), "--sent-times", stdout=PIPE, stderr=DEVNULL,
    )  # fmt: skip
    assert relay.stdout is not None
    url = json.loads(await relay.stdout.readline())["url"]
    name = f"latency_{uuid.uuid4().hex[:8]}"
    changes = {"relay_url": url, "kafka_topic": name, "sink_schema": name, "sink_group": name, "backfill_days": -1}
    settings = load_settings(
        **{**{field: getattr(settings, field) for field in settings.model_fields_set}, **changes},
        backfill_profile="unlimited",
    )
    await ensure_topic(settings)
    worker = WorkerProcess(settings)
    await worker.start()
    ingest = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.ingest", "--days", "-1", "--follow", stdout=DEVNULL, stderr=DEVNULL,
        start_new_session=True, preexec_fn=end_with_parent(), env={**os.environ, **settings.as_environment()},
    )  # fmt: skip
    try:
        async with reading(settings.database_dsn(), "public") as connection:
            begin = await _until(connection, name, HISTORY + 1) + WARM_UP
            await asyncio.sleep(begin - time.time())
            processes = {"ingest": psutil.Process(ingest.pid), "worker": psutil.Process(worker.pid)}
            before = {who: sum(process.cpu_times()[:2]) for who, process in processes.items()}
            await asyncio.sleep(seconds - 2)  # the live stream does not end meanwhile
            spent = {who: sum(process.cpu_times()[:2]) - before[who] for who, process in processes.items()}
            end = time.time()
            await _until(connection, name, HISTORY + live)
            row = await connection.fetchrow(FIGURES.format(schema=name), begin)
            assert row is not None, "an aggregate has one row"
    finally:
        await asyncio.gather(child_process.stop(ingest, 15.0), worker.stop())
        relay.terminate()
        await relay.wait()
    names = ("p50", "p90", "p99", "max")
    return {
        "rows": row["rows"],
        **dict(zip(names, row["seconds"], strict=True)),
        **{f"{who} µs": cpu / (rate * (end - begin)) * 1e6 for who, cpu in spent.items()},
    }


async def _until(connection: Any, schema: str, events: int) -> float:  # noqa: ANN401 (a session)
    """Wait until so many events are received; return the time."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{schema}.sink_offsets"):
            received = await connection.fetchval(f"SELECT coalesce(sum(received), 0) FROM {schema}.sink_offsets")
            if received >= events:
                return time.time()
        await asyncio.sleep(0.1)
    sys.exit("The events did not arrive: see .local/logs.")


def main() -> None:
    """Run ``python -m benchmarks.latency``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="events a second (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=30, help="seconds that count (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=1, help="(default: %(default)s)")
    arguments = parser.parse_args()
    settings = load_settings()
    if settings.kafka_bootstrap_servers is None or settings.database_url is None:
        stack = Stack(settings.local_dir)
        stack.up()
        settings = load_settings(
            kafka_bootstrap_servers=stack.bootstrap_servers, database_url=stack.dsn, local_dir=settings.local_dir
        )
    for _ in range(arguments.runs):
        figures = asyncio.run(measure(settings, arguments.rate, arguments.seconds))
        print(
            "  ".join(f"{name} {value:.3f}" if name != "rows" else f"{value} rows" for name, value in figures.items())
        )


if __name__ == "__main__":
    main()
