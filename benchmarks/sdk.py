"""The atproto SDK decoding frames and nothing else, on one core: ``python -m benchmarks.sdk``.

It does with a frame what the SDK's own example does with a message: the model of the frame, the blocks of its commit,
and the record of each operation. Frames that its models refuse are counted, and cost what they cost.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

from atproto import CAR, models
from atproto_firehose import parse_subscribe_repos_message
from atproto_subscription.frames import Frame, MessageFrame

from benchmarks.workload import add_options, workload_of


def decode(frames: Sequence[bytes]) -> tuple[int, int]:
    """Decode every frame. Return how many events they gave, and how many frames were refused."""
    events = refused = 0
    for data in frames:
        try:
            frame = Frame.from_bytes(data)
            assert isinstance(frame, MessageFrame)
            message = parse_subscribe_repos_message(frame)
        except Exception:  # pydantic's, in the SDK's own wrapper
            refused += 1
            continue
        if not isinstance(message, models.ComAtprotoSyncSubscribeRepos.Commit):
            events += 1
            continue
        car = CAR.from_bytes(message.blocks)
        for operation in message.ops:
            if operation.cid is not None:
                car.blocks.get(operation.cid)
            events += 1
    return events, refused


def main() -> None:
    """Run ``python -m benchmarks.sdk``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk", description=__doc__)
    add_options(parser)
    options = parser.parse_args()
    frames = [frame.data for frame in workload_of(options).frames(options.frames)]
    decode(frames[:100])  # models are built at their first use
    began, used = time.monotonic(), time.process_time()
    events, refused = decode(frames)
    seconds, cpu = time.monotonic() - began, time.process_time() - used
    print(json.dumps({"frames": len(frames), "events": events, "refused": refused, "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main()
