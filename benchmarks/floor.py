"""The floor: what the bare library calls cost alone, without any of our checks. Their sum is what nobody gets below.

``python -m benchmarks.floor`` runs them in a process of their own, and prints µs of CPU an event for each. The pieces
with servers are in ``benchmarks/floor_servers.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final

import cramjam
import libipld
import orjson
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from benchmarks.floor_servers import Message, copy, fetch, produce
from benchmarks.workload import add_options, workload_of
from streams.messages import decode_message
from streams.simulator.retained import websocket_message

#: Bytes of one read of a socket: what asyncio reads at a time.
_READ: Final = 256 * 1024
#: Bytes of a batch before compression.
_BATCH: Final = 896 * 1024
#: Frames whose objects are held at once.
_CHUNK: Final = 500
_TWO_BYTES: Final = 126

_decode_two = libipld.decode_dag_cbor_multi
_decode = libipld.decode_dag_cbor
_text = libipld.encode_multibase


def cpu(function: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[float, Any]:
    """Return the CPU seconds of a call, and its result."""
    began = clock()
    result = function()
    return clock() - began, result


def cut_frames(frames: Sequence[bytes]) -> float:
    """Return the seconds of this thread to receive the frames over the loopback, cut them and count them."""
    server = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(server.getsockname())
    receiver, _ = server.accept()
    wire = b"".join(map(websocket_message, frames))

    def send() -> None:
        sender.sendall(wire)
        sender.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        seconds, count = cpu(lambda: _count(receiver), time.thread_time)
    finally:
        thread.join()
        receiver.close()
        server.close()
    assert count == len(frames)
    return seconds


def _count(receiver: socket.socket) -> int:
    count, rest = 0, b""
    while read := receiver.recv(_READ):
        data, at = rest + read if rest else read, 0
        end = len(data)
        while at + 10 <= end:
            size, begin = data[at + 1], at + 2
            if size == _TWO_BYTES:
                size, begin = data[at + 2] << 8 | data[at + 3], at + 4
            elif size > _TWO_BYTES:
                size, begin = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if begin + size > end:
                break
            at = begin + size
            data[begin:at]
            count += 1
        rest = data[at:]
    return count


def records(bodies: Sequence[dict[str, Any]]) -> list[Message]:
    """Return the messages of the frames' operations: the block by its CID, its hash, its value, the JSON."""
    found: list[Message] = []
    for body in bodies:
        did = body.get("repo")
        if did is None:
            continue
        car, rev, seq, key = body["blocks"], body["rev"], body["seq"], did.encode()
        for op in body["ops"]:
            collection, _, rkey = op["path"].partition("/")
            commit = {"rev": rev, "operation": op["action"], "collection": collection, "rkey": rkey}
            cid = op["cid"]
            if cid is not None:
                commit["record"] = _decode(_block(car, cid))
                commit["cid"] = _text("b", cid)
            message = {"did": did, "time_us": 1_790_000_000_000_000, "kind": "commit", "seq": seq, "commit": commit}
            found.append(Message(key, orjson.dumps(message, default=_link)))
    return found


def _block(car: bytes, cid: bytes) -> bytes:
    """Return the block of a CID. The last occurrence is nearly always the block; a link to it is behind a zero.

    The section's length stands before the CID, in a varint of one to four bytes: the hash decides how many they are.
    """
    at = car.rfind(cid)
    while at > 0:
        length = 0
        for width in range(1, 5):
            length = length << 7 | car[at - width] & 127
            block = car[at + 36 : at + length]
            if length > 36 and sha256(block).digest() == cid[4:]:
                return block
        at = car.rfind(cid, 0, at)
    raise ValueError("the block is missing")


def _link(value: bytes) -> dict[str, str]:
    return {"$link": _text("b", value)}


def append(messages: Sequence[Message]) -> list[Any]:
    """Append the messages to batches in aiokafka's compiled builder. Return the batches' bytes."""
    found: list[Any] = []
    builder, count = _builder(), 0
    for key, value, _ in messages:
        if builder.append(count, 1_790_000_000_000, key, value, []) is None:
            found.append(builder.build())
            builder, count = _builder(), 0
            builder.append(0, 1_790_000_000_000, key, value, [])
        count += 1
    found.append(builder.build())
    return found


def _builder() -> Any:  # noqa: ANN401 (aiokafka is untyped here)
    return DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=_BATCH
    )


def pieces(frames: Sequence[bytes]) -> tuple[int, dict[str, float], list[Message]]:
    """Return how many events the frames have, the µs an event of each piece without servers, and the messages."""
    received = cut_frames(frames)
    objects = recorded = 0.0
    events, messages = 0, []  # type: int, list[Message]
    gc.freeze()  # what is there already is not looked through with each collection
    for first in range(0, len(frames), _CHUNK):
        part = frames[first : first + _CHUNK]
        seconds, decoded = cpu(lambda part=part: [_decode_two(frame) for frame in part])  # type: ignore[misc]
        objects += seconds
        bodies = [body for _, body in decoded]
        seconds, made = cpu(lambda bodies=bodies: records(bodies))  # type: ignore[misc]
        recorded += seconds
        messages += made
        events += sum(len(body["ops"]) if "ops" in body else 1 for body in bodies)
    appended, batches = cpu(lambda: append(messages))
    compressed, _ = cpu(lambda: [len(cramjam.zstd.compress(batch, 1)) for batch in batches])
    envelope, _ = cpu(lambda: sum(decode_message(message.value) is not None for message in messages))
    found = {
        "receive": received, "objects": objects, "records": recorded, "append": appended, "zstd": compressed,
        "envelope": envelope,
    }  # fmt: skip
    return events, {name: each / events * 1e6 for name, each in found.items()}, messages


async def _with_servers(messages: Sequence[Message], options: argparse.Namespace) -> dict[str, float]:
    """Return the µs a message of each piece that needs a server."""
    found = await produce(messages, options.bootstrap_servers, options.topic, options.kafka_pid)
    found |= await fetch(len(messages), options.bootstrap_servers, options.topic, options.kafka_pid)
    found |= await copy(messages, options.dsn, options.topic, options.postgres_pid)
    return {name: seconds / len(messages) * 1e6 for name, seconds in found.items()}


def main() -> None:
    """Run ``python -m benchmarks.floor``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    add_options(parser)
    for name in ("--bootstrap-servers", "--dsn", "--topic"):
        parser.add_argument(name, required=True)
    for name in ("--kafka-pid", "--postgres-pid"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    frames = [frame.data for frame in workload_of(options).frames(options.frames)]
    pieces(frames[:100])
    events, found, messages = pieces(frames)
    found |= asyncio.run(_with_servers(messages, options))
    print(json.dumps({"events": events, "pieces": found}))


if __name__ == "__main__":
    main()
