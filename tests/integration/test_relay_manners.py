"""What real relays do that ours does not by itself: order, limits, late answers, resets of every kind; over sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import libipld
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from streams.simulator.arrangement import arranged
from streams.simulator.dialects import as_jetstream, as_labels
from streams.simulator.faults import parse_fault
from streams.simulator.manner import Beyond, Manner, Order, Speech
from streams.simulator.recording import Frame, frame_parts
from streams.simulator.relay import DevRelay
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Traffic

FRAMES = list(Traffic(Plan(300, seed=5)).frames())


def put(order: list[int]) -> FrameStore:
    """A stream of empty bodies with these seqs."""
    return FrameStore(
        Frame(seq, seq, libipld.encode_dag_cbor({"op": 1}) + libipld.encode_dag_cbor({"seq": seq})) for seq in order
    )


@asynccontextmanager
async def listening(relay: DevRelay, cursor: int | None = 0) -> AsyncIterator[ClientConnection]:
    query = "" if cursor is None else f"?cursor={cursor}"
    async with connect(relay.url + query, max_size=None, close_timeout=0.1, ping_interval=None) as client:
        yield client


async def seqs(client: ClientConnection, count: int) -> list[int]:
    found = []
    for _ in range(count):
        parts = frame_parts(await asyncio.wait_for(client.recv(decode=False), 10))
        assert parts is not None
        found.append(parts[1].get("seq", parts[1].get("error")))
    return found


async def silent(client: ClientConnection, seconds: float = 0.2) -> bool:
    try:
        await asyncio.wait_for(client.recv(), seconds)
    except TimeoutError:
        return True
    return False


OVERTAKEN = [*range(1, 11), 20, *range(11, 20), *range(21, 31)]


@pytest.mark.parametrize(
    ("order", "stream", "cursor", "inclusive", "wanted"),
    [
        (Order.SEQ, OVERTAKEN, 0, False, OVERTAKEN),
        (Order.SEQ, OVERTAKEN, 12, False, [20, *range(13, 20), *range(21, 31)]),
        (Order.PLACE, OVERTAKEN, 12, False, [20, *range(11, 20), *range(21, 31)]),
        (Order.SEQ, OVERTAKEN, 20, False, list(range(21, 31))),
        (Order.PLACE, OVERTAKEN, 20, False, [*range(11, 20), *range(21, 31)]),
        (Order.PLACE, OVERTAKEN, 20, True, [20, *range(11, 20), *range(21, 31)]),
        (Order.SEQ, OVERTAKEN, 20, True, [20, *range(21, 31)]),
        (Order.SEQ, [1, 2, 900, 3, 4, 5], 3, False, [900, 4, 5]),
        (Order.PLACE, [1, 2, 900, 3, 4, 5], 3, False, [900, 3, 4, 5]),
        (Order.PLACE, [1, 2, 900, 3, 4, 5], 2, False, [900, 3, 4, 5]),
        (Order.SEQ, [10, 11, 1, 12, 13], 10, False, [11, 12, 13]),
        (Order.PLACE, [10, 11, 1, 12, 13], 10, False, [11, 1, 12, 13]),
        (Order.SEQ, [1, 2, 2, 3], 1, False, [2, 2, 3]),
        (Order.PLACE, [1, 3, 2, 4], 1, False, [3, 2, 4]),
    ],
)  # fmt: skip
async def test_a_stream_is_served_in_its_own_order(
    order: Order, stream: list[int], cursor: int, inclusive: bool, wanted: list[int]
) -> None:
    relay = DevRelay(put(stream), cursor_inclusive=inclusive, manner=Manner(order=order))
    async with relay, listening(relay, cursor) as client:
        assert await seqs(client, len(wanted)) == wanted
        relay.append(put([7]).frame(0) for _ in range(1))
        assert await seqs(client, 1) == [7]  # live: whatever its seq is


async def test_a_long_stream_out_of_order_is_served_whole() -> None:
    stream = arranged(FRAMES, [parse_fault("overtake:every=30,count=7,by=9"), parse_fault("repeat:every=41")])
    async with DevRelay(FrameStore(stream)) as relay, listening(relay) as client:
        assert await seqs(client, len(stream)) == [frame.seq for frame in stream]
    middle = FRAMES[100].seq
    async with DevRelay(FrameStore(stream)) as relay, listening(relay, middle) as client:
        wanted = [frame.seq for frame in stream if frame.seq > middle]
        assert await seqs(client, len(wanted)) == wanted


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ("swap:after=3", [1, 2, 3, 5, 4, 6]),
        ("overtake:after=2,count=2,by=3", [1, 2, 6, 7, 3, 4, 5, 8]),
        ("overtake:after=0,count=1,by=4", [5, 1, 2, 3, 4, 6]),
        ("repeat:after=1,count=2", [1, 2, 3, 4, 2, 5]),
        ("overtake:after=7,count=9,by=9", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("swap:after=9", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
async def test_a_connection_has_its_own_disorder(fault: str, wanted: list[int]) -> None:
    async with DevRelay(put(list(range(1, 11))), faults=[fault]) as relay:
        async with listening(relay) as client:
            assert await seqs(client, len(wanted)) == wanted
        async with listening(relay) as client:
            assert await seqs(client, 10) == list(range(1, 11))


async def test_a_disorder_waits_for_what_is_not_out_yet() -> None:
    relay = DevRelay(put([1, 2, 3, 4, 5, 6]), published=3, faults=["overtake:after=2,count=1,by=2"])
    async with relay, listening(relay) as client:
        assert await seqs(client, 2) == [1, 2]
        assert await silent(client)
        relay.publish(3)
        assert await seqs(client, 4) == [5, 3, 4, 6]


@pytest.mark.parametrize("fault", ["ahead:after=4,jump=500", "behind:after=4,jump=500", "same_seq:after=4"])
async def test_a_connection_has_its_own_outlier(fault: str) -> None:
    wrong = {"ahead": FRAMES[4].seq + 500, "behind": FRAMES[4].seq - 500, "same_seq": FRAMES[3].seq}[
        fault.partition(":")[0]
    ]
    async with DevRelay(FrameStore(FRAMES), faults=[fault]) as relay, listening(relay) as client:
        right = [frame.seq for frame in FRAMES[:10]]
        assert await seqs(client, 10) == [*right[:4], wrong, *right[5:]]


@pytest.mark.parametrize(
    ("beyond", "wanted"),
    [(Beyond.ERROR, ["FutureCursor"]), (Beyond.LIVE, [31, 32]), (Beyond.SILENT, [])],
)
async def test_a_cursor_beyond_the_head(beyond: Beyond, wanted: list[int]) -> None:
    relay = DevRelay(put(list(range(1, 33))), published=30, manner=Manner(beyond=beyond))
    async with relay, listening(relay, 31) as client:
        relay.publish(2)
        assert await seqs(client, len(wanted)) == wanted
        assert wanted == ["FutureCursor"] or await silent(client)


@pytest.mark.parametrize("by_fault", [True, False])
async def test_a_cursor_beyond_the_head_as_an_http_answer(by_fault: bool) -> None:
    manner, faults = (Manner(), ["future_cursor:status=400"]) if by_fault else (Manner(beyond=Beyond.HTTP), [])
    async with DevRelay(put([1, 2, 3]), manner=manner, faults=faults) as relay:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{relay.url}?cursor={2 if by_fault else 9}")
        assert refused.value.response.status_code == 400
        assert json.loads(refused.value.response.body or b"")["error"] == "FutureCursor"
        async with listening(relay, 2) as client:
            assert await seqs(client, 1) == [3]


async def until_closed(client: ClientConnection) -> None:
    await asyncio.wait_for(client.wait_closed(), 10)


@pytest.mark.parametrize("keep_old", [False, True])
@pytest.mark.parametrize("new", [[1, 2, 3], list(range(1, 30)), [50, 51], [200, 201]])
async def test_a_reset_ends_the_connections_and_may_keep_what_was(keep_old: bool, new: list[int]) -> None:
    """A new sequence that is shorter than the old one, longer, beside it, beyond it."""
    old = [10, 11, 12]
    frames = [put([seq]).frame(0)._replace(anew=at == len(old)) for at, seq in enumerate([*old, *new])]
    manner = Manner(cut_at_reset=True, keep_old=keep_old, beyond=Beyond.LIVE)
    async with DevRelay(FrameStore(frames), published=len(old), manner=manner) as relay:
        async with listening(relay, 0) as client, listening(relay, None) as live:
            assert await seqs(client, 3) == old
            relay.publish(len(new))
            await until_closed(client)
            await until_closed(live)
        async with listening(relay, 0) as client:
            wanted = [*old, *new] if keep_old else new
            assert await seqs(client, len(wanted)) == wanted
        async with listening(relay, 11) as client:
            wanted = [seq for seq in wanted if seq > 11]
            assert await seqs(client, len(wanted)) == wanted
            assert await silent(client)


async def test_a_replay_may_begin_late_and_live_does_not() -> None:
    async with DevRelay(put(list(range(1, 101))), published=99, faults=["late:seconds=0.6,count=20"]) as relay:
        began = time.monotonic()
        async with listening(relay, 3) as late, listening(relay, 95) as near, listening(relay, None) as live:
            relay.publish(1)
            assert await seqs(live, 1) == [100]
            assert await seqs(near, 1) == [96]
            assert await seqs(late, 97) == list(range(4, 101))
            assert time.monotonic() - began >= 0.6
            await asyncio.wait_for(await late.ping(), 5)


async def test_a_limit_on_connections_over_sockets() -> None:
    async with DevRelay(put([1, 2, 3]), faults=["limit:count=2,seconds=1"]) as relay:
        for _ in range(2):
            async with listening(relay) as client:
                assert await seqs(client, 1) == [1]
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.url)
        assert refused.value.response.status_code == 429
        await asyncio.sleep(float(refused.value.response.headers["Retry-After"]))
        async with listening(relay) as client:
            assert await seqs(client, 1) == [1]


async def test_one_connection_at_a_time_over_sockets() -> None:
    async with DevRelay(put([1, 2, 3]), faults=["single"]) as relay:
        async with listening(relay):
            with pytest.raises(InvalidStatus):
                await connect(relay.url)
        for _ in range(100):
            if not relay.subscriptions:
                break
            await asyncio.sleep(0.02)
        async with listening(relay) as client:
            assert await seqs(client, 1) == [1]


async def test_a_redirect_that_loses_the_cursor_over_sockets() -> None:
    async with DevRelay(put([1, 2, 3]), published=2, faults=["redirect"]) as relay, listening(relay, 1) as client:
        relay.publish(1)
        assert await seqs(client, 1) == [3]


async def test_times_are_of_the_sending() -> None:
    async with DevRelay(FrameStore(FRAMES), manner=Manner(sent_times=True)) as relay:
        before = time.time()
        async with listening(relay) as client:
            for frame in FRAMES:
                said, kept = frame_parts(await client.recv(decode=False)), frame_parts(frame.data)
                assert said is not None and kept is not None
                moment = datetime.fromisoformat(said[1].pop("time")).timestamp()
                assert before - 0.01 <= moment <= time.time() + 0.01
                assert said[1] == {name: value for name, value in kept[1].items() if name != "time"}


@pytest.mark.parametrize("speech", [Speech.JETSTREAM, Speech.LABELS])
async def test_streams_of_another_kind(speech: Speech) -> None:
    other: dict[Speech, Any] = {Speech.JETSTREAM: as_jetstream, Speech.LABELS: as_labels}
    relay = DevRelay(FrameStore(other[speech](FRAMES)), manner=Manner(speech=speech))
    async with relay, listening(relay) as client:
        messages = [await asyncio.wait_for(client.recv(), 5) for _ in range(20)]
        assert {isinstance(message, str) for message in messages} == {speech is Speech.JETSTREAM}
