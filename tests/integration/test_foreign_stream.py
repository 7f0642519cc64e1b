"""An ingest at what is no relay: it ends with a sentence and the relay's exit code, and the topic stays empty."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from streams.kafka.topic import ensure_topic
from streams.simulator.traffic import Plan, Traffic
from streams.sources.firehose.foreign import ForeignStreamError
from streams.sources.firehose.probing import probe
from streams.sources.firehose.seek import Absence
from tests.conftest import SettingsFactory
from tests.fuzz import seeds
from tests.fuzz.cbor import dump, loosely
from tests.fuzz.through import Ingest
from tests.integration.test_ingest import session_of, topic_messages

#: What a connection is sent, given its cursor.
Script = Callable[[int | None], Iterator[str | bytes]]


@asynccontextmanager
async def server(script: Script, pause: float = 0.0) -> AsyncIterator[str]:
    """Send what the script says, each message after so many seconds; then be silent until the client goes."""

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        _, _, cursor = connection.request.path.partition("cursor=")
        with contextlib.suppress(ConnectionClosed):
            for message in script(int(cursor) if cursor else None):
                await connection.send(message)
                await asyncio.sleep(pause)
            await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=0.1) as made:
        yield f"ws://127.0.0.1:{made.sockets[0].getsockname()[1]}/subscribe"


def jetstream(_: int | None) -> Iterator[str]:
    for number in count():
        yield json.dumps(
            {"did": f"did:plc:{number}", "time_us": time.time_ns() // 1000, "kind": "commit", "commit": {}}
        )


def labels(cursor: int | None) -> Iterator[bytes]:
    for seq in range((cursor or 0) + 1, 300):
        yield dump({"op": 1, "t": "#labels"}) + dump({"seq": seq, "labels": [{"val": "spam"}]})


def few_labels(_: int | None) -> Iterator[bytes]:
    return labels(296)


def web_pages(_: int | None) -> Iterator[str]:
    return iter(["<html>no</html>"] * 9)


def compressed(_: int | None) -> Iterator[bytes]:
    return iter([b"\x28\xb5\x2f\xfd" + bytes(99)] * 99)


def garbage(_: int | None) -> Iterator[bytes]:
    return iter([b"\x10\x0c\x00\x04MQTT"] * 99)


def greeting(_: int | None) -> Iterator[str]:
    return iter(["Request served by 3287"])


@pytest.mark.parametrize(
    ("script", "pause", "words", "empty"),
    [
        (jetstream, 0.001, "a Jetstream", True),
        (jetstream, 0.4, "a Jetstream", True),
        (labels, 0.0, "a labeler", True),
        (few_labels, 0.0, "a labeler", True),
        (web_pages, 0.0, "a web server", True),
        (compressed, 0.0, "compress=true", True),
        (garbage, 0.0, "not frames", True),
        (greeting, 0.0, "text messages", False),  # one message proves little: the run itself is the judge
    ],
)
async def test_the_ingest_ends_and_says_what_it_seems_to_be(
    settings: SettingsFactory, script: Script, pause: float, words: str, empty: bool
) -> None:
    async with server(script, pause) as url:
        made = settings(relay_url=url, ingest_idle_seconds=1)
        info = await ensure_topic(made)
        with pytest.raises(ForeignStreamError, match=words) as caught:
            await asyncio.wait_for(session_of(made, info).run(), 90)
    assert caught.value.exit_code == 5
    messages = [message for part in (await topic_messages(made, info.partitions)).values() for _, message in part]
    assert {message["kind"] for message in messages} <= (set() if empty else {"run", "watermark"})


async def test_a_firehose_with_odd_messages_is_read(settings: SettingsFactory) -> None:
    """At its beginning, in the middle, and before what a connection takes up again."""
    frames = list(Traffic(Plan(200, seed=3, end_us=time.time_ns() // 1000)).frames())

    def odd(cursor: int | None) -> Iterator[str | bytes]:
        yield "hello"
        if cursor is None:
            return
        for number, frame in enumerate(frame for frame in frames if frame.seq > cursor):
            yield frame.data
            if number == 100:
                yield "in between"

    async with server(odd) as url:
        made = settings(relay_url=url, ingest_idle_seconds=2)
        info = await ensure_topic(made)
        session = session_of(made, info)
        await asyncio.wait_for(session.run(), 90)
    assert session.counts.text >= 2
    messages = [message for part in (await topic_messages(made, info.partitions)).values() for _, message in part]
    letters = [message["reason"] for message in messages if message["kind"] == "dead_letter"]
    assert letters == ["a text message instead of a frame"] * session.counts.text
    assert max(message["seq"] for message in messages if message["kind"] == "watermark") == frames[-1].seq


async def test_a_relay_is_seen_behind_an_odd_message() -> None:
    frame = next(iter(Traffic(Plan(5, seed=3)).frames()))
    async with server(lambda _: iter(["hello", frame.data])) as url:
        assert (await probe(url, 0)).frames
    async with server(lambda _: iter(["hello"])) as url:
        assert (await probe(url, 0, timeout=0.5)).absence is Absence.SILENT


async def test_frames_in_another_form_are_read_and_that_is_said_once(settings: SettingsFactory) -> None:
    """As a general CBOR library writes them; what is in the topic is what the same frames give in DAG-CBOR's form."""
    chosen, chance = seeds.frames()[:100], Random(1)
    loose = {
        seed.body["seq"]: loosely({"op": 1, "t": seed.kind}, chance) + loosely(seed.body, chance) for seed in chosen
    }

    def script(cursor: int | None) -> Iterator[bytes]:
        return iter([data for seq, data in loose.items() if cursor is not None and seq > cursor])

    async with server(script) as url:
        made = settings(relay_url=url, ingest_idle_seconds=2)
        info = await ensure_topic(made)
        session = session_of(made, info)
        with capture_logs() as logs:
            await asyncio.wait_for(session.run(), 90)
    assert session.counts.tolerated >= 90 and session.counts.dead == 0
    assert sum("slower decoder" in line["event"] for line in logs) == 1
    strict = Ingest(filtered=False)
    for seed in chosen:
        strict.intake.frame(seed.data)
    messages = [message for part in (await topic_messages(made, info.partitions)).values() for _, message in part]
    assert _events(messages) == _events([json.loads(value) for _, value in strict.tape.messages])


def _events(messages: list[dict[str, Any]]) -> list[str]:
    """The events among the messages, in an order of their own, without what a run adds."""
    events = [{k: v for k, v in m.items() if k != "place"} for m in messages if "did" in m]
    return sorted(json.dumps(event, sort_keys=True) for event in events)
