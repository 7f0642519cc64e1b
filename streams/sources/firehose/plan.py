"""Where an ingest begins: resumed, started, restarted, or refused. Pure.

The topic's own watermarks decide first: where there are some the ingest resumes, whatever was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streams.errors import MismatchError
from streams.messages import (
    CURSOR_LOST,
    CURSORS_REFUSED,
    NOT_KEPT,
    NOTHING_SHOWN,
    OLD_NOT_SHOWN,
    Gap,
    GapKind,
    StreamPosition,
    Watermark,
)
from streams.sources.firehose.seek import Absence, Sighting
from streams.text import format_iso

DAY_US = 86_400_000_000
#: A shortfall of the relay's window that is reported as a gap, in µs. Shorter ones are not: times are informal.
SHORTFALL = 60_000_000

Mode = Literal["start", "resume", "restart", "reset", "overlap"]


@dataclass(frozen=True, slots=True)
class Request:
    """The user's request: ``from_time`` and ``now`` in µs since the epoch."""

    days: int
    restart: bool
    from_time: int | None
    now: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The way to begin. ``target``: the time to begin at (None: the oldest kept, or ``resume_from``).

    ``held``: up to where the topic holds something that the run does not go on from.
    """

    mode: Mode
    target: int | None
    resume_from: Watermark | None
    held: Watermark | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The events that a relay has shown to keep. ``live``: it sends nothing for a cursor and must be read without one.

    ``unknown``: why the oldest is not known, or not to be believed; None where it is known.
    """

    oldest: Sighting | None
    head: Sighting | None
    live: bool = False
    unknown: str | None = None


def decided_window(
    oldest: Sighting | None, head: Sighting | None, absence: Absence | None, *, was_live: bool
) -> Window:
    """Return the window that probes have shown.

    ``absence``: why the oldest cursor gave nothing; ``was_live``: live frames came.
    """
    if oldest is not None:
        # The head was seen before the oldest: it must still be there.
        lost = was_live and head is not None and oldest.seq > head.seq
        return Window(oldest, head, unknown=CURSOR_LOST if lost else None)
    if absence is Absence.REFUSED:
        return Window(None, head, live=True, unknown=CURSORS_REFUSED)
    if was_live:
        return Window(None, head, live=True, unknown=OLD_NOT_SHOWN)
    return Window(None, head, live=absence is Absence.FUTURE, unknown=NOTHING_SHOWN)


def decide(request: Request, last: Watermark | None, relay: str) -> Decision:
    """Decide whether to resume or to begin. Raises MismatchError where the topic's events are another relay's."""
    target = request.from_time if request.from_time is not None else _days_ago(request)
    if last is None:
        return Decision("start", target, None)
    if request.restart:
        return Decision("restart", target, None, last)
    if request.from_time is not None:
        return Decision("overlap", target, None, last)
    if last.relay != relay:
        raise MismatchError(
            f"The topic holds events of {last.relay}, and {relay} is another relay: its seqs mean something else.",
            "To go on, give --from-time with a time that is certainly covered (the last watermark is of "
            f"{format_iso(last.time)}); to begin again, give --restart; to keep them apart, set another KAFKA_TOPIC.",
        )
    return Decision("resume", None, last)


def _days_ago(request: Request) -> int | None:
    return None if request.days < 0 else max(request.now - request.days * DAY_US, 0)


def not_shown(window: Window, target: int | None, relay: str, run: int) -> Gap | None:
    """Return the gap that was asked for and that the relay does not show; None: there is none.

    If the relay has shown no frame at all, that is decided later: with the first frame, or at the end.
    """
    first = window.oldest or window.head
    if first is None:
        return None
    short = target is not None and first.time is not None and first.time - target > SHORTFALL
    if window.oldest is not None and not (short or (window.unknown and target is None)):
        return None
    to_seq = first.seq - 1 if window.oldest is not None else first.seq  # a head alone is not taken
    ends = [time for time in (first.time, target) if time is not None]
    return Gap(
        relay=relay, run=run, from_seq=None, to_seq=to_seq, from_time=target, to_time=max(ends, default=None),
        reason=window.unknown or NOT_KEPT, gap_kind=GapKind.NOT_KNOWN if window.unknown else GapKind.NOT_KEPT,
    )  # fmt: skip


def blind_gap(relay: str, run: int, asked_from: int | None, now: int) -> Gap:
    """Return the gap of a run in which the relay has shown nothing: what it keeps is not known."""
    return Gap(
        relay=relay, run=run, from_seq=None, to_seq=None, from_time=asked_from, to_time=now,
        reason=NOTHING_SHOWN, gap_kind=GapKind.NOT_KNOWN,
    )  # fmt: skip


def reset_gap(relay: str, run: int, last: StreamPosition, to_time: int | None, why: str) -> Gap:
    """Return the gap between a sequence, read up to ``last``, and the one that began after it."""
    return Gap(
        relay=relay, run=run, from_seq=last.seq + 1, to_seq=None, from_time=last.time, to_time=to_time,
        reason=f"the relay's sequence was reset: {why}", gap_kind=GapKind.SEQUENCE_RESET,
    )  # fmt: skip


def sequence_of(held: Watermark | None, relay: str, run: int, first: Sighting | None, head: Sighting | None) -> int:
    """Return the sequence of a run that does not resume: the held one if that is plainly still the relay's.

    A sequence is named by the run in which it began (µs). If it cannot be known, ``run`` begins another: then the
    believed time orders the events of an account in the two.
    """
    if held is None or held.sequence is None or held.relay != relay or first is None:
        return run
    if head is not None and head.seq < held.seq:
        return run  # it was reset
    if first.seq <= held.seq and first.time is not None and held.time is not None and first.time > held.time:
        return run  # a lower seq is newer: it was reset, and has come far since
    return held.sequence


def passed_over(held: Watermark | None, relay: str, run: int, first: Sighting | None, target: int | None) -> Gap | None:
    """Return the gap between the topic's last event and ``first``, if a run begins behind it; None: there is none."""
    if held is None or first is None:
        return None
    same = held.relay == relay
    if first.seq <= held.seq + 1 if same else first.time is None or held.time is None or first.time <= held.time:
        return None
    asked = target is not None and (held.time is None or target > held.time)
    ends = [time for time in (first.time, target if asked else None) if time is not None]
    why = (
        "the run was told to begin behind it (--restart or --from-time)" if asked else "the relay keeps no older events"
    )
    return Gap(
        relay=relay, run=run, from_seq=held.seq + 1 if same else None, to_seq=first.seq - 1 if same else None,
        from_time=held.time, to_time=min(ends, default=None),
        reason=f"behind what the last run has taken: {why}", gap_kind=GapKind.PASSED_OVER,
    )  # fmt: skip
