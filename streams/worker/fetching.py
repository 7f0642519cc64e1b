"""Fetching, bounded in bytes: the batches that aiokafka holds, and the records that are drained from them.

aiokafka counts records and partitions. Four thousand records may be 32 GB, and a thousand partitions hold half a
megabyte each, so both are counted here. Records stay as aiokafka's compiled parser makes them: a ``ConsumerRecord``
around each would cost as much again. It reaches into aiokafka's fetcher, which is pinned (docs/gotchas.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.resources.in_flight import InFlightBudget
from streams.resources.memory_budgets import RECORD_OVERHEAD
from streams.worker.app import pipeline_of
from streams.worker.persistence import wait_at_bootstrap

#: Bytes that are drained at once. A fetch that is larger only waits in a list.
DRAIN_BYTES: Final = 8 << 20
FETCH_WAIT_MS: Final = 200

#: Records of each partition, and their bytes in memory.
Drained = dict[TopicPartition, tuple[list[Any], int]]


class ParsedRecords(PartitionRecords):  # type: ignore[misc] # untyped
    """The records of one fetch of a partition, as the parser made them: without topic, partition and sizes."""

    @staticmethod
    def _consumer_record(_: TopicPartition, record: Any) -> Any:  # noqa: ANN401 (aiokafka's)
        return record


class BoundedFetcher(Fetcher):  # type: ignore[misc] # untyped
    """aiokafka's fetcher, which asks a broker for no more than the budget leaves, and yields parsed records."""

    budget: InFlightBudget

    @classmethod
    def adopt(cls, fetcher: Fetcher, budget: InFlightBudget) -> None:
        """Make a running fetcher one of these."""
        fetcher.__class__ = cls
        fetcher.budget = budget

    def _get_actions_per_node(self, assignment: Any) -> Any:  # noqa: ANN401 (aiokafka's)
        self.budget.set("fetched", sum(map(_held, self._records.values())))
        remaining = self.budget.remaining("fetched")
        # The broker sends at least one batch, however little is asked for.
        self._fetch_max_bytes = max(1, remaining // max(1, len(self._client.cluster.brokers())))
        requests, *others = super()._get_actions_per_node(assignment)
        return requests if remaining else [], *others

    async def _proc_fetch_request(self, assignment: Any, node_id: Any, request: Any) -> Any:  # noqa: ANN401 (aiokafka's)
        found = await super()._proc_fetch_request(assignment, node_id, request)
        for result in self._records.values():
            if type(result) is FetchResult and result._partition_records is not None:
                result._partition_records.__class__ = ParsedRecords
        return found


def _held(result: Any) -> int:  # noqa: ANN401 (FetchResult or FetchError)
    records = getattr(result, "_partition_records", None)
    return records._records.size_in_bytes() if records is not None else 0


async def drain(
    fetcher: Any,  # noqa: ANN401 (aiokafka's)
    partitions: Iterable[TopicPartition] | None,
    *,
    timeout: float,
    max_records: int,
    max_bytes: int,
) -> Drained:
    """Return what was fetched of these partitions (None: all). Either limit may be passed by one record.

    Waits up to ``timeout`` for the first.
    """
    partitions = set(partitions or ())
    first = await fetcher.fetched_records(partitions, timeout=timeout, max_records=1)
    drained: Drained = {}
    for tp, records in first.items():
        drained[tp] = records, sum(map(weight, records))
        max_bytes -= drained[tp][1]
        max_records -= len(records)
    if not first:
        return drained
    for tp in [tp for tp in fetcher._records if not partitions or tp in partitions]:
        if max_records <= 0 or max_bytes <= 0:
            break
        result = fetcher._records[tp]
        if type(result) is not FetchResult:
            continue  # an error: the next call raises it
        records, size = _drain_partition(tp, result, max_records, max_bytes)
        if not result.has_more():
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)
        if records:
            before, counted = drained.get(tp, ([], 0))
            drained[tp] = before + records, counted + size
            max_records -= len(records)
            max_bytes -= size
    return drained


def _drain_partition(tp: TopicPartition, result: Any, max_records: int, max_bytes: int) -> tuple[list[Any], int]:  # noqa: ANN401
    """Return what FetchResult.getall does, with a second limit."""
    found: list[Any] = []
    size = 0
    if not result.check_assignment(tp) or not result.has_more():
        return found, size
    append = found.append
    # Its generator, without the call around it; and weight(), without a call an event.
    for record in result._partition_records._records_iterator:
        append(record)
        size += RECORD_OVERHEAD + len(record.value or b"") + len(record.key or b"")
        if record.headers:
            size += _headers(record)
        if size >= max_bytes or len(found) >= max_records:
            result._update_position()
            return found, size
    result._update_position()
    result._partition_records = None
    return found, size


def weight(record: Any) -> int:  # noqa: ANN401 (aiokafka's parsed record)
    """Return about how many bytes a record takes in memory. A foreign producer's may be all key or all headers."""
    return RECORD_OVERHEAD + len(record.value or b"") + len(record.key or b"") + _headers(record)


def _headers(record: Any) -> int:  # noqa: ANN401 (aiokafka's parsed record)
    return sum(100 + len(name) + len(value or b"") for name, value in record.headers)


def consumer_record(tp: TopicPartition, record: Any) -> ConsumerRecord:  # noqa: ANN401 (aiokafka's parsed record)
    """Return a parsed record as aiokafka's consumer does, for Faust's own topics."""
    key, value = record.key, record.value
    return ConsumerRecord(
        tp.topic, tp.partition, record.offset, record.timestamp, record.timestamp_type, key, value, record.checksum,
        len(key) if key is not None else -1, len(value) if value is not None else -1, tuple(record.headers),
    )  # fmt: skip


class FetchThread(driver.AIOKafkaConsumerThread):
    """A consumer's thread whose fetches are bounded in bytes.

    An empty fetch waits 0.2 s, not Faust's 1.5 s: every other request to the broker waits behind it.
    """

    async def on_start(self) -> None:
        """Connect; wait for a broker that went away since the worker's checks."""
        try:
            await super().on_start()
        except asyncio.CancelledError:
            if not self.should_stop:
                raise
            return  # stopped while it waits: a cancellation that leaves a thread is a traceback
        BoundedFetcher.adopt(self._ensure_consumer()._fetcher, pipeline_of(self.app).running.budget)

    async def drain(self, active: set[TP] | None, timeout: float, max_bytes: int) -> Drained:
        """Return what ``getmany`` does, with the bytes of each partition's records."""
        drained: Drained = await self.call_thread(self._drain, active, timeout, max_bytes)
        return drained

    async def _drain(self, active: set[TP] | None, timeout: float, max_bytes: int) -> Drained:
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        if not self.consumer.flow_active:
            return {}
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            return await drain(
                fetcher, active, timeout=timeout, max_records=consumer._max_poll_records, max_bytes=max_bytes
            )

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        wait_at_bootstrap(consumer._client, self)
        return consumer
