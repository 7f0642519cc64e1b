"""When a process is ready, and when not, and why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.ui.web.guard import names_loopback
from streams.ui.web.health import STUCK_SECONDS, Progress, ingest_checks, is_ready, progress_of, worker_checks
from tests.support import web_samples as samples

STUCK = STUCK_SECONDS + 1


def worker(mode: str, **changes: Any) -> Any:
    return samples.worker_figures(state=msgspec.structs.replace(samples.WORKER, mode=mode, why="why"), **changes)


def ingest(mode: str, **changes: Any) -> Any:
    return samples.ingest_figures(state=msgspec.structs.replace(samples.INGEST, mode=mode, why="why"), **changes)


@pytest.mark.parametrize(
    ("figures", "database", "still", "failing"),
    [
        (worker("whole slices"), None, 1, []),
        (worker("whole slices"), None, STUCK, ["progress"]),
        (worker("paced"), None, STUCK, []),
        (worker("paused"), None, STUCK, []),
        (worker("memory"), None, STUCK, []),
        (worker("whole slices", held=()), None, STUCK, []),  # nothing to do
        (worker("whole slices"), "no answer", 1, ["database"]),
        (worker("no database"), "no answer", STUCK, ["database", "progress"]),
        (worker("whole slices", broker_away=True), None, 1, ["broker"]),
        (worker("starting", assigned=False, held=()), None, 1, ["assignment"]),
        (worker("starting", held=()), None, STUCK, []),  # more workers than partitions
        (worker("stopping"), None, 1, ["progress"]),
    ],
)  # fmt: skip
def test_a_worker(figures: Any, database: str | None, still: float, failing: list[str]) -> None:
    checks = worker_checks(figures, database=database, still=still)
    assert [check.name for check in checks if not check.ok] == failing
    assert is_ready(checks) is (not failing)
    assert all(check.why for check in checks)


@pytest.mark.parametrize(
    ("figures", "still", "failing"),
    [
        (ingest("full speed"), 1, []),
        (ingest("full speed"), STUCK, ["progress"]),
        (ingest("full speed", at_head=True), STUCK, []),
        (ingest("retention"), STUCK, []),
        (ingest("paused"), STUCK, []),
        (ingest("no relay"), 1, ["relay"]),
        (ingest("no broker"), 1, ["broker"]),
        (samples.ingest_figures(state=None, why="it makes its plan"), STUCK, ["started"]),
    ],
)
def test_an_ingest(figures: Any, still: float, failing: list[str]) -> None:
    assert [check.name for check in ingest_checks(figures, still=still) if not check.ok] == failing


def test_standing_still_counts_only_while_there_is_something_to_do() -> None:
    progress = Progress(0.0)
    assert progress.still(1.0, 5, idle=False) == 0
    assert progress.still(31.0, 5, idle=False) == 30
    assert progress.still(40.0, 6, idle=False) == 0
    assert progress.still(90.0, 6, idle=True) == 0
    assert progress.still(91.0, 6, idle=False) == 1


def test_a_position_that_moves_over_control_messages_is_progress() -> None:
    figures = samples.worker_figures()
    count, idle = progress_of(figures)
    assert not idle
    assert count == samples.WORKER.received + sum(held.next_offset for held in figures.held)


@pytest.mark.parametrize("host", ["localhost", "localhost:6066", "127.0.0.1:6066", "127.3.2.1", "[::1]:6066"])
def test_names_of_this_machine(host: str) -> None:
    assert names_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.example", "evil.example:6066", "localhost.evil.example", "10.0.0.1",
        "127.0.0.1.evil.example", "[", "a b",
    ],
)  # fmt: skip
def test_other_names_that_lead_here(host: str | None) -> None:
    assert not names_loopback(host)
