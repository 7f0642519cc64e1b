"""``--days`` means the firehose: where the ingest begins on a relay that keeps less than the network's whole time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.simulator.recording import Frame, placed, read_frames
from tests.acceptance.commands import INGEST, finish
from tests.acceptance.deployment import Deployment, Relay

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
KEPT_DAYS = 5
#: Seven days of them, and five are kept: a frame about every 17 seconds.
EVENTS = 40_000


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("days") / "frames.bin"


@pytest.fixture(scope="module")
def relay(saved: Path) -> Iterator[str]:
    """The address of a relay that keeps five days of seven; its frames are in ``saved``."""
    keeps = ["--retain-seconds", str(KEPT_DAYS * 86_400), "--save", str(saved)]
    relay = Relay("relay", ["--generate", str(EVENTS), "--days-span", "7", *keeps], saved.parent)
    try:
        with asyncio.Runner() as runner:
            runner.run(relay.ready())
        yield relay.url
    finally:
        relay.kill()


def kept(saved: Path) -> list[Frame]:
    return list(placed(read_frames(saved)))


async def test_two_days_of_five_begin_within_a_minute(deployment: Deployment, relay: str, saved: Path) -> None:
    before = time.time_ns() // 1000 - 2 * DAY_US
    ingest = deployment.ingest(relay, days=2)
    assert await ingest.ended() == 0
    after = time.time_ns() // 1000 - 2 * DAY_US
    frames = kept(saved)
    right = next(frame for frame in frames if frame.time_us >= before)
    messages = await deployment.messages()
    [run] = [message for message in messages if message["kind"] == "run"]
    assert before <= run["asked_from"] <= after
    first = next(frame for frame in frames if frame.seq >= run["from_seq"])
    assert first.seq <= right.seq, "something of the time asked for is left out"
    assert right.time_us - first.time_us < MINUTE_US
    # And what is there are the events from that frame on, to the head.
    events = [message for message in messages if message["kind"] in ("commit", "identity", "account", "sync")]
    seqs = [event["seq"] for event in events]
    assert first.seq <= min(seqs)
    assert min(event["time_us"] for event in events) >= first.time_us
    assert min(event["time_us"] for event in events) - run["asked_from"] < 2 * MINUTE_US
    assert max(seqs) == frames[-1].seq
    assert "not covered" not in ingest.output
    assert not [message for message in messages if message["kind"] == "gap"]


async def test_seven_days_of_five_say_what_is_missing(deployment: Deployment, relay: str, saved: Path) -> None:
    ingest = deployment.ingest(relay, days=7)
    assert await ingest.ended() == 0
    assert "not covered: the relay keeps no older events" in ingest.output
    oldest = kept(saved)[0]
    [run] = [message for message in await deployment.messages(100) if message["kind"] == "run"]
    assert run["from_seq"] == run["oldest_seq"] == oldest.seq
    assert run["oldest_time"] == oldest.time_us
    [gap] = [message for message in await deployment.messages(100) if message["kind"] == "gap"]
    assert (gap["from_time"], gap["to_time"]) == (run["asked_from"], oldest.time_us)
    assert gap["to_seq"] == oldest.seq - 1
    worker = deployment.worker()
    await deployment.until_applied()
    [row] = await deployment.table("gaps")
    assert int(row["to_time"].timestamp() * 1e6) == oldest.time_us
    assert row["reason"] == "the relay keeps no older events"
    await worker.stop()


async def test_all_that_the_relay_keeps_is_nothing_missing(deployment: Deployment, relay: str, saved: Path) -> None:
    ingest = deployment.ingest(relay, days=-1)
    assert await ingest.ended() == 0
    messages = await deployment.messages()
    assert not [message for message in messages if message["kind"] == "gap"]
    assert max(m["seq"] for m in messages if m["kind"] == "commit") == kept(saved)[-1].seq
    # A topic that has watermarks is resumed, whatever is asked for.
    again = deployment.ingest(relay, days=7)
    assert await again.ended() == 0
    assert "the topic has watermarks: resuming" in again.output
    assert len([m for m in await deployment.messages() if m["kind"] == "commit"]) == len(
        [m for m in messages if m["kind"] == "commit"]
    )


async def test_no_days_is_nothing_to_do(tmp_path: Path) -> None:
    done = await finish([*INGEST, "--days", "0"], {}, tmp_path)
    assert (done.code, done.errors) == (0, "")
    assert done.output.startswith("Nothing to do: ")
    assert len(done.output.splitlines()) == 1
