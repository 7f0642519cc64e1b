"""``python -m tests.arrivals [--sequences N] [--seed S] [--jobs J]``: random worlds through the model of continuity."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from random import Random

from tests.arrivals.model import Broken, travel
from tests.arrivals.through import in_own_stacks, kinds
from tests.arrivals.world import make_world

_CHUNK = 2000


def _chunk(seed: int, first: int, count: int) -> tuple[Counter[str], list[str]]:
    """Read some worlds; count what they were, and tell what was broken."""
    seen: Counter[str] = Counter()
    broken: list[str] = []
    for number in range(first, first + count):
        rnd = Random(f"{seed} {number}")
        world = make_world(rnd)
        try:
            made = travel(world, rnd)
        except Broken as error:
            broken.append(f"--seed {seed} --only {number}: {error} ({', '.join(world.faults)})")
            continue
        except Exception:
            broken.append(f"--seed {seed} --only {number}: {traceback.format_exc()}")
            continue
        seen.update(world.faults or ["orderly"])
        seen["resets found"] += made.resets
        seen["began anew"] += world.began_anew is not None
        seen["frames"] += made.frames
        seen["connections"] += made.connections
    return seen, broken


def _through(count: int, seed: int) -> int:
    """Take the first worlds of a seed by the whole way, on a stack of their own. Return 1 where one is broken."""
    began, broken = time.monotonic(), in_own_stacks(count, seed)
    print(f"{count} sequences into Postgres, seed {seed}, {time.monotonic() - began:.0f} s: {len(broken)} broken")
    for what, seen in kinds(range(count), seed).most_common():
        print(f"  {what:<14} {seen}")
    for which, problems in sorted(broken.items())[:20]:
        print(which, *problems[:5], sep="\n  ")
    return 1 if broken else 0


def main() -> int:
    """Read the worlds asked for. Return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.arrivals", description=__doc__)
    parser.add_argument("--sequences", type=int, default=20_000, help="random sequences (20,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one of them, by its number")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--through",
        type=int,
        metavar="N",
        help="take N of them by the whole way instead: relay, ingest, Kafka, Postgres",
    )
    asked = parser.parse_args()
    if asked.through is not None:
        return _through(asked.through, asked.seed)
    if asked.only is not None:
        rnd = Random(f"{asked.seed} {asked.only}")
        travel(make_world(rnd), rnd)
        return 0
    began = time.monotonic()
    seen: Counter[str] = Counter()
    broken: list[str] = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        starts = range(0, asked.sequences, _CHUNK)
        tasks = [pool.submit(_chunk, asked.seed, at, min(_CHUNK, asked.sequences - at)) for at in starts]
        for task in tasks:
            counts, told = task.result()
            seen += counts
            broken += told
            print(*told, sep="\n", end="\n" * bool(told), flush=True)
    print(f"{asked.sequences} sequences, seed {asked.seed}, {time.monotonic() - began:.0f} s: {len(broken)} broken")
    for what, count in seen.most_common():
        print(f"  {what:<14} {count}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
