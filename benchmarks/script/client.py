"""The first half of the script: ``python -m benchmarks.script.client BASE_URI SERVERS TOPIC FRAMES``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from atproto import CAR, AsyncFirehoseSubscribeReposClient, models, parse_subscribe_repos_message


class Client:
    """The SDK's client until it has taken so many frames; each operation is sent to the topic."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, frames: int) -> None:
        self._producer = producer
        self._topic = topic
        self._left = frames
        self._client: Any = None
        self.sent = self.refused = 0

    async def run(self, base_uri: str) -> None:
        """Take the frames from the relay's beginning."""
        self._client = AsyncFirehoseSubscribeReposClient({"cursor": 0}, base_uri=base_uri)
        await self._client.start(self._on_message)

    async def _on_message(self, frame: Any) -> None:  # noqa: ANN401 (the SDK is untyped here)
        self._left -= 1
        if self._left == 0:
            await self._client.stop()
        try:
            message = parse_subscribe_repos_message(frame)
        except Exception:  # the SDK's models refuse some frames that are valid
            self.refused += 1
            return
        if not isinstance(message, models.ComAtprotoSyncSubscribeRepos.Commit):
            return
        blocks = CAR.from_bytes(message.blocks).blocks
        for operation in message.ops:
            collection, _, rkey = operation.path.partition("/")
            cid = operation.cid
            event = {
                "did": message.repo, "collection": collection, "rkey": rkey, "rev": message.rev, "seq": message.seq,
                "time": message.time, "cid": None if cid is None else str(cid),
                "record": None if cid is None else blocks.get(cid),
            }  # fmt: skip
            await self._producer.send(self._topic, orjson.dumps(event, default=str), key=message.repo.encode())
            self.sent += 1


async def _run(base_uri: str, servers: str, topic: str, frames: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", compression_type="zstd", linger_ms=100, max_batch_size=1 << 20,
        max_request_size=8 << 20,
    )  # fmt: skip
    await producer.start()
    try:
        client = Client(producer, topic, frames)
        print(json.dumps({"event": "plan"}), flush=True)
        await client.run(base_uri)
        await producer.flush()
        print(json.dumps({"event": "done", "sent": client.sent, "refused": client.refused}), flush=True)
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
