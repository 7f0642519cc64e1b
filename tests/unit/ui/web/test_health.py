"""When a process is ready, and when not, and why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.status.process import Mode
from streams.ui.web.guard import names_loopback
from streams.ui.web.health import STUCK_SECONDS, ProgressWatch, ingest_checks, is_ready, progress_of, worker_checks
from tests.support import web_samples as samples

STUCK = STUCK_SECONDS + 1


def worker(mode: Mode, **changes: Any) -> Any:
    return samples.worker_figures(state=msgspec.structs.replace(samples.WORKER, mode=mode, why="why"), **changes)


def ingest(mode: Mode, **changes: Any) -> Any:
    return samples.ingest_figures(state=msgspec.structs.replace(samples.INGEST, mode=mode, why="why"), **changes)


@pytest.mark.parametrize(
    ("figures", "database", "still", "failing"),
    [
        (worker(Mode.WHOLE_SLICES), None, 1, []),
        (worker(Mode.WHOLE_SLICES), None, STUCK, ["progress"]),
        (worker(Mode.PACED), None, STUCK, []),
        (worker(Mode.PAUSED), None, STUCK, []),
        (worker(Mode.MEMORY), None, STUCK, []),
        (worker(Mode.WHOLE_SLICES, held=()), None, STUCK, []),  # nothing to do
        (worker(Mode.WHOLE_SLICES), "no answer", 1, ["database"]),
        (worker(Mode.NO_DATABASE), "no answer", STUCK, ["database", "progress"]),
        (worker(Mode.WHOLE_SLICES, broker_away=True), None, 1, ["broker"]),
        (worker(Mode.STARTING, assigned=False, held=()), None, 1, ["assignment"]),
        (worker(Mode.STARTING, held=()), None, STUCK, []),  # more workers than partitions
        (worker(Mode.STOPPING), None, 1, ["progress"]),
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
        (ingest(Mode.FULL_SPEED), 1, []),
        (ingest(Mode.FULL_SPEED), STUCK, ["progress"]),
        (ingest(Mode.FULL_SPEED, at_head=True), STUCK, []),
        (ingest(Mode.RETENTION), STUCK, []),
        (ingest(Mode.PAUSED), STUCK, []),
        (ingest(Mode.NO_RELAY), 1, ["relay"]),
        (ingest(Mode.NO_BROKER), 1, ["broker"]),
        (samples.ingest_figures(state=None, why="it makes its plan"), STUCK, ["started"]),
    ],
)
def test_an_ingest(figures: Any, still: float, failing: list[str]) -> None:
    assert [check.name for check in ingest_checks(figures, still=still) if not check.ok] == failing


def test_standing_still_counts_only_while_there_is_something_to_do() -> None:
    progress = ProgressWatch(0.0)
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
