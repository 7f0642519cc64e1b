"""The settings of a topic that somebody else made: which cannot work, which differ, and the command that mends them.

The ingest and the worker look before the first event, ``doctor`` when it is asked. Of a setting that the topic does not
have the broker's counts: Kafka's answer holds both.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from streams.errors import BrokerError, MismatchError
from streams.kafka.client import asked, is_away
from streams.kafka.topic import MAX_MESSAGE_BYTES, TopicInfo
from streams.kafka.versions import OLDEST, is_too_old
from streams.settings import Settings

log = logging.getLogger(__name__)

#: A topic that takes less than this, in bytes, would turn too many of the network's records away.
LEAST_MESSAGE_BYTES: Final = 64 * 1024
#: Milliseconds that a topic must keep its events at least: the retention guard looks once a minute.
LEAST_RETENTION_MS: Final = 600_000
#: Milliseconds that a message may be old or ahead, at least, where we stamp it.
LEAST_STAMP_MS: Final = 60_000
#: A batch must go into one message of the protocol, and into one segment of the log.
_SIZES: Final = ("max.message.bytes", "segment.bytes")
_DAY_MS: Final = 86_400_000
_STAMPS: Final = (
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.difference.max.ms",
)


@dataclass(frozen=True, slots=True)
class TopicFault:
    """A wrong setting of a topic, the settings (name=value) that mend it, and whether we can work with it."""

    text: str
    mend: str
    fatal: bool = False


def judge(configs: Mapping[str, str], replication: int) -> list[TopicFault]:
    """Return the faults of a topic with these settings and so many replicas, the fatal ones first. Pure."""
    found = [*_policy(configs), *_sizes(configs), *_times(configs), *_replicas(configs, replication)]
    return sorted(found, key=lambda fault: not fault.fatal)


def _policy(configs: Mapping[str, str]) -> Iterator[TopicFault]:
    if "compact" in configs.get("cleanup.policy", "delete"):
        yield TopicFault(
            "it is compacted: all but the last event of an account would go", "cleanup.policy=delete", True
        )
    kind = configs.get("compression.type", "producer")
    if kind not in ("producer", "zstd"):
        yield TopicFault(f"compression.type is {kind}: the broker packs each batch anew", "compression.type=producer")
    if configs.get("message.format.version", "3").startswith(("0.8", "0.9", "0.10")):
        version = configs["message.format.version"]
        yield TopicFault(
            f"message.format.version is {version}: it holds no batches of ours", "message.format.version=3.0", True
        )


def _sizes(configs: Mapping[str, str]) -> Iterator[TopicFault]:
    for name in _SIZES:
        value = _number(configs, name)
        if value is None or value >= MAX_MESSAGE_BYTES:
            continue
        if value < LEAST_MESSAGE_BYTES:
            yield TopicFault(f"{name} is {value}: many events are larger", f"{name}={MAX_MESSAGE_BYTES}", True)
        else:
            yield TopicFault(f"{name} is {value}: what is larger becomes a dead letter", f"{name}={MAX_MESSAGE_BYTES}")
    kept = _number(configs, "retention.bytes")
    if kept is not None and kept >= 0:
        yield TopicFault(
            f"retention.bytes is {kept} a partition: what a slow worker has not read by then is a gap",
            "retention.bytes=-1",
        )


def _times(configs: Mapping[str, str]) -> Iterator[TopicFault]:
    retention = _number(configs, "retention.ms")
    if retention is not None and 0 <= retention < LEAST_RETENTION_MS:
        yield TopicFault(
            f"retention.ms is {retention}: events go before a worker has read them", "retention.ms=604800000", True
        )
    elif retention is not None and 0 <= retention < _DAY_MS:
        yield TopicFault(
            f"retention.ms is {retention}: a worker that is down for longer loses events", "retention.ms=604800000"
        )
    if configs.get("message.timestamp.type", "CreateTime") == "LogAppendTime":
        return
    stamp = "message.timestamp.type=LogAppendTime"
    narrow = {name: value for name in _STAMPS if (value := _number(configs, name)) is not None}
    for name, value in narrow.items():
        if value < LEAST_STAMP_MS:
            yield TopicFault(f"{name} is {value}: a clock that differs by so much stops the ingest", stamp, True)
    yield TopicFault(
        "message.timestamp.type is not LogAppendTime: a wrong clock stops the ingest or loses events", stamp
    )


def _replicas(configs: Mapping[str, str], replication: int) -> Iterator[TopicFault]:
    least = _number(configs, "min.insync.replicas") or 1
    if least > replication:
        yield TopicFault(
            f"min.insync.replicas is {least}, and it has {replication}: nothing can be written",
            f"min.insync.replicas={max(replication - 1, 1)}",
            True,
        )
    if configs.get("unclean.leader.election.enable") == "true":
        yield TopicFault(
            "unclean.leader.election.enable is true: what was acknowledged can be lost",
            "unclean.leader.election.enable=false",
        )


def takes(configs: Mapping[str, str]) -> int:
    """Return the largest batch that the topic takes, in bytes: at most our largest message."""
    known = [value for name in _SIZES if (value := _number(configs, name)) is not None]
    return min([MAX_MESSAGE_BYTES, *known])


def _number(configs: Mapping[str, str], name: str) -> int | None:
    try:
        return int(configs[name])
    except (KeyError, ValueError):
        return None


def command(settings: Settings, topic: str, changes: str) -> str:
    """Return the command that makes these changes (name=value, with commas)."""
    servers = settings.bootstrap_servers()
    return (
        f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
        f"--entity-name {shlex.quote(topic)} --add-config {changes}"
    )


async def effective_configs(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """Return all settings of the topic, its own and the broker's. Raises KafkaError, also if we may not ask."""
    configs: dict[str, str] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]):
        for code, message, _, _, entries in response.resources:
            if code:
                raise for_code(code)(message)
            configs |= {name: value for name, value, *_ in entries if value is not None}
    return configs


async def check_limits(settings: Settings, info: TopicInfo, *, quiet: bool = False) -> int:
    """Look at the topic's settings; returns how many bytes it takes at a time, as far as that is known.

    What merely differs is a warning, unless ``quiet``. Raises MismatchError for what cannot work, BrokerError, also for
    a broker that is too old.
    """
    if not quiet and await is_too_old(settings):
        raise BrokerError(f"Kafka at {settings.bootstrap_servers()} is older than {OLDEST}", "use a newer one.")
    configs = await asked(settings, lambda admin: _configs_or_none(admin, info.name))
    if configs is None:
        return MAX_MESSAGE_BYTES
    faults = judge(configs, info.replication)
    fatal = [fault for fault in faults if fault.fatal]
    if fatal:
        changes = ",".join(dict.fromkeys(fault.mend for fault in fatal))
        raise MismatchError(
            f"The topic {info.name} cannot be used as it is: {'; '.join(fault.text for fault in fatal)}.",
            f"Mend it: {command(settings, info.name, changes)}",
        )
    for fault in () if quiet else faults:
        log.warning("the topic %s: %s (%s)", info.name, fault.text, command(settings, info.name, fault.mend))
    return takes(configs)


async def _configs_or_none(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str] | None:
    try:
        return await effective_configs(admin, topic)
    except KafkaError as error:
        if is_away(error):
            raise
        log.info("the topic's settings cannot be read (%s): going on without having seen them", type(error).__name__)
        return None
