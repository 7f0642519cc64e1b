"""The Kafka group in which workers share the topic's partitions: its name, and its members."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)

from streams.kafka.client import asked
from streams.settings import Settings

#: The changelogs' names begin with the group, and a topic's name has at most 249 characters.
LONGEST_GROUP: Final = 200
#: DescribeGroups' answer for a group of which the broker knows nothing (newer brokers say so).
_NO_GROUP: Final = 69
#: A new broker makes the topic of its groups when it is first asked for one, which takes it some seconds; one that has
#: just become a group's coordinator reads that topic first.
_NO_COORDINATOR: Final = (
    GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError,
)  # fmt: skip
#: Seconds until that counts as an error.
COORDINATOR_SECONDS: Final = 10.0


def group_id(settings: Settings) -> str:
    """Return the Kafka group and the changelogs' prefix: SINK_GROUP, with topic and schema if they are not the default.

    Two topics in one Kafka group would rebalance each other and share changelogs; two schemas would each get half.
    """
    chosen = {"kafka_topic": settings.kafka_topic, "sink_schema": settings.sink_schema}
    others = [value for name, value in chosen.items() if value != Settings.model_fields[name].default]
    group = ".".join([settings.sink_group, *others])
    if len(group) <= LONGEST_GROUP:
        return group
    return f"{group[: LONGEST_GROUP - 17]}.{hashlib.sha256(group.encode()).hexdigest()[:16]}"


def changelog(settings: Settings, table: str) -> str:
    """Return the topic of a Faust table of ours."""
    return f"{group_id(settings)}-{table}-changelog"


async def running_workers(settings: Settings) -> list[str]:
    """Return the hosts of the workers, one entry each. One that was killed counts for another 10 s. Raises BrokerError.

    The broker knows of every worker, on whatever machine; sessions in Postgres also belong to commands and to pools.
    """
    return await asked(settings, lambda admin: members(admin, settings))


async def members(admin: AIOKafkaAdminClient, settings: Settings) -> list[str]:
    """Return the hosts of the workers, by a client that is open. Raises KafkaError."""
    end = time.monotonic() + COORDINATOR_SECONDS
    while True:
        try:
            return await _members(admin, settings)
        except _NO_COORDINATOR:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(0.5)


async def _members(admin: AIOKafkaAdminClient, settings: Settings) -> list[str]:
    found: list[str] = []
    for response in await admin.describe_consumer_groups([group_id(settings)]):
        for code, _, _, _, _, joined, *_ in response.groups:
            if code not in (0, _NO_GROUP):
                raise for_code(code)(group_id(settings))
            found.extend(str(member[2]).lstrip("/") for member in joined)
    return found
