"""The troubles of a deployment, as sentences for a person. Pure.

A gap or a dead letter is a trouble for a day; the counts stay.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from streams.messages import GapKind
from streams.status.coverage import GapTimes
from streams.status.model import LetterSummary, Process, Status
from streams.text import format_span, format_time, printable

#: Seconds that a gap or a dead letter counts as a trouble.
FRESH: Final = 86_400.0
#: Messages that may wait without being a trouble, however fast they become more.
SMALL_LAG: Final = 10_000
#: An ingest this many seconds behind the head, or fewer, has reached it: frames' times are not exact.
_AT_HEAD: Final = 60.0
_START_WORKER: Final = "faust -A streams.agents worker starts one"
_START_INGEST: Final = "python -m streams.ingest starts one"


class Context(msgspec.Struct, frozen=True):
    """Facts beside the Status. ``members``: the hosts in the workers' Kafka group, None where not known.

    ``schema``, ``topic``: what is wrong with them, if anything. ``lag_grows``: messages a second, over ten seconds.
    """

    members: tuple[str, ...] | None = None
    schema: str | None = None
    topic: str | None = None
    gaps: tuple[GapTimes, ...] = ()
    newest: dt.datetime | None = None
    lag_grows: float | None = None


def troubles(status: Status, context: Context) -> tuple[str, ...]:
    """Return the sentences, the gravest first; none where all is well."""
    return tuple(
        sentence
        for part in (
            [text for text in (context.topic, context.schema) if text],
            _workers(status, context.members),
            _ingest(status, context.newest),
            _positions(status),
            _pause(status),
            _processes(status),
            _pace(status, context.lag_grows),
            _gaps(status.at, context.gaps, status.gaps),
            _letters(status.at, status.last_letters, status.dead_letters),
        )
        for sentence in part
    )


def _workers(status: Status, members: tuple[str, ...] | None) -> Iterator[str]:
    there = [p for p in status.processes if p.kind == "worker" and p.alive]
    joined = len(members or ())
    if not there and not joined:
        yield f"No worker runs ({_last(status, 'worker')}): {_START_WORKER}."
    elif not there:
        yield (
            f"No worker reports ({_last(status, 'worker')}), and Kafka still counts {joined} "
            f"({_hosts(members or ())}): killed a moment ago, frozen, cut off from Postgres, or of an older version."
        )
    elif members is not None and not joined:
        yield (
            f"{_number(len(there), 'worker')} reported ({_hosts([p.host for p in there])}), and Kafka's group has no "
            "member: just stopped or starting, or cut off from Kafka."
        )
    elif members is not None and joined != len(there):
        yield (
            f"{_number(len(there), 'worker')} reported ({_hosts([p.host for p in there])}), and Kafka's group has "
            f"{joined} ({_hosts(members)}): one is starting, was killed a moment ago, or cannot reach Postgres."
        )


def _ingest(status: Status, newest: dt.datetime | None) -> Iterator[str]:
    known = [p for p in status.processes if p.kind == "ingest"]
    if any(p.alive for p in known):
        return
    behind = status.head is not None and not reaches_head(newest, status)
    if not known:
        # An ingest without a database has no row here. Only its writes to Kafka show that it runs.
        if not status.rates.kafka and (status.run is None or behind):
            yield f"No ingest runs (none ever reported here): {_START_INGEST}."
    elif known[0].ended_at is None:
        yield f"No ingest runs ({_last(status, 'ingest')}, and it did not end in order): {_START_INGEST}."
    elif behind:
        yield f"No ingest runs ({_last(status, 'ingest')}), and the relay's head was not reached: {_START_INGEST}."


def _last(status: Status, kind: str) -> str:
    """Return when the last process of a kind was seen."""
    gone = [p for p in status.processes if p.kind == kind]
    if not gone:
        return "none ever reported"
    last = max(gone, key=lambda p: p.seen_at)
    ago = format_span(max((status.at - last.seen_at).total_seconds(), 0.0))
    return f"the last one {'ended' if last.ended_at else 'was seen'} {ago} ago on {printable(last.host)}"


def _positions(status: Status) -> Iterator[str]:
    for p in status.partitions:
        if p.next_offset > p.end:
            yield (
                f"Partition {p.partition} is applied up to {p.next_offset}, and the topic ends at {p.end}: it was "
                "re-created. Take another SINK_GROUP and SINK_SCHEMA."
            )
        elif p.next_offset < p.begin:
            yield (
                f"Partition {p.partition}: {p.begin - p.next_offset:,} messages left the topic before they were "
                "applied: they will be a gap. Raise the topic's retention, or let the workers go faster."
            )


def _pause(status: Status) -> Iterator[str]:
    if (pause := status.paused) is not None:
        what = "The workers and the ingest are" if pause.ingest else "The workers are"
        why = f" ({printable(pause.reason, 200)})" if pause.reason else ""
        yield (
            f"{what} paused since {pause.since:%Y-%m-%d %H:%M:%S}Z by {printable(pause.by)}{why}: "
            "faust -A streams.agents resume ends that."
        )


def _processes(status: Status) -> Iterator[str]:
    for process in (p for p in status.processes if p.alive):
        name = process_name(process)
        if process.version != status.version:
            yield f"The {name} has version {printable(process.version, 30)}, and this is {status.version}."
        state = process.worker or process.ingest
        if state is not None and state.mode.is_waiting:
            yield f"The {name} waits ({state.mode}): {printable(state.why, 300)}"


def _pace(status: Status, lag_grows: float | None) -> Iterator[str]:
    if lag_grows is not None and lag_grows > 0 and status.lag > SMALL_LAG:
        yield (
            f"The lag grows by {lag_grows:,.0f} messages/s, {status.lag:,} wait in Kafka: a backfill may do so for a "
            "while; what leaves the topic by its retention before it is applied is lost."
        )
    for process in status.processes:
        state = process.ingest if process.alive else None
        if (
            state is not None
            and state.window_left is not None
            and (state.left is None or state.window_left < state.left)
        ):
            yield (
                f"The relay's window will run out: in {format_span(state.window_left)}, at this pace, it drops what "
                "is not taken yet. Let the ingest go faster (INGEST_BUSY_MB_PER_S, an idle machine), "
                "or ask for fewer days."
            )


def _gaps(at: dt.datetime, gaps: Sequence[GapTimes], count: int) -> Iterator[str]:
    fresh = [g for g in gaps if (at - g.written).total_seconds() < FRESH]
    missed = [g for g in fresh if g.kind is not GapKind.NOT_KEPT]
    if missed:
        gap = missed[0]
        yield (
            f"A gap of {_format_gap_time(gap.begin)} to {_format_gap_time(gap.end)}: {printable(gap.reason, 200)}"
            f"{_more(count)}: faust -A streams.agents gaps list."
        )
    elif fresh:
        begin, end = _format_gap_time(fresh[0].begin), _format_gap_time(fresh[0].end)
        yield f"The relay did not keep what was asked for: {begin} to {end} is not covered."


def _letters(at: dt.datetime, letters: Sequence[LetterSummary], count: int) -> Iterator[str]:
    if letters and (at - letters[0].at).total_seconds() < FRESH:
        reason = printable(letters[0].reason, 200)
        yield f"A dead letter: {reason}{_more(count)}: faust -A streams.agents dead-letters list."


def reaches_head(moment: dt.datetime | None, status: Status) -> bool:
    """Return True if the relay has had nothing later than ``moment`` for a while, as far as that is known.

    The head is what was asked for when the ingest started, or what it has read since. An ingest that follows may be far
    behind the clock all the same: that shows while its events' time moves on. Where it does not, the relay is quiet.
    """
    if moment is None or status.head is None:
        return False
    for state in (p.ingest for p in status.processes if p.alive and p.ingest is not None):
        if state.time is not None and state.speed and (status.at - state.time).total_seconds() > _AT_HEAD:
            return False
    return (status.head - moment).total_seconds() <= _AT_HEAD


def replaced(processes: Sequence[Process]) -> frozenset[Process]:
    """Return the lost processes that are replaced: each by one live process that started after it was last seen."""
    found: set[Process] = set()
    for kind in ("worker", "ingest"):
        started = sorted(p.started_at for p in processes if p.kind == kind and p.alive)
        lost = [p for p in processes if p.kind == kind and not p.alive and p.ended_at is None]
        for process in sorted(lost, key=lambda p: p.seen_at, reverse=True):
            if started and started[-1] > process.seen_at:
                started.pop()
                found.add(process)
    return frozenset(found)


def process_name(process: Process) -> str:
    """Return ``worker on HOST (pid 42)``."""
    return f"{process.kind} on {printable(process.host)} (pid {process.pid})"


def _more(count: int) -> str:
    return f" (and {count - 1:,} more)" if count > 1 else ""


def _format_gap_time(at: dt.datetime | None) -> str:
    return "an unknown time" if at is None else format_time(at)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")


def _hosts(hosts: Sequence[str]) -> str:
    return ", ".join(sorted({printable(host) for host in hosts}))
