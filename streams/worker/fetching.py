"""What a consumer holds of the topic, bounded in bytes: the batches that were fetched, and what is taken of them.

aiokafka counts records and partitions. Four thousand records may be 32 GB, and a thousand partitions hold half a
megabyte each, so both are counted here. It reaches into aiokafka's fetcher, which is pinned (docs/gotchas.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.resources.in_flight import Account
from streams.resources.memory_budgets import RECORD_OVERHEAD
from streams.worker.app import pipeline_of
from streams.worker.persistence import wait_at_bootstrap

#: Bytes that are taken at once. A fetch that is larger only waits in a list.
TAKE_BYTES: Final = 8 << 20
FETCH_WAIT_MS: Final = 200

#: Records of each partition, and what they take in memory.
Taken = dict[TopicPartition, tuple[list[Any], int]]


class BoundedFetcher(Fetcher):  # type: ignore[misc] # untyped
    """aiokafka's fetcher, which asks a broker for no more than the account has room for."""

    account: Account

    @classmethod
    def adopt(cls, fetcher: Fetcher, account: Account) -> None:
        """Make a running fetcher one of these."""
        fetcher.__class__ = cls
        fetcher.account = account

    def _get_actions_per_node(self, assignment: Any) -> Any:  # noqa: ANN401 (aiokafka's)
        self.account.set("fetched", sum(map(_held, self._records.values())))
        room = self.account.room("fetched")
        # The broker sends at least one batch, however little is asked for.
        self._fetch_max_bytes = max(1, room // max(1, len(self._client.cluster.brokers())))
        requests, *others = super()._get_actions_per_node(assignment)
        return requests if room else [], *others


def _held(result: Any) -> int:  # noqa: ANN401 (FetchResult or FetchError)
    records = getattr(result, "_partition_records", None)
    return records._records.size_in_bytes() if records is not None else 0


async def take(
    fetcher: Any,  # noqa: ANN401 (aiokafka's)
    partitions: Iterable[TopicPartition] | None,
    *,
    timeout: float,
    max_records: int,
    max_bytes: int,
) -> Taken:
    """Records of these partitions (None: all): either limit may be passed by one record.

    Waits up to ``timeout`` for the first.
    """
    partitions = set(partitions or ())
    first = await fetcher.fetched_records(partitions, timeout=timeout, max_records=1)
    taken: Taken = {}
    for tp, records in first.items():
        taken[tp] = records, sum(map(weight, records))
        max_bytes -= taken[tp][1]
        max_records -= len(records)
    if not first:
        return taken
    for tp in [tp for tp in fetcher._records if not partitions or tp in partitions]:
        if max_records <= 0 or max_bytes <= 0:
            break
        result = fetcher._records[tp]
        if type(result) is not FetchResult:
            continue  # an error: the next call raises it
        records, size = _drain(tp, result, max_records, max_bytes)
        if not result.has_more():
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)
        if records:
            before, counted = taken.get(tp, ([], 0))
            taken[tp] = before + records, counted + size
            max_records -= len(records)
            max_bytes -= size
    return taken


def _drain(tp: TopicPartition, result: Any, max_records: int, max_bytes: int) -> tuple[list[Any], int]:  # noqa: ANN401
    """FetchResult.getall, with a second limit."""
    found: list[Any] = []
    size = 0
    if not result.check_assignment(tp) or not result.has_more():
        return found, size
    append = found.append
    for record in result._partition_records:  # weight(), without a call an event
        append(record)
        size += RECORD_OVERHEAD + record.serialized_value_size + record.serialized_key_size
        if record.headers:
            size += _headers(record)
        if size >= max_bytes or len(found) >= max_records:
            result._update_position()
            return found, size
    result._update_position()
    result._partition_records = None
    return found, size


def weight(record: Any) -> int:  # noqa: ANN401 (ConsumerRecord)
    """What a record takes in memory, about. A foreign producer's may be all key or all headers."""
    size: int = RECORD_OVERHEAD + record.serialized_value_size + record.serialized_key_size
    return size + _headers(record)


def _headers(record: Any) -> int:  # noqa: ANN401 (ConsumerRecord)
    return sum(100 + len(name) + len(value or b"") for name, value in record.headers)


class FetchThread(driver.AIOKafkaConsumerThread):
    """Its fetches are bounded in bytes.

    They wait less for what is not there (Faust: 1.5 s): whatever else we ask a broker waits behind them.
    """

    async def on_start(self) -> None:
        """Connect; a broker that went away since the worker's checks is waited for."""
        try:
            await super().on_start()
        except asyncio.CancelledError:
            if not self.should_stop:
                raise
            return  # told to stop while it waits; out of a thread the cancellation would be a traceback
        BoundedFetcher.adopt(self._ensure_consumer()._fetcher, pipeline_of(self.app).running.account)

    async def take(self, active: set[TP] | None, timeout: float, max_bytes: int) -> Taken:
        """``getmany``, with each partition's records their bytes."""
        taken: Taken = await self.call_thread(self._take, active, timeout, max_bytes)
        return taken

    async def _take(self, active: set[TP] | None, timeout: float, max_bytes: int) -> Taken:
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        if not self.consumer.flow_active:
            return {}
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            return await take(
                fetcher, active, timeout=timeout, max_records=consumer._max_poll_records, max_bytes=max_bytes
            )

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        wait_at_bootstrap(consumer._client, self)
        return consumer
