"""The topic: its creation, reading it without a group, and the partition of a DID."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidReplicationFactorError,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from streams.errors import BrokerError, MismatchError
from streams.kafka.client import START_TIMEOUT, asked, broker_error, kafka_client_options
from streams.runtime.drills import IngestPoint, crash_point
from streams.settings import Settings

log = logging.getLogger(__name__)

#: Largest message in bytes: JSON is longer than CBOR (docs/performance.md). Producer and consumers allow the same.
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
#: Seconds that a topic which was just created may take to appear. KRaft takes milliseconds; a busy machine more.
APPEAR_TIMEOUT: Final = 60.0
#: Seconds between two tries to create it.
RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as it is on the broker."""

    name: str
    partitions: int
    replication: int


def murmur2(data: bytes) -> int:
    """Return Kafka's default partitioner hash, as in the Java client (org.apache.kafka.common.utils.Utils.murmur2)."""
    length = len(data)
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ length
    for k in struct.unpack_from(f"<{length >> 2}I", data):
        k = k * m & mask  # noqa: PLW2901 (as in the original)
        k ^= k >> 24  # noqa: PLW2901
        h = (h * m & mask) ^ (k * m & mask)
    rest, tail = length & 3, length & ~3
    if rest == 3:
        h ^= data[tail + 2] << 16
    if rest >= 2:
        h ^= data[tail + 1] << 8
    if rest:
        h = (h ^ data[tail]) * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ h >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of a key, as Kafka's default partitioner places it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


async def describe_topic(admin: AIOKafkaAdminClient, name: str) -> TopicInfo | None:
    """Return the topic as it is; None if there is none."""
    [topic] = await admin.describe_topics([name])
    error = for_code(topic["error_code"])
    if error is UnknownTopicOrPartitionError or (topic["error_code"] == 0 and not topic["partitions"]):
        return None
    if topic["error_code"] != 0 and not topic["partitions"]:
        raise error(f"describing {name}")
    replication = min(len(p["replicas"]) for p in topic["partitions"])
    return TopicInfo(name, len(topic["partitions"]), replication)


async def find_topic(settings: Settings) -> TopicInfo | None:
    """Return the topic as it is; None if there is none. Raises BrokerError."""
    return await asked(settings, lambda admin: describe_topic(admin, settings.kafka_topic))


async def ensure_topic(settings: Settings) -> TopicInfo:
    """Create the topic where there is none; afterwards its own partition count rules, and is returned.

    Raises BrokerError where the broker is away or does not allow it.
    """
    info = await asked(settings, lambda admin: _found_or_created(admin, settings))
    if info.partitions != settings.kafka_partitions and "kafka_partitions" in settings.model_fields_set:
        log.warning(
            "the topic %s has %d partitions; KAFKA_PARTITIONS=%d counts only when it is created",
            info.name, info.partitions, settings.kafka_partitions,
        )  # fmt: skip
    return info


async def _found_or_created(admin: AIOKafkaAdminClient, settings: Settings) -> TopicInfo:
    info = await describe_topic(admin, settings.kafka_topic)
    if info is None:
        crash_point(IngestPoint.TOPIC_BEFORE_CREATE)
        await _create_topic(admin, settings)
        crash_point(IngestPoint.TOPIC_AFTER_CREATE)
        info = await wait_for_topic(admin, settings.kafka_topic)
    return info


async def _create_topic(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    brokers = len((await admin.describe_cluster())["brokers"])
    replication = settings.kafka_replication or min(3, brokers)
    hours = settings.kafka_retention_hours
    configs = {
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "retention.ms": str(hours * 3_600_000 if hours >= 0 else -1),
        "min.insync.replicas": "2" if replication >= 3 else "1",
        "compression.type": "producer",
        # The broker's clock, not ours: it refuses what claims to be more than an hour ahead of it, and by retention
        # it would take at once what claims to be days old.
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
    }
    new = NewTopic(settings.kafka_topic, settings.kafka_partitions, replication, topic_configs=configs)
    await create(admin, new)


async def create(admin: AIOKafkaAdminClient, new: NewTopic) -> None:
    """Create a topic, or find that it is there already. Raises BrokerError where Kafka does not allow it.

    What may pass, and too few brokers, is an error only after START_TIMEOUT: a broker that was just started counts as
    none for some seconds, and a cluster may be without a controller for a moment.
    """
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT
    while True:
        response = await admin.create_topics([new])
        [(name, code, *message)] = response.topic_errors
        error = for_code(code)
        if not code or error is TopicAlreadyExistsError:
            return
        may_pass = error.retriable or error is InvalidReplicationFactorError
        if not may_pass or asyncio.get_running_loop().time() > deadline:
            raise BrokerError(f"The topic {name} cannot be created: {error.__name__} {' '.join(map(str, message))}.")
        await asyncio.sleep(RETRY_SECONDS)


async def wait_for_topic(admin: AIOKafkaAdminClient, name: str) -> TopicInfo:
    """Return the topic that was just created, once the broker knows it. Raises BrokerError after APPEAR_TIMEOUT."""
    deadline = asyncio.get_running_loop().time() + APPEAR_TIMEOUT
    while (info := await describe_topic(admin, name)) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise BrokerError(f"The topic {name} was created and does not appear", "look at the broker's log.")
        await asyncio.sleep(0.1)
    return info


@asynccontextmanager
async def reader(
    settings: Settings,
    partitions: int,
    *,
    partition_bytes: int = MAX_MESSAGE_BYTES,
    fetch_bytes: int = 4 * MAX_MESSAGE_BYTES,
) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """Give a consumer without a group, assigned to all partitions of the topic. It never commits.

    It reads nothing until ``read_from`` says from where. ``partition_bytes``, ``fetch_bytes``: the most that it fetches
    at a time of a partition, and of all; a larger message comes alone. Raises BrokerError if it cannot connect.
    """
    consumer = AIOKafkaConsumer(
        **kafka_client_options(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=partition_bytes,
        fetch_max_bytes=fetch_bytes,
    )
    try:
        await consumer.start()
    except KafkaError as error:
        raise broker_error(settings, error) from None
    try:
        tps = [TopicPartition(settings.kafka_topic, partition) for partition in range(partitions)]
        assign_paused(consumer, tps)
        yield consumer, tps
    finally:
        await consumer.stop()


def assign_paused(consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition]) -> None:
    """Assign the partitions, and read none of them yet.

    Each gets a position, though it means nothing: aiokafka looks for the missing ones in the background, notes that
    there are none, and where a leader changes meanwhile it fails an assertion of its own when it notes that twice
    (0.14, ``Fetcher._set_error``): while brokers die, that ended a worker.
    """
    consumer.assign(tps)
    consumer.pause(*tps)
    for tp in tps:
        consumer.seek(tp, 0)


def read_from(consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
    """Read these partitions, each from its offset on."""
    for tp, offset in offsets.items():
        consumer.seek(tp, offset)
    consumer.resume(*offsets)


def check_partitions(info: TopicInfo, expected: int) -> None:
    """Refuse a topic whose number of partitions changed: it decides where a DID is."""
    if info.partitions != expected:
        raise MismatchError(
            f"The topic {info.name} has {info.partitions} partitions and had {expected}: keys are no longer where they "
            "were.",
            "Make a new topic with the number that you want and copy the events into it.",
        )
