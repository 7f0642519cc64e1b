"""The facts that an ingest reports: its position, its state, its last line. Pure: made of what the session gives."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from streams.ingestion.pace import IngestPace
from streams.kafka.disk import broker_folder, check_disk
from streams.messages import NOTHING_SHOWN
from streams.resources.memory_watch import MemoryWatch
from streams.settings import Settings
from streams.sources.firehose.intake import FrameCounts
from streams.sources.firehose.plan import Decision
from streams.sources.firehose.relay import relay_name
from streams.sources.firehose.sequence.continuity import Continuity
from streams.sources.firehose.start import PlannedRun, frames_ahead
from streams.status.process import IngestState, MemoryUse, Mode, plan_text
from streams.text import as_time, format_log_time
from streams.ui.terminal.ingest_bar import IngestPosition

log = structlog.get_logger("streams.ingest")


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a session. ``start`` and ``continuity``: None until there is a plan; ``rate``: events a second."""

    relay: str
    days: int
    start: PlannedRun | None
    continuity: Continuity | None
    counts: FrameCounts
    rate: float
    unacknowledged: int
    web: str | None


def ingest_position(start: PlannedRun, continuity: Continuity, counts: FrameCounts) -> IngestPosition:
    """Return where the reading stands, for the progress."""
    return IngestPosition(
        seq=continuity.position, events=counts.events,
        frames=counts.frames, dead=counts.dead, begin=start.covered_from,
        time=continuity.time, head=start.head.time if start.head else None,
    )  # fmt: skip


def ingest_state(facts: Facts, mode: tuple[Mode, str], pace: IngestPace, memory: MemoryWatch) -> IngestState:
    """Return an ingest's state, for ``status``, the metrics and the live page."""
    start, counts, outlook = facts.start, facts.counts, pace.outlook
    at = ingest_position(start, facts.continuity, counts) if start and facts.continuity else None
    return IngestState(
        mode=mode[0], why=mode[1],
        memory=MemoryUse(memory.rss, memory.limit, in_flight=facts.unacknowledged, budget=memory.budget.total),
        machine=pace.machine,
        relay=facts.relay, run=start.run if start else 0, plan=plan_text(start.mode, facts.days) if start else "",
        seq=at.seq if at else 0, time=as_time(at.time) if at else None, head=as_time(at.head) if at else None,
        oldest=as_time(start.oldest.time) if start and start.oldest else None,
        covered_from=as_time(at.begin) if at else None,
        frames=counts.frames, events=counts.events, dead=counts.dead, gaps=counts.gaps,
        rate=facts.rate, bytes_rate=outlook.bytes_rate, speed=outlook.speed, left=outlook.left,
        window_left=outlook.window_left, web=facts.web, repeated=counts.seen, late=counts.late,
    )  # fmt: skip


def report_end(start: PlannedRun, continuity: Continuity, counts: FrameCounts, *, head_reached: bool) -> None:
    """Log the last line: the time that was covered, and the gaps."""
    gaps = [gap for gap in (start.passed_over, start.missing) if gap is not None]
    ranges = [f"{format_log_time(gap.from_time)} to {format_log_time(gap.to_time)}: {gap.reason}" for gap in gaps]
    uncovered = "; ".join(ranges) or None
    if uncovered is None and start.is_blind:
        uncovered = NOTHING_SHOWN
    log.info(
        "done" if head_reached else "stopped",
        head_reached=head_reached, frames=counts.frames, events=counts.events, passed_over=counts.seen,
        out_of_order=counts.late, filtered=counts.filtered, dead_letters=counts.dead, gaps=counts.gaps,
        read_tolerantly=counts.tolerated or None, skipped=dict(counts.skipped_types) or None,
        covered_from=format_log_time(start.covered_from),
        covered_to=format_log_time(continuity.time), not_covered=uncovered,
    )  # fmt: skip


def report_plan(settings: Settings, start: PlannedRun, decision: Decision, days: int) -> None:
    """Log what was asked for, what the relay keeps, where the run begins and what it takes. Raises DiskError."""
    oldest, head = start.oldest, start.head
    asked = f"{days} days" if days > 0 else "all that the relay keeps"
    log.info(
        "plan", mode=start.mode, asked=asked, asked_from=format_log_time(decision.target),
        relay=relay_name(settings.relay_url), relay_keeps_from=format_log_time(oldest.time) if oldest else "not known",
        head=format_log_time(head.time) if head else "silent", begins_after_seq=start.position.seq,
    )  # fmt: skip
    if decision.resume_from is not None:
        log.info(
            "the topic has watermarks: resuming at the lowest, whatever --days says; --restart begins again",
            seq=start.position.seq, time=format_log_time(start.position.time),
        )  # fmt: skip
    if start.missing is not None:
        log.warning("not covered: " + start.missing.reason,
                    since=format_log_time(start.missing.from_time),
                    until=format_log_time(start.missing.to_time))  # fmt: skip
    if (over := start.passed_over) is not None:
        log.warning("not covered: the run begins behind what the topic holds",
                    since=format_log_time(over.from_time), until=format_log_time(over.to_time))  # fmt: skip
    if head is not None:
        frames = frames_ahead(start)
        if frames is None:
            log.info("disk: the relay's seqs do not tell how much the range takes")
        else:
            log.info("disk: " + check_disk(broker_folder(settings), frames))
