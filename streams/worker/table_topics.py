"""The changelogs of Faust's tables: made before Faust starts, as the other topic is.

Faust would create them in the middle of its start, where a broker that is away ends the worker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.errors import MismatchError
from streams.kafka.client import asked
from streams.kafka.topic import TopicInfo, create, describe_topic, wait_for_topic
from streams.settings import Settings


async def ensure_changelog(settings: Settings, name: str, source: TopicInfo, configs: Mapping[str, str]) -> None:
    """Create the changelog of a table where there is none, with as many partitions as its source.

    The broker has answered before, so one that is away is waited for. Raises MismatchError for a changelog with another
    number of partitions, BrokerError where Kafka does not allow it.
    """

    async def found_or_created(admin: AIOKafkaAdminClient) -> TopicInfo:
        info = await describe_topic(admin, name)
        if info is not None:
            return info
        topic_configs = {"cleanup.policy": "compact", **configs}
        await create(admin, NewTopic(name, source.partitions, source.replication, topic_configs=topic_configs))
        return await wait_for_topic(admin, name)

    changelog = await asked(settings, found_or_created, timeout=math.inf)
    if changelog.partitions != source.partitions:
        raise MismatchError(
            f"The topic {source.name} has {source.partitions} partitions, and {name} has "
            f"{changelog.partitions}: was it re-created?",
            "Take another SINK_GROUP and SINK_SCHEMA.",
        )
