"""Where a run starts: what topic or database say, what the relay keeps, and the frame that it comes down to."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass
from typing import Final

import structlog

from streams.errors import RelayError, SettingsError
from streams.firehose.relay import relay_name
from streams.firehose.seek import Sighting, find_head, find_start, look
from streams.firehose.tid import MAX_TIME_US
from streams.kafka.disk import broker_folder, check_disk
from streams.kafka.messages import Gap, Watermark
from streams.kafka.publisher import Position
from streams.ops.ingest_progress import moment
from streams.plan import Decision, Mode, passed_over, sequence_of, shortfall
from streams.postgres.cursor import read_resume_point
from streams.postgres.database import Database
from streams.settings import Settings

log = structlog.get_logger("streams.ingest")

#: Times that the relay is asked before it counts as unreachable.
ATTEMPTS: Final = 4


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """From where a topic can be resumed (None: nowhere), and its id (None: it has none yet)."""

    watermark: Watermark | None
    topic_id: str | None


@dataclass(slots=True)
class RunStart:
    """A run: its id (µs), how and where it begins, and what was known of the relay then.

    ``known``: the position is a frame that was taken, and must come again as a proof. ``missing``: what was asked for
    and is not to be had. ``passed_over``: what was not asked for, behind what the topic holds. ``announced``: Kafka has
    the run's first messages.
    """

    run: int
    mode: Mode
    position: Position
    known: bool
    #: The run in which this sequence of the relay began: see ``plan.sequence_of``.
    sequence: int
    asked_from: int | None
    oldest: Sighting | None
    head: Sighting | None
    missing: Gap | None = None
    passed_over: Gap | None = None
    announced: bool = False


async def resume_point(settings: Settings, relay: str) -> ResumePoint:
    """The position in the database, for a topic that was written and holds no watermark any more (retention).

    Raises DatabaseError; without a database there is nothing to resume.
    """
    try:
        database = Database(settings.database_dsn(), settings.sink_schema, 1)
    except SettingsError:
        return ResumePoint(None, None)
    try:
        await database.start()
        await database.migrate()
        point = await read_resume_point(database, topic=settings.kafka_topic, service=settings.cursor_service)
    finally:
        await database.close()
    if point.seq is None or point.topic_id is None:
        return ResumePoint(None, point.topic_id)
    log.warning("the topic holds no watermark any more: resuming from the row in firehose_cursor", seq=point.seq)
    time_us = None if point.time is None else int(point.time.replace(tzinfo=dt.UTC).timestamp() * 1e6)
    watermark = Watermark(
        relay=point.relay or relay, run=point.run or 0, topic_id=point.topic_id, seq=point.seq, time=time_us
    )
    return ResumePoint(watermark, point.topic_id)


async def plan_start(url: str, decision: Decision, *, after_run: int) -> RunStart:
    """From a decision to a place in the relay's sequence. ``after_run``: the newest run so far. Raises RelayError."""
    relay = relay_name(url)
    for attempt in range(ATTEMPTS):
        try:
            return await _plan_start(url, decision, after_run)
        except (OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            await asyncio.sleep(0.5 * 2**attempt if attempt + 1 < ATTEMPTS else 0)
    raise RelayError(f"The relay {relay} cannot be reached ({why}): check RELAY_URL and the network.")


async def _plan_start(url: str, decision: Decision, after_run: int) -> RunStart:
    oldest, head = await _window(url)
    # A run is its start; were our clock behind that of a run before, it would count as older.
    run = max(time.time_ns() // 1000, after_run + 1)
    last = decision.resume_from
    if last is not None:
        known = last.event is not None or last.time is not None or last.newest is not None
        return RunStart(run, "resume", _position(last), known, last.sequence or run, None, oldest, head)
    first = oldest
    if oldest is not None and decision.target is not None:
        log.info("searching the relay for the time asked for", time=moment(decision.target))
        first = await find_start(url, oldest, head, decision.target)
    position = Position(first.seq - 1 if first is not None else 0, None)
    sequence = sequence_of(decision.held, relay_name(url), run, first, head)
    start = RunStart(run, decision.mode, position, False, sequence, decision.target, oldest, head)
    start.passed_over = passed_over(decision.held, relay_name(url), run, first, decision.target)
    short = shortfall(decision.target, oldest)
    if short is not None and oldest is not None:
        start.missing = Gap(
            relay=relay_name(url), run=run, from_seq=None, to_seq=oldest.seq - 1,
            from_time=short.from_time, to_time=short.to_time, reason="the relay keeps no older events",
        )  # fmt: skip
    return start


def _position(last: Watermark) -> Position:
    """The position of a watermark. An older version's has no median: its time may be one that a wrong clock claimed."""
    median = _held(last.median if last.median is not None else last.time)
    if last.median is None and median is not None:
        median = min(median, time.time_ns() // 1000)
    return Position(last.seq, _held(last.time), median, last.spread, last.event)


def _held(time: int | None) -> int | None:
    """A watermark's time; None where it is one that nobody can hold: older versions took what a frame claimed."""
    return time if time is not None and 0 <= time <= MAX_TIME_US else None


async def _window(url: str) -> tuple[Sighting | None, Sighting | None]:
    """What the relay keeps: its oldest frame and its head (None where it is silent)."""
    first, live = await asyncio.gather(look(url, 0), look(url, None))
    oldest = first if isinstance(first, Sighting) else None
    if isinstance(live, Sighting):
        return oldest, live
    return oldest, await find_head(url, oldest) if oldest is not None else None


def report_plan(settings: Settings, start: RunStart, decision: Decision, days: int) -> None:
    """Say what was asked for, what the relay keeps, where it begins, and what that takes. Raises DiskError."""
    oldest, head = start.oldest, start.head
    asked = f"{days} days" if days > 0 else "all that the relay keeps"
    log.info(
        "plan", mode=start.mode, asked=asked, asked_from=moment(decision.target), relay=relay_name(settings.relay_url),
        relay_keeps_from=moment(oldest.time) if oldest else "nothing yet",
        head=moment(head.time) if head else "silent", begins_after_seq=start.position.seq,
    )  # fmt: skip
    if decision.resume_from is not None:
        log.info(
            "the topic has watermarks: resuming at the lowest, whatever --days says; --restart begins again",
            seq=start.position.seq, time=moment(start.position.time),
        )  # fmt: skip
    if start.missing is not None:
        log.warning("not covered: the relay keeps no older events",
                    since=moment(start.missing.from_time), until=moment(start.missing.to_time))  # fmt: skip
    if (over := start.passed_over) is not None:
        log.warning("not covered: the run begins behind what the topic holds",
                    since=moment(over.from_time), until=moment(over.to_time))  # fmt: skip
    if head is not None:
        log.info("disk: " + check_disk(broker_folder(settings), max(head.seq - start.position.seq, 0)))
