"""The table "Where the CPU goes" of docs/performance.md: ``python -m benchmarks.markdown [RESULT]``.

It is made of the result that ``make bench`` has written. Pure but for reading that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import hops
from benchmarks.figures import ALL
from benchmarks.servers import FOLDER
from benchmarks.summary import END_TO_END, FLOOR
from streams.settings import load_settings


class Line(NamedTuple):
    """A line of the table: its title, our figures, the budget, and the pieces of the floor; a total is in bold."""

    title: str
    figures: tuple[str, ...]
    budget: str
    floor: tuple[str, ...] = ()
    is_total: bool = False


def _hop(process: str, hop: str, budget: str, *floor: str) -> Line:
    return Line(f"{process}: {hop}", (f"hop.{process}.{hop}",), budget, floor)


_INGEST: Final = ("receive", "objects", "records", "append", "zstd", "produce")
_WORKER: Final = ("fetch", "envelope", "copy client")
LINES: Final = (
    _hop("ingest", hops.FRAMES, "2", "receive"),
    _hop("ingest", hops.OBJECTS, "2.5", "objects"),
    _hop("ingest", hops.RECORDS, "4.5", "records"),
    _hop("ingest", hops.APPEND, "1.5", "append"),
    _hop("ingest", hops.SEND, "2", "zstd", "produce"),
    _hop("ingest", hops.REST, "1.5"),
    Line("ingest", ("cpu.ingest",), "≤ 14", _INGEST, is_total=True),
    Line("Kafka", ("cpu.kafka",), "≤ 6", ("kafka", "kafka fetch")),
    _hop("worker", hops.FETCH, "1.7", "fetch"),
    _hop("worker", hops.MERGE, "4.5", "envelope"),
    _hop("worker", hops.APPLY, "2", "copy client"),
    _hop("worker", hops.REST, "1.3"),
    Line("worker", ("cpu.worker",), "≤ 10", _WORKER, is_total=True),
    Line("Postgres: backend", ("postgres.backend",), "≤ 10", ("copy backend",)),
    Line(
        "Postgres: autovacuum, WAL writer, checkpoints",
        ("postgres.autovacuum", "postgres.WAL writer", "postgres.checkpointer", "postgres.other"), "≤ 1",
    ),
    Line(
        "all but the relay", (ALL,), "≤ 41", (*_INGEST, "kafka", "kafka fetch", *_WORKER, "copy backend"), is_total=True
    ),
)  # fmt: skip


def hop_table(result: dict[str, Any]) -> str:
    """Return the table: CPU µs an event now, the budget, and the floor. What was not measured is a dash."""
    summary = result["summary"]
    now, floor = summary.get(END_TO_END, {}), summary.get(FLOOR, {})
    lines = ["| hop | now | budget | floor |", "|---|---|---|---|"]
    for line in LINES:
        mark = "**" if line.is_total else ""
        cells = (
            line.title,
            _sum(now, line.figures),
            line.budget,
            _sum(floor, [f"floor.{piece}" for piece in line.floor]),
        )
        lines.append("| " + " | ".join(f"{mark}{cell}{mark}" for cell in cells) + " |")
    return "\n".join(lines)


def ratio_table(result: dict[str, Any]) -> str:
    """Return the ratios, each with its spread."""
    lines = ["| ratio of the same round | median | least | most |", "|---|---|---|---|"]
    lines += [
        f"| {title} | {value['median']:.2f} | {value['least']:.2f} | {value['most']:.2f} |"
        for title, value in result["ratios"].items()
    ]
    return "\n".join(lines)


def _sum(figures: dict[str, Any], names: Sequence[str]) -> str:
    found = [figures[name]["median"] for name in names if name in figures]
    return f"{sum(found):.1f}" if found else "–"


def main() -> None:
    """Run ``python -m benchmarks.markdown``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.markdown", description=__doc__)
    default = load_settings().local_dir / FOLDER / "result.json"
    parser.add_argument("result", type=Path, nargs="?", default=default, help="the result's file (%(default)s)")
    result = json.loads(parser.parse_args().result.read_text())
    machine, options = result["machine"], result["options"]
    print(f"{result['made'][:10]}, commit {result['commit']}, {machine['cores']} cores ({machine['cpu']}), "
          f"{options['runs']} rounds of {options['events']:,} events:\n")  # fmt: skip
    print(hop_table(result), ratio_table(result), sep="\n\n")


if __name__ == "__main__":
    main()
