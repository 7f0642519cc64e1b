"""Applies a batch by one call of the schema, for the sink and for the replay of dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from streams.messages import Watermark
from streams.postgres.columns import Grouped, join
from streams.postgres.database import Connection
from streams.postgres.queries import query


@dataclass(frozen=True, slots=True)
class BatchArguments:
    """A batch as the schema's functions take it: made once, sent as often as it takes.

    It applies where the partition stands at ``base``, and moves it to ``next_offset``.
    """

    topic: str
    partition: int
    group: str
    base: int
    next_offset: int
    rows: Grouped
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
    is the error of the whole batch. The column ``known`` of the result is true where a row that was expected to be new
    was not.
    """
    mark, columns = batch.watermark, batch.rows.columns
    run, seq, time = (None, None, None) if mark is None else (mark.run, mark.seq, mark.time)
    first = (
        batch.topic, batch.partition, batch.group, batch.base, batch.next_offset, batch.received, batch.topic_id,
        run, seq, time,
    )  # fmt: skip
    if payloads is None and (joined := join(batch.rows)) is not None:
        return await connection.fetchrow(query("apply_joined"), *first, *joined, batch.extras, timeout=timeout)
    return await connection.fetchrow(
        query("apply_batch"), *first, *columns[:5],
        [None if body is None else body.decode() for body in columns.bodies], columns.seqs, columns.times,
        batch.extras, None if payloads is None else columns.offsets, payloads,
        timeout=timeout,
    )  # fmt: skip
