"""The readiness of a process, with reasons. Pure: the facts are found out elsewhere.

Waiting on purpose (a pause, the pace, memory, a slow group) is ready: starting it again would not help. Something that
is away is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streams.status.process import Mode
from streams.ui.web.figures import Figures, IngestFigures, WorkerFigures

#: Seconds without progress, with work to do and no reason to wait, after which a process is not ready.
STUCK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """One question. ``why`` is a sentence, also where all is well."""

    name: str
    ok: bool
    why: str


class ProgressWatch:
    """A watch for a process that has something to do, and does not move."""

    def __init__(self, now: float) -> None:
        self._count = -1
        self._at = now

    def still(self, now: float, count: int, idle: bool) -> float:
        """Return the seconds since ``count`` last changed; 0 while there is nothing to do."""
        if idle or count != self._count:
            self._count, self._at = count, now
        return now - self._at


def progress_of(figures: Figures) -> tuple[int, bool]:
    """Return the count that is progress, and True if there is nothing to do."""
    if isinstance(figures, WorkerFigures):
        return figures.state.received + sum(held.next_offset for held in figures.held), not figures.lag
    return (figures.state.frames if figures.state is not None else 0), figures.at_head or figures.state is None


def worker_checks(figures: WorkerFigures, *, database: str | None, still: float) -> list[Check]:
    """Return the checks of a worker. ``database``: why it cannot be reached, None where it answers."""
    state, lag = figures.state, figures.lag
    broker = not figures.broker_away and state.mode is not Mode.NO_BROKER
    checks = [
        Check("database", database is None, database or "it answers"),
        Check("broker", broker, "it answers" if broker else "Kafka does not answer: the worker waits for it"),
        Check("assignment", figures.assigned, _assignment(figures)),
    ]
    if not lag:
        return [*checks, Check("progress", True, "nothing to do")]
    return [*checks, _moving(state.mode, state.why, still, f"{lag:,} messages are waiting")]


def _assignment(figures: WorkerFigures) -> str:
    if not figures.assigned:
        return "no partitions yet: it starts, or Kafka assigns them again"
    count = len(figures.state.partitions)
    return f"{count} partitions" if count else "no partition: there are more workers than partitions"


def ingest_checks(figures: IngestFigures, *, still: float) -> list[Check]:
    """Return the checks of an ingest."""
    state = figures.state
    if state is None:
        return [Check("started", False, figures.why or "it makes its plan")]
    checks = [
        Check(
            "started",
            state.mode is not Mode.STARTING,
            "it makes its plan" if state.mode is Mode.STARTING else "it runs",
        ),
        Check("relay", state.mode is not Mode.NO_RELAY, state.why if state.mode is Mode.NO_RELAY else "connected"),
        Check("broker", state.mode is not Mode.NO_BROKER, state.why if state.mode is Mode.NO_BROKER else "it answers"),
    ]
    if figures.at_head:
        return [*checks, Check("progress", True, "at the relay's head")]
    return [*checks, _moving(state.mode, state.why, still, "not at the relay's head")]


def _moving(mode: Mode, why: str, still: float, waiting: str) -> Check:
    if mode.is_on_purpose:
        return Check("progress", True, f"on purpose: {mode}{f' ({why})' if why else ''}")
    if mode is Mode.STOPPING:
        return Check("progress", False, "it stops")
    if still < STUCK_SECONDS:
        return Check("progress", True, "it moves")
    return Check("progress", False, f"nothing has moved for {still:.0f} s, and {waiting}")


def is_ready(checks: list[Check]) -> bool:
    """Return True if every check is passed."""
    return all(check.ok for check in checks)
