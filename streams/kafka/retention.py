"""The topic's retention outlasts its slowest group: when a lag nears half of it, the topic keeps events longer.

A group is known by what it has committed to Kafka for the topic. The age of its lag is the age of the oldest message
that it has not committed. Where the disk would not allow more, the ingest is to wait until the group has caught up.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from streams.kafka.client import admin_client
from streams.kafka.disk import broker_folder
from streams.kafka.topic import TopicInfo, read_from, reader
from streams.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between two looks.
CHECK_EVERY: Final = 60.0
#: Part of the retention that the age of a lag may reach.
NEAR: Final = 0.45
#: Part of the disk that must be free for a longer retention.
FREE: Final = 0.1


@dataclass(frozen=True, slots=True)
class RetentionVerdict:
    """A verdict: ``raise_to`` a longer retention (ms), or ``wait`` until the groups have caught up."""

    raise_to: int | None = None
    wait: bool = False


def judge(retention_ms: int, oldest_lag_ms: float, *, disk_allows: bool) -> RetentionVerdict:
    """Judge the age of the oldest lag (ms). A retention below 0 has no end. Pure."""
    if retention_ms < 0 or oldest_lag_ms < retention_ms * NEAR:
        return RetentionVerdict()
    return RetentionVerdict(raise_to=retention_ms * 2) if disk_allows else RetentionVerdict(wait=True)


class RetentionGuard:
    """The guard of one topic's retention, run by its ingest."""

    def __init__(self, settings: Settings, info: TopicInfo) -> None:
        self._settings = settings
        self._info = info
        self._folder = broker_folder(settings)

    async def check(self) -> RetentionVerdict:
        """Judge, and raise the topic's retention if that is the verdict. Raises KafkaError, BrokerError."""
        async with admin_client(self._settings) as admin:
            configs = await topic_configs(admin, self._info.name)
            retention = _retention(configs)
            if retention < 0:
                return RetentionVerdict()
            positions = await self._lowest_positions(admin)
            age = await self._oldest_lag(positions)
            verdict = judge(retention, age, disk_allows=disk_allows(self._folder))
            if verdict.raise_to is not None:
                await _set_configs(admin, self._info.name, {**configs, "retention.ms": str(verdict.raise_to)})
                log.warning(
                    "the slowest group is %.1f h behind: the topic %s now keeps its events for %.0f h (before: %.0f h)",
                    age / 3.6e6, self._info.name, verdict.raise_to / 3.6e6, retention / 3.6e6,
                )  # fmt: skip
            return verdict

    async def _lowest_positions(self, admin: AIOKafkaAdminClient) -> dict[TopicPartition, int]:
        """Return the lowest offset that any group has committed, by partition."""
        tps = [TopicPartition(self._info.name, partition) for partition in range(self._info.partitions)]
        lowest: dict[TopicPartition, int] = {}
        for group, *_ in await admin.list_consumer_groups():
            try:
                offsets = await admin.list_consumer_group_offsets(group, partitions=tps)
            except KafkaError as error:  # a group that we may not see, or whose coordinator is still loading
                log.debug("the positions of the group %s cannot be read: %r", group, error)
                continue
            for tp, committed in offsets.items():
                if committed.offset >= 0:
                    lowest[tp] = min(committed.offset, lowest.get(tp, committed.offset))
        return lowest

    async def _oldest_lag(self, positions: dict[TopicPartition, int]) -> float:
        """Return the age in ms of the oldest message at one of the positions; 0 if none is behind."""
        oldest: float | None = None
        async with reader(self._settings, self._info.partitions) as (consumer, tps):
            ends = await consumer.end_offsets(tps)
            begins = await consumer.beginning_offsets(tps)
            for tp in (tp for tp in tps if tp in positions and positions[tp] < ends[tp]):
                read_from(consumer, {tp: max(positions[tp], begins[tp])})
                found = await consumer.getmany(tp, timeout_ms=5000, max_records=1)
                consumer.pause(tp)
                for message in found.get(tp, ()):
                    oldest = min(message.timestamp, oldest if oldest is not None else message.timestamp)
        return 0.0 if oldest is None else max(time.time() * 1000 - oldest, 0.0)


def disk_allows(folder: Path | None) -> bool:
    """Return whether the broker's disk has room for a longer retention; True for a broker on another machine."""
    if folder is None:
        return True
    usage = shutil.disk_usage(folder)
    return usage.free > usage.total * FREE


async def topic_configs(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """Return the settings of the topic itself, and its retention wherever that comes from."""
    configs: dict[str, str] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]):
        for code, message, _, _, entries in response.resources:
            if code:
                raise for_code(code)(message)
            for entry in entries:
                _read_entry(configs, entry)
    return configs


async def topic_retention(admin: AIOKafkaAdminClient, topic: str) -> int:
    """Return for how many ms the topic keeps its events; negative: without end."""
    return _retention(await topic_configs(admin, topic))


def _retention(configs: dict[str, str]) -> int:
    return int(configs.get("retention.ms", "-1"))


def _read_entry(configs: dict[str, str], entry: Any) -> None:  # noqa: ANN401 (a tuple of the protocol)
    name, value, _read_only, source = entry[:4]
    dynamic_of_topic = 1  # DescribeConfigs version 1 and later; version 0 says here whether it is a default
    if value is not None and (source == dynamic_of_topic or name == "retention.ms"):
        configs[name] = value


async def _set_configs(admin: AIOKafkaAdminClient, topic: str, configs: dict[str, str]) -> None:
    """Set the topic's configuration; what is not named goes back to its default, so all of it must be."""
    for response in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)]):
        for code, message, *_ in response.resources:
            if code:
                raise for_code(code)(message)
