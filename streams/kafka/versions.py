"""The check that a broker is new enough, by the requests that it understands: it does not tell its version."""

from __future__ import annotations

from typing import Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError

from streams.kafka.client import REFUSAL_MS, kafka_client_options
from streams.settings import Settings

#: The oldest version of Kafka that we work with (docs/operating.md): the first that takes batches packed by zstd.
OLDEST: Final = "2.1"
#: Its Produce request: key of the protocol, and the version that zstd came with.
_PRODUCE, _WITH_ZSTD = 0, 7


def understands(versions: dict[int, tuple[int, int]]) -> bool:
    """Return whether a broker with these versions of its requests is new enough. Pure."""
    return versions.get(_PRODUCE, (0, 0))[1] >= _WITH_ZSTD


async def is_too_old(settings: Settings) -> bool:
    """Return whether a broker that answers is older than OLDEST; False if none answers."""
    options = kafka_client_options(settings)
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers")):
        try:
            connection = await create_conn(host, port, request_timeout_ms=REFUSAL_MS, **options)
        except (KafkaError, OSError):
            continue
        try:
            return not understands(connection._versions)
        finally:
            connection.close()
    return False
