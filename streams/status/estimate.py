"""The time that the backfill takes at the settings' rate: logged at the worker's start, and with every new run."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.errors import KafkaError

from streams.errors import StreamsError
from streams.kafka.topic import TopicInfo, reader
from streams.postgres.database import Database
from streams.resources.ingest_budget import NETWORK_BYTES, allowed_rate, ingest_limit
from streams.settings import Settings
from streams.text import format_span

log = logging.getLogger(__name__)

#: Seconds between two checks for a new run.
LOOK_EVERY: Final = 5.0


@dataclass(frozen=True, slots=True)
class Remaining:
    """Events that are still to be applied. ``pending``: messages in Kafka; ``to_head``: seqs up to the run's head."""

    pending: int
    to_head: int | None = None

    @property
    def events(self) -> int:
        """About how many events: the pending ones are a part of the way to the head."""
        return max(self.pending, self.to_head or 0)


def estimate(remaining: Remaining, settings: Settings) -> str | None:
    """Return what is left, how long that takes, and what is the limit; None where nothing is left."""
    if not remaining.events:
        return None
    rate = allowed_rate(settings)
    where = (
        f"{remaining.pending:,} of them in Kafka"
        if remaining.to_head is not None
        else "in Kafka; the relay's are not known"
    )
    what = f"about {remaining.events:,} events are left ({where})"
    if rate is None:
        return f"{what}: as fast as it goes."
    reads = ingest_limit(settings) if remaining.events > remaining.pending else None
    pace = "the worker's pace (BACKFILL_BATCH_SIZE, BACKFILL_BATCH_DELAY_MS)"
    if reads is not None:
        said = f"{NETWORK_BYTES / 1000:g} kB an event"
        pace = f"the ingest's INGEST_BUSY_MB_PER_S, at about {said}: the worker could apply {rate:,.1f} events/s"
        rate = reads
    text = f"{what}: at {rate:,.1f} events/s that takes {format_span(remaining.events / rate)}"
    busy = " while the machine is busy, and less while it is idle" if settings.backfill_use_idle else ""
    return f"{text}{busy}. The limit is {pace}."


async def say_estimates(settings: Settings, info: TopicInfo, database: Database) -> None:
    """Log the estimate now, and whenever another run is known. Never returns."""
    said: int | None = -1
    while True:
        with suppress(StreamsError, KafkaError, OSError):  # other tasks log what is away
            run = await database.fetchrow("newest_run", info.name)
            number = run["run"] if run is not None else None
            if number != said:
                sentence = estimate(await _remaining(settings, info, database, run), settings)
                said = number
                if sentence is not None:
                    log.info("[BACKFILL] Estimate: %s", sentence)
        await asyncio.sleep(LOOK_EVERY)


async def _remaining(settings: Settings, info: TopicInfo, database: Database, run: Any) -> Remaining:  # noqa: ANN401 (a row)
    rows = {row["partition"]: row for row in await database.fetch("sink_positions", info.name, settings.sink_group)}
    async with reader(settings, info.partitions) as (consumer, tps):
        ends, begins = await consumer.end_offsets(tps), await consumer.beginning_offsets(tps)
    positions = {tp: rows[tp.partition]["next_offset"] if tp.partition in rows else begins[tp] for tp in tps}
    pending = sum(max(ends[tp] - max(positions[tp], begins[tp]), 0) for tp in tps)
    if run is None or run["head_seq"] is None:
        return Remaining(pending)
    marks = [row["watermark_seq"] for row in rows.values() if row["watermark_run"] == run["run"]]
    lowest = min(marks) if len(marks) == info.partitions else run["from_seq"] - 1
    return Remaining(pending, max(run["head_seq"] - lowest, 0))
