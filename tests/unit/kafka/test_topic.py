"""Partitions: murmur2 as the Java client computes it, and a number of them that never changes."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import MismatchError
from streams.kafka.topic import TopicInfo, check_partitions, murmur2, partition_for


# From Apache Kafka's UtilsTest.testMurmur2 (signed there).
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)  # fmt: skip
def test_javas_vectors(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


@given(st.binary(max_size=120))
def test_agrees_with_aiokafka(key: bytes) -> None:
    assert murmur2(key) & 0x7FFFFFFF == aiokafka_murmur2(key) & 0x7FFFFFFF


@given(st.text(max_size=60), st.integers(1, 100))
def test_a_partition_is_one_of_them(key: str, partitions: int) -> None:
    assert 0 <= partition_for(key.encode(errors="ignore"), partitions) < partitions


@given(st.binary(min_size=1, max_size=60), st.integers(1, 100))
def test_a_key_is_where_any_producer_would_put_it(key: bytes, partitions: int) -> None:
    everything = list(range(partitions))
    assert partition_for(key, partitions) == DefaultPartitioner()(key, everything, everything)


def test_keys_whose_hash_is_negative_in_java() -> None:
    # The signed hashes of test_javas_vectors; Java masks the sign away before it divides.
    assert [partition_for(key, 7) for key in (b"21", b"foobar", b"abc")] == [
        (number & 0x7FFFFFFF) % 7 for number in (-973932308, -790332482, 479470107)
    ]


def test_more_or_fewer_partitions_than_before_are_refused() -> None:
    check_partitions(TopicInfo("t", 8, 1), 8)
    for partitions in (7, 9):
        with pytest.raises(MismatchError, match=f"has {partitions} partitions and had 8"):
            check_partitions(TopicInfo("t", partitions, 1), 8)
