"""The long form: ``python -m tests.fuzz --frames 1000000 --messages 200000 --seed N [--minutes M]``.

Prints what became of each kind of mutation, and exits with 1 where anything failed. ``--case N`` runs one case again.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from streams.resources.memory_watch import tune_allocator
from tests.fuzz.rows import in_own_postgres
from tests.fuzz.run import MAX_GROWTH, Fuzzer, Result
from tests.support.peak import peak_bytes


def main() -> int:
    options = _options()
    tune_allocator()  # as the ingest and the worker do: memory is measured here too
    if options.case is not None:
        return _one(Fuzzer(options.kind, options.seed), options.case)
    print(f"seed {options.seed}, {platform.python_implementation()} {platform.python_version()}\n")
    passed = True
    for name, count in (("frame", options.frames), ("message", options.messages)):
        if count:
            seconds = None if options.minutes is None else options.minutes * 60 * (0.8 if name == "frame" else 0.2)
            result = Fuzzer(name, options.seed, options.folder).run(options.start, count, seconds)
            print(report(result, options.seed), flush=True)
            passed &= result.passed
    if options.rows:
        print(
            ", ".join(
                f"{name} {value:,}" for name, value in asdict(in_own_postgres(options.rows, options.seed)).items()
            )
        )
    return 0 if passed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Bad input at scale: docs/testing.md.")
    parser.add_argument("--frames", type=int, default=100_000, help="cases of the frame fuzzer (100,000)")
    parser.add_argument(
        "--messages", type=int, default=20_000, help="cases of the message fuzzer, each a slice (20,000)"
    )
    parser.add_argument(
        "--rows", type=int, default=0, help="messages that are then written to a Postgres of its own (0)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same cases (1)")
    parser.add_argument("--start", type=int, default=0, help="number of the first case, to go on where a run ended (0)")
    parser.add_argument("--minutes", type=float, help="end after so long; four fifths of it are for frames")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-data"), help="where failures go (fuzz-data)")
    parser.add_argument("--case", type=int, help="run one case again, and show its error whole")
    parser.add_argument("--kind", choices=("frame", "message"), default="frame", help="which fuzzer's case (frame)")
    return parser.parse_args()


def _one(fuzzer: Fuzzer, number: int) -> int:
    """A case again, with the error as it came."""
    case = fuzzer.case(number)
    print(f"{fuzzer.name} case {number} of seed {fuzzer.seed}: {case.kind}")
    for part in case[1]:
        print("  " + repr(part)[:2000])
    outcome, fates = fuzzer._check(case, number)
    print(f"{outcome} {fates or ''}")
    return 0


def report(result: Result, seed: int) -> str:
    """The tables of one fuzzer, as Markdown."""
    lines = []
    if result.name == "frame":
        columns = list(dict.fromkeys(name for counts in result.outcomes.values() for name in sorted(counts)))
        columns.sort(key=lambda name: -sum(counts[name] for counts in result.outcomes.values()))
        lines += [_row(("mutation", "cases", *columns)), "|---|" + "---:|" * (len(columns) + 1)]
        for kind, counts in sorted(result.outcomes.items(), key=lambda item: -item[1].total()):
            lines.append(_row((kind, f"{counts.total():,}", *(f"{counts[c]:,}" if counts[c] else "" for c in columns))))
        total: Counter[str] = sum(result.outcomes.values(), Counter())
        lines += [_row(("all", f"{total.total():,}", *(f"{total[c]:,}" for c in columns))), ""]
    else:
        kinds = {kind: counts.total() for kind, counts in result.outcomes.items()}
        lines += ["Slices by what was done to one of their messages: " + _list(kinds), ""]
    lines += [
        "Messages by their fate in the worker: " + _list(result.fates),
        "",
        f"{result.cases:,} {result.name} cases ({result.inputs:,} {result.name}s) in {result.seconds:,.0f} s, "
        f"{result.cases / max(result.seconds, 1e-9):,.0f}/s; longest call {result.longest[0]:.2f} s of CPU "
        f"(case {result.longest[1]}, {result.longest[2]}); RSS {result.samples[0]:.0f} MB at the start, "
        f"{peak_bytes() / 1e6:.0f} at most, {result.samples[-1]:.0f} at the end, "
        f"grown by {result.growth:.0f} after the warm-up "
        f"(limit {MAX_GROWTH}); {len(result.failures)} failures.",
        "",
    ]
    for failure in result.failures[:20]:
        again = f"python -m tests.fuzz --kind {result.name} --seed {seed} --case {failure.number}"
        lines.append(f"FAILED {failure.kind}: {failure.why}\n       {again}")
    return "\n".join(lines)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _list(counts: Counter[str] | dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) + "."


if __name__ == "__main__":
    sys.exit(main())
