"""The position in Postgres, from which a topic is resumed that holds no watermark any more."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import structlog

from streams.errors import SettingsError
from streams.messages import Watermark
from streams.postgres.cursor import read_resume_point
from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.settings import Settings

log = structlog.get_logger("streams.ingest")


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The watermark to resume a topic from (None: there is none), and the topic's id (None: it has none yet)."""

    watermark: Watermark | None
    topic_id: str | None


async def resume_point(settings: Settings, relay: str) -> ResumePoint:
    """Return the position in the database, for a topic that was written and whose watermarks retention has removed.

    Raises DatabaseError. Without a database there is nothing to resume.
    """
    try:
        database = Database(settings.database_dsn(), settings.sink_schema, 1)
    except SettingsError:
        return ResumePoint(None, None)
    try:
        await database.start()
        await migrate_schema(database)
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
