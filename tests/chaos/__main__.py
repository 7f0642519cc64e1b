"""``python -m tests.chaos``: the long form of the random campaign, and its report."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.campaign import Report, campaign
from tests.chaos.faults import KINDS

EPILOG = """examples:
  python -m tests.chaos --seed 7 --faults 200                 about a quarter of an hour
  python -m tests.chaos --seed 1 --seed 2 --seed 3 --report table.md

exit codes: 0 nothing lost, doubled or wrong, no process ended by itself, no long stall; 1 else (the folder is kept)"""


def _table(reports: list[Report]) -> str:
    """The reports as Markdown."""
    rows = [
        ("faults", [str(r.faults.total()) for r in reports]),
        ("minutes", [f"{r.seconds / 60:.0f}" for r in reports]),
        ("events of the relay", [f"{r.events:,}" for r in reports]),
        ("resets of the relay's sequence", [str(r.resets) for r in reports]),
        ("received from the topic", [f"{r.received:,}" for r in reports]),
        ("lost", [str(len(r.lost)) for r in reports]),
        ("doubled", [str(len(r.doubled)) for r in reports]),
        ("wrong", [str(len(r.wrong)) for r in reports]),
        ("ends of processes, all", [str(r.exits) for r in reports]),
        ("of them unexplained", [str(len(r.unexplained)) for r in reports]),
        ("longest stall of a partition, nothing broken", [f"{r.longest_stall:.0f} s" for r in reports]),
        ("longest stall of a partition, at all", [f"{r.longest_wait:.0f} s" for r in reports]),
    ]
    fates: Counter[str] = sum((r.fates for r in reports), Counter())
    rows += [(f"fate: {fate}", [f"{r.fates[fate]:,}" for r in reports]) for fate, _ in fates.most_common()]
    rows += [(f"fault: {kind.name}", [str(r.faults[kind.name]) for r in reports]) for kind in KINDS]
    head = ["seed", *(str(r.seed) for r in reports)]
    lines = [head, ["---"] * len(head), *([name, *values] for name, values in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Break everything at random: nothing may be lost or doubled.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, action="append", help="of the schedule of faults; may be repeated (1)")
    parser.add_argument("--faults", type=int, default=200, help="how many (200)")
    parser.add_argument("--every", type=float, default=3.0, metavar="S", help="mean seconds between two faults (3)")
    parser.add_argument("--events", type=int, default=300_000, help="events of the relay (300000)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table there too")
    return parser


def main() -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args()
    reports = []
    for seed in options.seed or [1]:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        sys.stdout.write(f"seed {seed}, logs in {folder}\n")
        report = asyncio.run(
            campaign(
                folder, seed=seed, faults=options.faults, events=options.events, mean_seconds=options.every,
                say=lambda line: print(line, flush=True),
            )
        )  # fmt: skip
        reports.append(report)
        sys.stdout.write("".join(f"PROBLEM: {problem}\n" for problem in report.problems))
        sys.stdout.write(_table(reports) + "\n")
        sys.stdout.flush()
    if options.report:
        options.report.write_text(_table(reports) + "\n")
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    sys.exit(main())
