"""The start of a run: from the decision and the relay's window to a seq."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog

from streams.messages import Gap, Run, StreamPosition, Watermark
from streams.protocol.tid import MAX_TIME_US
from streams.sources.firehose.plan import Decision, Mode, Window, decided_window, not_shown, passed_over, sequence_of
from streams.sources.firehose.probing import (
    EXPECTED,
    QUIET,
    SILENCE,
    Prober,
    ProbeResult,
    SeenFrame,
    find_head,
    find_oldest,
    find_start,
)
from streams.sources.firehose.relay import relay_name
from streams.sources.firehose.seek import Absence, Sighting
from streams.sources.firehose.sequence.arrival_times import Reference
from streams.sources.firehose.sequence.arrivals import Memory
from streams.sources.firehose.sequence.continuity import Continuity
from streams.text import format_log_time

#: Frames a second, over an hour or more, that no relay has sent: the network's peaks are some thousands.
MOST_A_SECOND: Final = 50_000

log = structlog.get_logger("streams.ingest")


@dataclass(slots=True)
class PlannedRun:
    """A run: its id (µs), how and where it begins, and what was known of the relay then.

    ``known``: the position is a frame that was taken, and must come again as a proof. ``missing``: the gap that was
    asked for and that the relay does not show. ``passed_over``: the gap between the topic's last event and this run.
    ``live``: the relay sends nothing for a cursor, so it is read without one. ``heads`` and ``tails``: its live
    and its oldest frames. ``announced``: Kafka has the run's first messages.
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
    heads: tuple[SeenFrame, ...] = ()
    tails: tuple[SeenFrame, ...] = ()
    announced: bool = False

    @property
    def is_blind(self) -> bool:
        """Return whether the relay has shown no frame at all: neither its window nor our beginning is known."""
        return self.mode != "resume" and self.oldest is None

    @property
    def covered_from(self) -> int | None:
        """Return from when on the run covers the firehose, in µs, as frames have shown it; None: not known."""
        if self.mode == "resume":
            return self.position.time
        if self.oldest is None or self.oldest.time is None:
            return None
        return max(self.oldest.time, self.asked_from or 0)

    def continuity(self, memory: Memory) -> Continuity:
        """Return what judges the frames from this run's position on. ``memory``: of the frames that came before."""
        at = self.position
        return Continuity(
            at.seq, known=self.known, event=at.event, time=at.time, reference=Reference(at.median, at.spread),
            memory=memory, clock=lambda: time.time_ns() // 1000,
        )  # fmt: skip

    def watermark(self, relay: str, topic_id: str, position: StreamPosition) -> Watermark:
        """Return this run's watermark for a position."""
        return Watermark(
            relay=relay, run=self.run, topic_id=topic_id, seq=position.seq, time=position.time,
            median=position.median, spread=position.spread, event=position.event, sequence=self.sequence,
        )  # fmt: skip

    def announcement(self, relay: str, topic_id: str, days: int) -> Run:
        """Return the message that begins this run in the topic. ``days``: as asked for."""
        oldest, head = self.oldest, self.head
        return Run(
            relay=relay, run=self.run, topic_id=topic_id, mode=self.mode, days=days, asked_from=self.asked_from,
            oldest_seq=oldest.seq if oldest else None, oldest_time=oldest.time if oldest else None,
            from_seq=self.position.seq + 1,
            head_seq=head.seq if head else None, head_time=head.time if head else None,
        )  # fmt: skip


async def plan_start(url: str, decision: Decision, *, after_run: int, quiet: float | None = None) -> PlannedRun:
    """Return the run for a decision, with its place in the relay's sequence. ``after_run``: the newest run so far.

    ``quiet``: seconds for a first frame of a relay that shows nothing (QUIET). Raises RelayError.
    """
    prober, relay = Prober(url), relay_name(url)
    resumed = decision.resume_from
    quiet = SILENCE if resumed is not None else QUIET if quiet is None else quiet
    window, heads, tails = await _window(prober, quiet, resumed=resumed is not None)
    oldest, head = window.oldest, window.head
    # A run is its start; were our clock behind that of a run before, it would count as older.
    run = max(time.time_ns() // 1000, after_run + 1)
    if resumed is not None:
        # Versions up to 0.1.0 wrote no event, and a time only where one was taken.
        is_old = resumed.median is None and resumed.time is not None
        known = resumed.event is not None or resumed.newest is not None or is_old
        return PlannedRun(
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
        start = PlannedRun(run, decision.mode, position, True, run, decision.target, head, head, live=True)
        first: Sighting | None = head
    else:
        first = oldest
        if oldest is not None and decision.target is not None:
            log.info("searching the relay for the time asked for", time=format_log_time(decision.target))
            first = await find_start(prober, oldest, head, decision.target)
        # A relay may still hold the sequence before the reset, whose seqs are higher: ask for everything.
        begin = 0 if first is None or decision.mode == "reset" else first.seq - 1
        position = StreamPosition(begin, None)
        start = PlannedRun(run, decision.mode, position, False, run, decision.target, oldest, head, live=window.live)
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
    """Return a watermark's time; None if it is out of range: older versions took what a frame claimed."""
    return time if time is not None and 0 <= time <= MAX_TIME_US else None


async def _window(
    prober: Prober, quiet: float, *, resumed: bool
) -> tuple[Window, tuple[SeenFrame, ...], tuple[SeenFrame, ...]]:
    """Return the relay's window as far as it shows it, its live frames and its oldest ones.

    The probes come one after another: some relays take one connection of each address at a time.
    """
    live = await prober.probe(None, SILENCE)
    old = await _oldest(prober, EXPECTED if live.frames and not resumed else quiet)
    oldest, head = old.oldest, live.head
    if old.absence is Absence.REFUSED and head is not None and not resumed:
        log.warning("the relay refuses the cursors 0 and 1: searching for the oldest that it takes")
        oldest = await find_oldest(prober, head)
    if head is None and oldest is not None:
        head = await find_head(prober, oldest)
    return decided_window(oldest, head, old.absence, was_live=bool(live.frames)), live.frames, old.frames


async def cursor_taken(url: str) -> int | None:
    """Return the oldest cursor that a relay takes, after it refused ours; None: it takes none. Raises RelayError."""
    prober = Prober(url)
    for cursor in (0, 1):
        if (await prober.probe(cursor, SILENCE)).absence is not Absence.REFUSED:
            return cursor
    head = (await prober.probe(None, QUIET)).first
    oldest = await find_oldest(prober, head) if head is not None else None
    return oldest.seq - 1 if oldest is not None else None


async def _oldest(prober: Prober, timeout: float) -> ProbeResult:
    """Return what a probe of the oldest cursor finds; some relays refuse 0."""
    found = await prober.probe(0, timeout)
    return await prober.probe(1, timeout) if found.absence is Absence.REFUSED else found


def frames_ahead(start: PlannedRun) -> int | None:
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
