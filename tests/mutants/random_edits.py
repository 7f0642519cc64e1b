"""The driver of the random mutants: ``python -m tests.mutants.random_edits [--seed N] [--edits N] [--only FILE]``.

It draws edits of the pure modules and runs the unit tests that import the edited one, until the first fails. The same
seed draws the same edits of the same sources. An edit that no test can tell from the original is an equivalent: it is
listed with its reason in equivalents.toml, and not tried. Exit code 1: too few of the others were caught, or tests fail
without an edit.

Why not mutmut or cosmic-ray: neither draws a sample by a seed. mutmut rewrites functions only, and cosmic-ray starts
the tests in a new interpreter for each edit, which takes longer than most of these tests.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import PROJECT
from tests.mutants.edits import Edit, edits_of
from tests.mutants.trial import Tree

EQUIVALENTS: Final = Path(__file__).with_name("equivalents.toml")
#: Seconds that the tests may take, whatever they take without an edit.
PATIENCE: Final = 30.0

_SEQUENCE: Final = "streams/sources/firehose/sequence"
#: The modules, and the files in tests/unit that tell of each; the quickest first.
TESTS: Final[dict[str, tuple[str, ...]]] = {
    f"{_SEQUENCE}/continuity.py": (
        "test_continuity_limits",
        "test_pauses_and_cuts",
        "test_continuity",
        "test_resets",
        "test_intake",
        "test_arrivals",
    ),
    f"{_SEQUENCE}/stream_time.py": ("test_sequence_limits", "test_stream_time", "test_continuity", "test_resets"),
    f"{_SEQUENCE}/resets.py": (
        "test_sequence_limits",
        "test_continuity",
        "test_resets",
        "test_intake",
        "test_arrivals",
    ),
    f"{_SEQUENCE}/arrival_times.py": ("test_sequence_limits", "test_continuity", "test_resets", "test_arrivals"),
    f"{_SEQUENCE}/arrivals.py": ("test_sequence_limits", "test_continuity", "test_resets", "test_arrivals"),
    "streams/sources/firehose/plan.py": (
        "test_firehose_limits",
        "test_plan",
    ),
    "streams/sources/firehose/seek.py": ("test_firehose_limits", "test_seek", "test_plan", "test_run_start"),
    "streams/sources/firehose/frame_cutter.py": (
        "test_firehose_limits",
        "test_frame_cutter",
    ),
    "streams/worker/slices.py": ("test_worker_limits", "test_slices", "test_transport"),
    "streams/postgres/batch.py": ("test_batch_limits", "test_batch", "test_new_rows", "test_fuzz"),
    "streams/postgres/columns.py": ("test_columns", "test_batch"),
    "streams/postgres/new_rows.py": ("test_new_rows",),
    "streams/protocol/events.py": (
        "test_protocol_limits",
        "test_events",
        "test_frames",
        "test_intake",
        "test_tolerant",
        "test_fuzz",
    ),
    "streams/protocol/frames.py": (
        "test_protocol_limits",
        "test_frames",
        "test_events",
        "test_handshake",
        "test_tolerant",
        "test_fuzz",
    ),
    "streams/protocol/atjson.py": ("test_protocol_limits", "test_atjson", "test_events", "test_fuzz"),
    "streams/protocol/tolerant.py": ("test_cbor_limits", "test_tolerant", "test_fuzz"),
    "streams/protocol/cbor_size.py": ("test_cbor_limits", "test_events", "test_values"),
    "streams/protocol/tid.py": ("test_protocol_limits", "test_syntax", "test_batch", "test_continuity", "test_resets"),
    "streams/protocol/syntax.py": ("test_protocol_limits", "test_syntax", "test_batch"),
    "streams/worker/throttle.py": ("test_worker_limits", "test_throttle", "test_memory"),
    "streams/resources/idleness.py": ("test_resources_limits", "test_idleness", "test_machine", "test_throttle"),
    "streams/resources/memory_watch.py": ("test_resources_limits", "test_memory", "test_throttle", "test_progress"),
    "streams/resources/shares.py": (
        "test_resources_limits",
        "test_machine",
    ),
    "streams/resources/others.py": ("test_resources_limits", "test_idleness", "test_troubles", "test_machine"),
    "streams/status/coverage.py": ("test_status_limits", "test_coverage", "test_troubles"),
    "streams/status/troubles.py": ("test_status_limits", "test_troubles", "test_health"),
    "streams/status/lag.py": ("test_status_limits", "test_lag", "test_display", "test_troubles"),
    "streams/status/estimate.py": ("test_status_limits", "test_estimate", "test_display"),
}

#: Modules whose ``async`` functions ask Kafka and Postgres: what they do is for the integration tests.
WITHOUT_ASYNC: Final = frozenset({"streams/status/lag.py", "streams/status/estimate.py"})


@dataclass(frozen=True, order=True)
class Equivalent:
    """An edit that changes nothing that a test could see: by the line and what it becomes, so that moves keep it."""

    file: str
    line: str
    becomes: str
    reason: str


@dataclass(frozen=True)
class Trial:
    """What became of one edit. ``text`` is what pytest wrote."""

    edit: Edit
    outcome: str
    text: str = ""


def unit_test(name: str) -> str:
    """Return the path of a file of tests/unit, by its name. Raises ValueError where not one file has it."""
    (found,) = (PROJECT / "tests" / "unit").rglob(f"{name}.py")
    return str(found.relative_to(PROJECT))


class Campaign:
    """Trials of edits, ``jobs`` at a time, each job in a tree of its own."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._servers: queue.SimpleQueue[TrialServer] = queue.SimpleQueue()
        self._limits: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()
        self._started = [TrialServer(folder / f"tree{number}") for number in range(jobs)]
        for server in self._started:
            self._servers.put(server)

    def close(self) -> None:
        """End the servers."""
        for server in self._started:
            server.close()

    def try_edit(self, edit: Edit) -> Trial:
        """Try one edit, and print it if it survived."""
        server = self._servers.get()
        try:
            text = (PROJECT / edit.file).read_text()
            tests = tuple(map(unit_test, TESTS[edit.file]))
            limit = self._limit(server, edit.file, text, tests)
            outcome, output = server.run(edit.file, edit.applied(text), tests, limit)
        finally:
            self._servers.put(server)
        if outcome in ("survived", "broken"):
            print(f"{outcome.upper()} {describe(edit)}", flush=True)
        return Trial(edit, outcome, output)

    def _limit(self, server: TrialServer, file: str, text: str, tests: tuple[str, ...]) -> float:
        """Return the seconds that the tests may take; they must pass without an edit."""
        with self._lock:
            if tests not in self._limits:
                began = time.monotonic()
                outcome, output = server.run(file, text, tests, 10 * PATIENCE)
                if outcome != "survived":
                    sys.exit(f"{', '.join(tests)}: {outcome} without an edit\n{output}")
                self._limits[tests] = PATIENCE + 5 * (time.monotonic() - began)
            return self._limits[tests]


class TrialServer:
    """A process that runs trials in forks of itself (forked.py), in a copy of the tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = dict(Tree(folder, os.environ).environment)
        del environment["PYTHONDONTWRITEBYTECODE"]  # no file of the copy changes
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.forked"],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        tested = self._process.stdout.readline().strip()
        if tested != str(folder / "streams" / "__init__.py"):
            sys.exit(f"another package would be tested than the copy's: {tested}")

    def run(self, file: str, text: str, tests: Sequence[str], seconds: float) -> tuple[str, str]:
        """Run the tests with this text of the file. Returns the outcome and what pytest wrote."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        trial = {"file": file, "text": text, "tests": tests, "seconds": seconds}
        self._process.stdin.write(json.dumps(trial) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["outcome"], answer["text"]

    def close(self) -> None:
        """End the process: its input ends."""
        self._process.communicate()


def all_edits(only: Sequence[str] | None = None) -> list[Edit]:
    """Return every edit of the modules whose names contain one of ``only``, in the order of the table."""
    files = [file for file in TESTS if not only or any(part in file for part in only)]
    return [
        edit
        for file in files
        for edit in edits_of(file, (PROJECT / file).read_text(), with_async=file not in WITHOUT_ASYNC)
    ]


def equivalents() -> list[Equivalent]:
    """Return the listed equivalents."""
    return [Equivalent(**entry) for entry in tomllib.loads(EQUIVALENTS.read_text()).get("equivalent", [])]


def is_listed(edit: Edit, listed: Iterable[Equivalent]) -> bool:
    """Return True for an edit that stands among the equivalents."""
    before, after = edit.lines((PROJECT / edit.file).read_text())
    return any((entry.file, entry.line, entry.becomes) == (edit.file, before, after) for entry in listed)


def describe(edit: Edit) -> str:
    """Return the edit's place, and the line before and after."""
    text = (PROJECT / edit.file).read_text()
    before, after = edit.lines(text)
    return f"{edit.file}:{edit.number(text)}\n  - {before}\n  + {after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw edits and try them. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.random_edits", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which edits are drawn (1)")
    parser.add_argument("--edits", type=int, default=400, metavar="N", help="how many, 0 for all (400)")
    parser.add_argument("--only", metavar="FILE", action="append", help="only modules with this in their path")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="trials at a time (2)")
    parser.add_argument("--at-least", type=float, default=95, metavar="PERCENT", help="exit with 1 below this (95)")
    options = parser.parse_args(arguments)
    edits = all_edits(options.only)
    drawn = random.Random(options.seed).sample(edits, min(options.edits or len(edits), len(edits)))
    listed = equivalents()
    wanted = [edit for edit in drawn if not is_listed(edit, listed)]
    print(f"seed {options.seed}: {len(drawn)} of {len(edits)} edits, {len(drawn) - len(wanted)} of them equivalent")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        campaign = Campaign(Path(folder).resolve(), options.jobs)
        try:
            with ThreadPoolExecutor(options.jobs) as pool:
                trials = list(pool.map(campaign.try_edit, sorted(wanted)))
        finally:
            campaign.close()
    count = Counter(trial.outcome for trial in trials)
    caught = count["caught"] + count["hung"]
    share = 100 * caught / len(trials) if trials else 0.0
    print(
        f"{caught} of {len(trials)} caught ({share:.1f} %), {count['hung']} of them by a time-out; "
        f"{count['survived']} survived; {time.monotonic() - began:.0f} s"
    )
    for trial in trials:
        if trial.outcome == "broken":
            print(f"\nBROKEN {describe(trial.edit)}\n{trial.text}")
    return 0 if share >= options.at_least and not count["broken"] else 1


if __name__ == "__main__":
    sys.exit(main())
