"""The page's one sentence: the state of the deployment, and what it waits for. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from streams.status.model import Status
from streams.status.process import IngestState, Mode, WorkerState
from streams.status.troubles import reaches_head
from streams.text import clock, format_duration, number, printable_or_dash
from streams.ui.web.figures import Figures

#: Messages that may be on their way at any moment, while all is applied that can be.
_AT_REST: Final = 50


class Headline(msgspec.Struct, frozen=True):
    """The sentence. ``title`` is for the browser's tab. ``tone``: good, busy, wait, bad."""

    tone: str
    title: str
    text: str
    detail: str


def headline(status: Status | None, trouble: str | None, figures: Figures, now: dt.datetime) -> Headline:
    """Return the state of a deployment in a sentence: the worst that is true."""
    if status is None:
        detail = printable_or_dash(trouble, 300) if trouble else "It is being read."
        return Headline("wait", "not known", "The deployment cannot be seen from here now.", detail)
    if status.paused is not None:
        paused = status.paused
        who = "Workers and ingest are paused" if paused.ingest else "The workers are paused"
        reason = f": {printable_or_dash(paused.reason, 200)}" if paused.reason else "."
        return Headline(
            "wait",
            "paused",
            f"{who} since {clock(paused.since, now)}.",
            f"By {printable_or_dash(paused.by, 60)}{reason}",
        )
    alive = [process for process in status.processes if process.alive]
    workers = [p.worker for p in alive if p.worker is not None]
    ingest = next((p.ingest for p in alive if p.ingest is not None), None)
    if not any(process.kind == "worker" for process in alive):
        return Headline(
            "bad", "no worker", "No worker runs.", f"{number(status.lag)} messages wait in Kafka until one is started."
        )
    return _working(status, workers, ingest, now)


def _working(status: Status, workers: list[WorkerState], ingest: IngestState | None, now: dt.datetime) -> Headline:
    waits: list[WorkerState | IngestState] = [*(w for w in workers if w.mode.is_waiting)]
    if ingest is not None and ingest.mode.is_waiting:
        waits.append(ingest)
    if waits:
        first = waits[0]
        return Headline("wait", first.mode, f"Waiting: {first.mode}.", printable_or_dash(first.why, 300))
    if status.lag <= _AT_REST and (rest := _at_rest(status, now)) is not None:
        return rest
    left = status.seconds_left
    text = f"Catching up: {format_duration(left)} to go at this speed." if left is not None else "Catching up."
    return Headline("busy", "catching up", text, pace(workers))


def _at_rest(status: Status, now: dt.datetime) -> Headline | None:
    """Return the sentence while nothing waits in Kafka; None while there is more to come."""
    runs = any(process.kind == "ingest" and process.alive for process in status.processes)
    up_to = clock(status.covered_to, now)
    if reaches_head(status.covered_to, status):
        detail = "" if runs else "No ingest runs: nothing new is read from the relay."
        return Headline("good", "caught up", f"Caught up: everything up to {up_to} UTC is in Postgres.", detail)
    # An ingest without a database has no row. Only its writes to Kafka show that it runs.
    if not runs and not status.rates.kafka:
        what = "Nothing is" if status.covered_to is None else f"What came after {up_to} UTC is not"
        return Headline("bad", "no ingest", "No ingest runs.", f"{what} read from the relay until one is started.")
    if not status.received:
        return Headline("busy", "nothing yet", "Nothing has come from the relay yet.", "")
    return None


def pace(workers: list[WorkerState]) -> str:
    """Return what the throttle does and why, of the first worker that is paced, else of the first."""
    paced = [worker for worker in workers if worker.mode is Mode.PACED] or workers
    if not paced:
        return ""
    first = paced[0]
    said = {Mode.PACED: "At the settings' pace", Mode.WHOLE_SLICES: "As fast as it goes"}.get(
        first.mode, first.mode.capitalize()
    )
    return f"{said}: {printable_or_dash(first.why, 200)}." if first.why else f"{said}."
