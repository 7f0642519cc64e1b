"""The one call of the schema's function ``apply_batch``, for the sink and for the replay of dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from streams.messages import Watermark
from streams.postgres.batch import RecordColumns
from streams.postgres.database import Connection
from streams.postgres.queries import query


@dataclass(frozen=True, slots=True)
class BatchArguments:
    """A batch as ``apply_batch`` takes it: made once, sent as often as it takes.

    It applies where the partition stands at ``base``, and moves it to ``next_offset``.
    """

    topic: str
    partition: int
    group: str
    base: int
    next_offset: int
    columns: RecordColumns
    extras: str | None
    received: int = 0
    topic_id: str | None = None
    watermark: Watermark | None = None


async def apply_batch(
    connection: Connection,
    batch: BatchArguments,
    *,
    payloads: Sequence[str] | None = None,
    timeout: float | None = None,
) -> asyncpg.Record | None:
    """Apply a batch, or nothing: None where the partition does not stand at ``base``.

    With ``payloads`` (base64, one for each record) a record that Postgres refuses becomes a dead letter; without, it
    is the error of the whole batch.
    """
    mark, rows = batch.watermark, batch.columns
    run, seq, time = (None, None, None) if mark is None else (mark.run, mark.seq, mark.time)
    return await connection.fetchrow(
        query("apply_batch"),
        batch.topic, batch.partition, batch.group, batch.base, batch.next_offset, batch.received, batch.topic_id,
        run, seq, time,
        rows.dids, rows.collections, rows.rkeys, rows.revs, rows.cids, rows.bodies, rows.seqs, rows.times,
        batch.extras, None if payloads is None else rows.offsets, payloads,
        timeout=timeout,
    )  # fmt: skip
