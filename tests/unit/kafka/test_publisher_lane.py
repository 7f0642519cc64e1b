"""A lane fills aiokafka's compiled builder itself: what it sends holds, and says that it holds, what was added."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.publisher import Publisher, _Lane

Value = tuple[bytes | None, bytes]
BEGIN_MS = 1_700_000_000_000
BATCH_BYTES = 2_000


async def batches_of(values: list[Value]) -> list[Any]:
    """Return the batches of a lane whose sender never runs."""
    publisher = SimpleNamespace(producer=SimpleNamespace(create_batch=lambda: BatchBuilder(BATCH_BYTES, 0)))
    lane = _Lane(cast("Publisher", publisher), 0)
    lane.task.cancel()
    for at, (key, value) in enumerate(values):
        lane.add(key, value, BEGIN_MS + at)
    lane.cut()
    return [batch.builder for batch in lane._queue]


@given(st.lists(st.tuples(st.none() | st.binary(max_size=40), st.binary(max_size=3_000)), max_size=30))
def test_batches_hold_what_was_added_and_count_it(values: list[Value]) -> None:
    found: list[tuple[bytes | None, bytes | None, int]] = []
    for builder in asyncio.run(batches_of(values)):
        counted = builder.record_count()
        batch = MemoryRecords(bytes(builder._build())).next_batch()
        assert batch is not None
        records = list(batch)
        assert counted == len(records)
        assert [record.offset for record in records] == list(range(counted))
        found += [(record.key, record.value, record.timestamp) for record in records]
    assert found == [(key, value, BEGIN_MS + at) for at, (key, value) in enumerate(values)]
