"""Where a run starts: what was decided, what the relay keeps, and the frame that it comes down to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog

from streams.messages import Gap, StreamPosition, Watermark
from streams.protocol.tid import MAX_TIME_US
from streams.sources.firehose.looking import (
    EXPECTED,
    QUIET,
    SILENCE,
    Answer,
    Asker,
    Seen,
    find_head,
    find_oldest,
    find_start,
)
from streams.sources.firehose.plan import Decision, Mode, Window, decided_window, not_shown, passed_over, sequence_of
from streams.sources.firehose.relay import relay_name
from streams.sources.firehose.seek import Absence, Sighting
from streams.text import moment

#: Frames a second, over an hour or more, that no relay has sent: the network's peaks are some thousands.
MOST_A_SECOND: Final = 50_000

log = structlog.get_logger("streams.ingest")


@dataclass(slots=True)
class RunStart:
    """A run: its id (µs), how and where it begins, and what was known of the relay then.

    ``known``: the position is a frame that was taken, and must come again as a proof. ``missing``: what was asked for
    and is not to be had. ``passed_over``: what was not asked for, behind what the topic holds. ``live``: the relay
    gives nothing for a cursor, so that it is read without one. ``heads`` and ``tails``: its live and its oldest frames.
    ``announced``: Kafka has the run's first messages.
    """

    run: int
    mode: Mode
    position: StreamPosition
    known: bool
    #: The run in which this sequence of the relay began: see ``plan.sequence_of``.
    sequence: int
    asked_from: int | None
    oldest: Sighting | None
    head: Sighting | None
    missing: Gap | None = None
    passed_over: Gap | None = None
    live: bool = False
    #: Up to where the topic holds something that the run does not go on from.
    held: Watermark | None = None
    heads: tuple[Seen, ...] = ()
    tails: tuple[Seen, ...] = ()
    announced: bool = False

    @property
    def is_blind(self) -> bool:
        """Whether the relay has shown no frame at all: what it keeps is not known, and where we begin neither."""
        return self.mode != "resume" and self.oldest is None

    @property
    def covered_from(self) -> int | None:
        """From when on the run takes the firehose, in µs, as frames have shown it; None: not known."""
        if self.mode == "resume":
            return self.position.time
        if self.oldest is None or self.oldest.time is None:
            return None
        return max(self.oldest.time, self.asked_from or 0)


async def plan_start(url: str, decision: Decision, *, after_run: int, quiet: float | None = None) -> RunStart:
    """From a decision to a place in the relay's sequence. ``after_run``: the newest run so far.

    ``quiet``: seconds for a first frame of a relay that shows nothing (QUIET). Raises RelayError.
    """
    asker, relay = Asker(url), relay_name(url)
    resumed = decision.resume_from
    quiet = SILENCE if resumed is not None else QUIET if quiet is None else quiet
    window, heads, tails = await _window(asker, quiet, resumed=resumed is not None)
    oldest, head = window.oldest, window.head
    # A run is its start; were our clock behind that of a run before, it would count as older.
    run = max(time.time_ns() // 1000, after_run + 1)
    if resumed is not None:
        # Versions up to 0.1.0 wrote no event, and a time only where one was taken.
        is_old = resumed.median is None and resumed.time is not None
        known = resumed.event is not None or resumed.newest is not None or is_old
        return RunStart(
            run,
            "resume",
            _position(resumed),
            known,
            resumed.sequence or run,
            None,
            oldest,
            head,
            heads=heads,
            tails=tails,
        )
    if window.live and head is not None:  # the head was seen; it is not taken
        position = StreamPosition(head.seq, None)
        start = RunStart(run, decision.mode, position, True, run, decision.target, head, head, live=True)
        first: Sighting | None = head
    else:
        first = oldest
        if oldest is not None and decision.target is not None:
            log.info("searching the relay for the time asked for", time=moment(decision.target))
            first = await find_start(asker, oldest, head, decision.target)
        # A relay that began anew may still hold the old sequence, whose seqs are higher: it is asked for everything.
        begin = 0 if first is None or decision.mode == "reset" else first.seq - 1
        position = StreamPosition(begin, None)
        start = RunStart(run, decision.mode, position, False, run, decision.target, oldest, head, live=window.live)
    start.heads, start.tails, start.held = heads, tails, decision.held
    start.sequence = sequence_of(decision.held, relay, run, first, head)
    start.passed_over = passed_over(decision.held, relay, run, first, decision.target)
    if decision.mode != "reset" or window.live:  # a relay may send its old sequence before the new one
        start.missing = not_shown(window, decision.target, relay, run)
    return start


def _position(last: Watermark) -> StreamPosition:
    """Return the position of a watermark. Its times may be those of a wrong clock: see ``ResetWitnesses.believed``."""
    median = _held(last.median if last.median is not None else last.time)
    return StreamPosition(last.seq, _held(last.time), median, last.spread, last.event)


def _held(time: int | None) -> int | None:
    """A watermark's time; None where it is one that nobody can hold: older versions took what a frame claimed."""
    return time if time is not None and 0 <= time <= MAX_TIME_US else None


async def _window(asker: Asker, quiet: float, *, resumed: bool) -> tuple[Window, tuple[Seen, ...], tuple[Seen, ...]]:
    """What the relay keeps: its oldest frame and its head, as far as it shows them; its live frames and its oldest.

    One connection after another: some relays take one of each address at a time.
    """
    live = await asker.ask(None, SILENCE)
    old = await _oldest(asker, EXPECTED if live.frames and not resumed else quiet)
    oldest, head = old.oldest, live.head
    if old.absence is Absence.REFUSED and head is not None and not resumed:
        log.warning("the relay refuses the cursors 0 and 1: searching for the oldest that it takes")
        oldest = await find_oldest(asker, head)
    if head is None and oldest is not None:
        head = await find_head(asker, oldest)
    return decided_window(oldest, head, old.absence, was_live=bool(live.frames)), live.frames, old.frames


async def cursor_taken(url: str) -> int | None:
    """The oldest cursor that a relay takes which has refused ours; None: it takes none. Raises RelayError."""
    asker = Asker(url)
    for cursor in (0, 1):
        if (await asker.ask(cursor, SILENCE)).absence is not Absence.REFUSED:
            return cursor
    head = (await asker.ask(None, QUIET)).first
    oldest = await find_oldest(asker, head) if head is not None else None
    return oldest.seq - 1 if oldest is not None else None


async def _oldest(asker: Asker, patience: float) -> Answer:
    """What the relay answers to the oldest cursor; some refuse 0."""
    answer = await asker.ask(0, patience)
    return await asker.ask(1, patience) if answer.absence is Absence.REFUSED else answer


def frames_ahead(start: RunStart) -> int | None:
    """Return how many frames a run is to read; None where the relay's seqs do not tell.

    A head whose seq is far off, or of another sequence, would be more frames than there were in that time.
    """
    oldest, head = start.oldest, start.head
    if head is None:
        return None
    begin, since = start.position.seq, start.position.time
    if oldest is not None and oldest.seq > begin:
        begin, since = oldest.seq - 1, oldest.time
    frames = max(head.seq - begin, 0)
    if since is not None and head.time is not None and frames > MOST_A_SECOND * max((head.time - since) / 1e6, 3600.0):
        return None
    return frames
