"""One trial: a copy of the tree, one bug in it, and what the named tests say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree

from tests.mutants.catalogue import PROJECT, Mutant

#: Seconds that the tests of one mutant may take, each time.
PATIENCE: Final = 240.0
#: How pytest runs the tests of a trial: until one fails, with the same examples each time.
OPTIONS: Final = ("-x", "-q", "-p", "tests.mutants.plugin", "-p", "no:cacheprovider", "--tb=line")

Outcome = Literal["passed", "failed", "broken", "skipped", "hung"]


@dataclass(frozen=True)
class Verdict:
    """What a run of tests said. ``failed`` are the tests that failed in their own body; ``text`` is pytest's output."""

    outcome: Outcome
    failed: tuple[str, ...]
    seconds: float
    text: str


def copy_tree(to: Path) -> None:
    """What git knows or would take, without what it ignores."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={PROJECT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    ).stdout
    for name in listed.decode().split("\0"):
        if name and (PROJECT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, to / name)


class Tree:
    """A copy of the tree for one trial after the other."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        # In front of the environment's own, editable, installation; for the commands that tests start, too.
        self.environment = {
            **environment, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1",
            "TEST_PATIENCE": str(PATIENCE / 3),  # a bug that makes a test wait for ever is caught, and no hang
        }  # fmt: skip
        copy_tree(folder)

    def run(self, tests: tuple[str, ...]) -> Verdict:
        """Run the tests until one fails."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={report}", *tests],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            text, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # The session is ours alone: pytest, and the commands that its tests started.
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            return Verdict("hung", (), time.monotonic() - began, text)
        seconds = time.monotonic() - began
        if f"streams: {self.folder / 'streams' / '__init__.py'}\n" not in text:
            return Verdict("broken", (), seconds, f"another package was tested, or none could be imported\n{text}")
        failed, outcome = _read(report, process.returncode)
        return Verdict(outcome, failed, seconds, text)

    def with_bug(self, mutant: Mutant) -> Verdict:
        """Run the mutant's tests in a tree that has its bug."""
        path = self.folder / mutant.file
        right = path.read_text()
        path.write_text(mutant.applied(self.folder))
        try:
            return self.run(mutant.tests)
        finally:
            path.write_text(right)


def _read(report: Path, code: int) -> tuple[tuple[str, ...], Outcome]:
    """A test that failed is a catch; an error while collecting, or in a fixture, is none: anything would cause that."""
    if code not in {0, 1} or not report.exists():
        return (), "broken"
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = tuple(str(case.get("name")) for case in cases if case.find("failure") is not None)
    if failed:
        return failed, "failed"
    if any(case.find("error") is not None for case in cases):
        return (), "broken"
    if not cases or any(case.find("skipped") is not None for case in cases):
        return (), "skipped"
    return (), "passed"
