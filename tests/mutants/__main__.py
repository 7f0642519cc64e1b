"""The driver of the scorecard: ``python -m tests.mutants [--only NAME] [--list] [--jobs N]``.

Each worker copies the tree, sees the named tests pass there, then puts in one bug at a time and expects them to fail.
Exit code 1: a bug survived, or a test was not fit to tell.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streams.local.stack import Stack
from tests.conftest import FOLDER_PREFIX
from tests.mutants.catalogue import PROJECT, Mutant, load
from tests.mutants.trial import Tree, Verdict

SERVERS = ("TEST_KAFKA_BOOTSTRAP_SERVERS", "TEST_DATABASE_URL")


@dataclass(frozen=True)
class Score:
    """A mutant's line of the scorecard."""

    mutant: Mutant
    caught: bool
    by: str
    seconds: float
    text: str = ""


class Scorecard:
    """The trials of some mutants, ``jobs`` at a time."""

    def __init__(self, folder: Path, jobs: int, environment: dict[str, str]) -> None:
        self._trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        self._sound: dict[tuple[str, ...], Verdict] = {}
        self._locks: dict[tuple[str, ...], threading.Lock] = {}
        self._lock = threading.Lock()
        for number in range(jobs):
            self._trees.put(Tree(folder / f"tree{number}", environment))

    def score(self, mutant: Mutant) -> Score:
        """Try one mutant, and print its line."""
        tree = self._trees.get()
        try:
            score = self._score(tree, mutant)
        finally:
            self._trees.put(tree)
        print(
            f"{'caught  ' if score.caught else 'SURVIVED'} {mutant.name}: {score.by} ({score.seconds:.1f} s)",
            flush=True,
        )
        return score

    def _score(self, tree: Tree, mutant: Mutant) -> Score:
        problem = mutant.problem(tree.folder)
        if problem is not None:
            return Score(mutant, False, problem, 0.0)
        sound = self._without_bug(tree, mutant.tests)
        if sound.outcome != "passed":
            return Score(mutant, False, f"the tests are {sound.outcome} without the bug", sound.seconds, sound.text)
        verdict = tree.with_bug(mutant)
        caught = verdict.outcome == "failed"
        by = ", ".join(verdict.failed) if caught else f"the tests {verdict.outcome}"
        return Score(mutant, caught, by, verdict.seconds, "" if caught else verdict.text)

    def _without_bug(self, tree: Tree, tests: tuple[str, ...]) -> Verdict:
        """Whether the tests pass as they are: asked once for each set of them."""
        with self._lock:
            lock = self._locks.setdefault(tests, threading.Lock())
        with lock:
            if tests not in self._sound:
                sound = tree.run(tests)
                if not self._sound:  # what is tested is the copy: `Tree.run` refuses anything else
                    print(*(line for line in sound.text.splitlines() if line.startswith("streams: ")), flush=True)
                self._sound[tests] = sound
            return self._sound[tests]


@contextmanager
def servers(mutants: Sequence[Mutant]) -> Iterator[dict[str, str]]:
    """The environment of the trials: with one stack for all of them, where any test needs Kafka or Postgres."""
    environment = {**os.environ}
    if all(name in environment for name in SERVERS) or not any(
        not test.startswith("tests/unit/") for mutant in mutants for test in mutant.tests
    ):
        yield environment
        return
    # By this name the next test session finds and stops what a killed one left.
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
    stack = Stack(folder, fsync=False)
    try:
        stack.up()
        yield {**environment, SERVERS[0]: stack.bootstrap_servers, SERVERS[1]: stack.dsn}
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def table(scores: Sequence[Score]) -> Iterator[str]:
    """The scorecard as Markdown."""
    yield "| mutant | file | what it would do | caught by | s |"
    yield "|---|---|---|---|---|"
    for score in scores:
        by = f"`{score.by.partition('[')[0]}`" if score.caught else f"**survived**: {score.by}"
        mutant = score.mutant
        yield f"| {mutant.name} | `{mutant.file}` | {mutant.why} | {by} | {score.seconds:.1f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Score the mutants that are asked for. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="only mutants with this in their name")
    parser.add_argument("--list", action="store_true", help="say which there are, and run nothing")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="trials at a time (2)")
    options = parser.parse_args(arguments)
    mutants = [m for m in load() if not options.only or any(part in m.name for part in options.only)]
    if options.list:
        print("\n".join(f"{m.name}: {m.why}" for m in mutants))
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, servers(mutants) as environment:
        card = Scorecard(Path(folder).resolve(), options.jobs, environment)
        with ThreadPoolExecutor(options.jobs) as pool:
            scores = list(pool.map(card.score, mutants))
    survivors = [score for score in scores if not score.caught]
    print("", *table(scores), "", sep="\n")
    print(
        f"{len(scores) - len(survivors)} of {len(scores)} caught, {time.monotonic() - began:.0f} s; tree {PROJECT.name}"
    )
    for score in survivors:
        print(f"\nSURVIVED {score.mutant.name} ({score.by}): {score.mutant.why}\n{score.text[-1500:]}")
    return 1 if survivors or not scores else 0


if __name__ == "__main__":
    sys.exit(main())
