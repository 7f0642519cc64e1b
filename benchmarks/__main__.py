"""The benchmark: ``make bench``, which is ``python -m benchmarks``.

It starts a Kafka and a Postgres of its own and a relay with generated events. Each round measures, one after the other:
relay to rows, the ingest alone, the worker alone from the topic that this filled, the batches alone; and besides what
they are compared with. Every row is checked. It prints medians over all rounds, and writes all figures as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.figures import RATE
from benchmarks.programs import PROJECT, checked_out
from benchmarks.report import table
from benchmarks.rounds import Sizes, measure_round
from benchmarks.servers import FOLDER, started
from benchmarks.stages import Site
from benchmarks.summary import END_TO_END, Round, ratios, summarize
from benchmarks.workload import Workload, serve
from streams.settings import load_settings

#: Version of the result's form.
RESULT_VERSION: Final = 1
#: Bytes of disk that an event needs: its frame, twice its message in Kafka, its row in two schemas, the log.
_DISK_EACH: Final = 12_000
#: Bytes of disk besides: the servers.
_DISK: Final = 8 << 30


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    events: int
    runs: int
    sizes: Sizes
    against: str | None
    out: Path


async def measure(options: Options, local_dir: Path) -> list[Round]:
    """Start everything, and measure all rounds."""
    workload = Workload(options.events, time.time_ns() // 1_000_000 * 1000)
    rounds: list[Round] = []
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(started(local_dir))
        before = None
        if options.against is not None:
            before = stack.enter_context(checked_out(options.against, servers.folder))
        print(f"generating {options.events:,} events ...", flush=True)
        async with serve(workload, servers.folder) as relay:
            site = Site(servers, relay, options.events)
            for number in range(options.runs):
                began = time.monotonic()
                rounds.append(await measure_round(site, workload, options.sizes, before))
                rate = rounds[-1][END_TO_END][RATE]
                took = time.monotonic() - began
                print(f"round {number + 1} of {options.runs}: {rate:,.0f} events/s, took {took:.0f} s", flush=True)
        relay.oracle.unlink(missing_ok=True)
    return rounds


def result_as_json(options: Options, rounds: list[Round]) -> dict[str, Any]:
    """Return the result as it is written: each round, the medians, the ratios, and where it ran."""
    return {
        "version": RESULT_VERSION,
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _commit("HEAD"),
        "against": None if options.against is None else _commit(options.against),
        "machine": {"cores": os.cpu_count(), "memory": psutil.virtual_memory().total, "cpu": _cpu_model()},
        "options": {"events": options.events, "runs": options.runs},
        "rounds": rounds,
        "summary": {
            name: {figure: value._asdict() for figure, value in figures.items()}
            for name, figures in summarize(rounds).items()
        },
        "ratios": {title: value._asdict() for title, value in ratios(rounds).items()},
    }


def _commit(ref: str) -> str:
    command = ["git", "-C", str(PROJECT), "rev-parse", "--short", f"{ref}^{{commit}}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def check_disk(folder: Path, events: int) -> None:
    """End with a sentence if the disk cannot hold a round."""
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = _DISK + _DISK_EACH * events, shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"{events:,} events need about {needed / 1e9:.0f} GB in {folder}, and {free / 1e9:.0f} GB are free: "
            "take fewer --events, or set LOCAL_DIR."
        )


def parse(arguments: list[str] | None, folder: Path) -> Options:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--events", type=int, default=1_000_000, help="events of the workload (%(default)s)")
    add("--runs", type=int, default=5, help="rounds (%(default)s)")
    add("--compared", type=int, default=50_000, help="frames that the SDK and the floor take (%(default)s)")
    add("--script", type=int, default=40_000, help="frames that a script of one's own takes (%(default)s)")
    add("--against", metavar="REF", help="a commit to compare with, in turns")
    add("--json", type=Path, default=folder / "result.json", metavar="FILE", help="file of the result (%(default)s)")
    found = parser.parse_args(arguments)
    return Options(found.events, found.runs, Sizes(found.compared, found.script), found.against, found.json)


def main(arguments: list[str] | None = None) -> None:
    """Run ``python -m benchmarks``."""
    local_dir = load_settings().local_dir.resolve()
    options = parse(arguments, local_dir / FOLDER)
    check_disk(local_dir / FOLDER, options.events)
    rounds = asyncio.run(measure(options, local_dir))
    options.out.write_text(json.dumps(result_as_json(options, rounds), indent=1) + "\n")
    print(table(summarize(rounds), ratios(rounds)))
    print(f"\n{os.cpu_count()} cores, everything on this machine; every run's rows were checked. JSON: {options.out}")


if __name__ == "__main__":
    main()
