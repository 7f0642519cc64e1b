"""Fetched records as aiokafka's parser makes them: they say all that its ConsumerRecord says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from streams.resources.memory_budgets import RECORD_OVERHEAD
from streams.worker.fetching import BoundedFetcher, ParsedRecords, consumer_record, drain

P0 = TopicPartition("t", 0)
NONE, GZIP, ZSTD = 0, 1, 4
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
ABORT_KEY: Final = b"\0\0\0\0"
RECORDS: Final[list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]] = [
    (b"did:web:a", b'{"seq":1}', []),
    (None, b"{}", [("name", b"value"), ("empty", b""), ("none", None)]),
    (b"did:web:b", None, []),
    (b"", b"", []),
    (b"k" * 300, b"v" * 70_000, [("h" * 200, b"w" * 200)]),
]


def batch(base: int, *, codec: int = NONE, flags: int = 0, producer: int = -1, records: Any = RECORDS) -> bytes:
    """Return a batch as a broker sends it, from the offset ``base`` on."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, producer, 0, 0, 1 << 22)
    for number, (key, value, headers) in enumerate(records):
        assert builder.append(number, 1_700_000_000_000 + number, key, value, headers) is not None
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")
    data[22] |= flags
    data[17:21] = calc_crc32c(data[21:]).to_bytes(4, "big")
    return bytes(data)


def legacy(magic: int, codec: int) -> bytes:
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for number, (key, value, _) in enumerate(RECORDS):
        assert builder.append(number, 1_700_000_000_000 + number, key, value) is not None
    return bytes(builder.build())


def fetched(data: bytes, *, begin: int = 0, aborted: Any = None, isolation: int = READ_UNCOMMITTED) -> PartitionRecords:
    return PartitionRecords(P0, MemoryRecords(data), aborted, begin, None, None, True, isolation)


def parsed(*args: Any, **how: Any) -> PartitionRecords:
    records = fetched(*args, **how)
    records.__class__ = ParsedRecords
    return records


LOGS: Final = {
    "plain": batch(0) + batch(5),
    "gzip": batch(0, codec=GZIP),
    "zstd, stamped by the broker": batch(0, codec=ZSTD, flags=LOG_APPEND_TIME) + batch(9, flags=LOG_APPEND_TIME),
    "a control batch": batch(0) + batch(5, flags=CONTROL | TRANSACTIONAL, records=[(ABORT_KEY, b"", [])]) + batch(6),
    "a transaction": batch(0, flags=TRANSACTIONAL, producer=7) + batch(5, producer=8)
    + batch(10, flags=CONTROL | TRANSACTIONAL, producer=7, records=[(ABORT_KEY, b"", [])])
    + batch(11, flags=TRANSACTIONAL, producer=7),
    "magic 0": legacy(0, NONE),
    "magic 1": legacy(1, NONE),
    "magic 1, gzip": legacy(1, GZIP),
}  # fmt: skip


@pytest.mark.parametrize("begin", [0, 3])
@pytest.mark.parametrize("isolation", [READ_COMMITTED, READ_UNCOMMITTED])
@pytest.mark.parametrize("log", LOGS)
def test_a_parsed_record_says_all_that_aiokafkas_own_says(log: str, isolation: int, begin: int) -> None:
    how: dict[str, Any] = {"begin": begin, "isolation": isolation, "aborted": [(7, 0)]}
    stock, ours = fetched(LOGS[log], **how), parsed(LOGS[log], **how)
    expected = []
    for record in stock:
        found = next(ours)
        assert consumer_record(P0, found) == record
        assert ours.next_fetch_offset == stock.next_fetch_offset
        expected.append(record)
    assert expected
    assert next(ours, None) is None
    assert ours.next_fetch_offset == stock.next_fetch_offset


class Assignment:
    """aiokafka's, of one partition."""

    active = True

    def __init__(self, position: int = 0) -> None:
        self.position, self.paused, self.has_valid_position = position, False, True

    def state_value(self, _: TopicPartition) -> Assignment:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


class Response:
    """A broker's answer to a fetch (version 4)."""

    API_VERSION = 4

    def __init__(self, data: bytes) -> None:
        self.topics = [("t", [(0, 0, 10, 10, [], data)])]


async def fetch(data: bytes) -> tuple[BoundedFetcher, Assignment]:
    """Return a fetcher that has fetched ``data``."""

    async def send(*_: Any) -> Response:
        return Response(data)

    fetcher = BoundedFetcher.__new__(BoundedFetcher)
    vars(fetcher).update(
        _client=SimpleNamespace(send=send), _client_rack=None, _key_deserializer=None, _value_deserializer=None,
        _check_crcs=True, _isolation_level=READ_UNCOMMITTED, _prefetch_backoff=0.1, _records={},
        _wait_consume_future=None,
    )  # fmt: skip
    assignment = Assignment()
    assert await fetcher._proc_fetch_request(assignment, 0, SimpleNamespace(topics=[("t", [(0, 0, 1 << 20)])]))
    return fetcher, assignment


async def test_what_is_fetched_comes_as_the_parser_made_it() -> None:
    fetcher, assignment = await fetch(batch(0) + batch(5))
    result = fetcher._records[P0]
    assert type(result) is FetchResult
    assert type(result._partition_records) is ParsedRecords
    [record] = result.getall(1)
    assert (record.offset, record.key, record.value) == (0, b"did:web:a", b'{"seq":1}')
    assert not hasattr(record, "serialized_value_size")
    assert assignment.position == 1


async def test_a_drain_ends_at_its_limits_and_goes_on_where_it_ended() -> None:
    fetcher, assignment = await fetch(batch(0) + batch(5))

    async def first(*_: Any, **__: Any) -> dict[TopicPartition, list[Any]]:
        result = fetcher._records.get(P0)
        return {P0: result.getall(1)} if result is not None else {}

    vars(fetcher)["fetched_records"] = first
    offsets = []
    for records, size in ((3, 1 << 30), (100, RECORD_OVERHEAD), (100, 1 << 30)):
        [(found, weighed)] = (await drain(fetcher, None, timeout=0, max_records=records, max_bytes=size)).values()
        offsets.append([record.offset for record in found])
        headers = sum(100 + len(name) + len(value or b"") for record in found for name, value in record.headers)
        payload = sum(len(record.key or b"") + len(record.value or b"") for record in found)
        assert weighed == len(found) * RECORD_OVERHEAD + payload + headers
    assert offsets == [[0, 1, 2], [3], [4, 5, 6, 7, 8, 9]]
    assert assignment.position == 10
    assert not fetcher._records
