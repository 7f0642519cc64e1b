"""Where a run begins at relays that are slow, silent, limited, redirecting or refusing: only what frames have shown."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.http11 import Response

from streams.errors import RelayError
from streams.messages import CURSOR_LOST, CURSORS_REFUSED, NOT_KEPT, OLD_NOT_SHOWN, Watermark
from streams.protocol.frames import ErrorFrame
from streams.sources.firehose import probing
from streams.sources.firehose.plan import Decision
from streams.sources.firehose.probing import Prober, probe
from streams.sources.firehose.relay import open_relay
from streams.sources.firehose.seek import Absence
from streams.sources.firehose.start import PlannedRun, plan_start
from tests.acceptance.commands import free_port
from tests.support.relays import PATH, SECOND, Limit, OddRelay, answer, error_frame, frame

DAY = 86_400


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """These relays are on this machine: a first frame that is late by a second is very late."""
    for module in ("streams.sources.firehose.probing", "streams.sources.firehose.start"):
        monkeypatch.setattr(f"{module}.SILENCE", 0.5)
    monkeypatch.setattr("streams.sources.firehose.start.EXPECTED", 20.0)
    monkeypatch.setattr(probing, "EXPECTED", 20.0)
    monkeypatch.setattr(probing, "SAY_AFTER", 0.3)


async def planned(relay: OddRelay, days: float | None, *, quiet: float = 2.0, url: str = "") -> PlannedRun:
    target = None if days is None else time.time_ns() // 1000 - int(days * DAY * SECOND)
    return await plan_start(url or relay.url, Decision("start", target, None), after_run=0, quiet=quiet)


# -- silence


@pytest.mark.parametrize("wait", [0.0, 0.8])
@pytest.mark.parametrize("live", [True, False])
async def test_a_first_frame_that_comes_late_is_waited_for(wait: float, live: bool) -> None:
    """Where it keeps less than was asked for, that is a gap; nothing is claimed that no frame has shown."""
    async with OddRelay.of(200, 0.4 * DAY, late=lambda _: wait, live=live) as relay:
        start = await planned(relay, 1, quiet=20.0)
        oldest_seq, oldest_time = relay.frames[0]
    assert start.oldest is not None
    assert start.position.seq == oldest_seq - 1
    assert start.covered_from == pytest.approx(oldest_time, abs=SECOND)
    assert start.missing is not None
    assert (start.missing.reason, start.missing.to_seq) == (NOT_KEPT, oldest_seq - 1)


async def test_a_slow_relay_is_searched_all_the_same() -> None:
    """Of five days one is read, though each old cursor takes longer than silence at the head."""
    async with OddRelay.of(2000, 5 * DAY) as relay:
        old = relay.frames[-100][0]
        relay._late = lambda cursor: 0.6 if cursor < old else 0.0
        start = await planned(relay, 1, quiet=20.0)
        target = start.asked_from
        assert target is not None
        [first] = [at for seq, at in relay.frames if seq == start.position.seq + 1]
    assert start.missing is None
    assert start.covered_from == target
    assert 0 <= target - first <= 10 * 5 * DAY * SECOND // 2000
    assert len(relay.cursors) <= 5


async def test_what_is_live_while_the_oldest_never_comes_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.sources.firehose.start.EXPECTED", 1.5)
    async with OddRelay.of(50, DAY, late=lambda _: None) as relay:
        with capture_logs() as logs:
            start = await planned(relay, 2)
    head = relay.frames[-1]
    assert start.missing is not None
    assert (start.missing.reason, start.missing.from_time, start.missing.to_seq) == (
        OLD_NOT_SHOWN, start.asked_from, head[0],
    )  # fmt: skip
    assert start.missing.to_time == start.covered_from == head[1]
    assert start.live
    assert any("its first frame is waited for" in line["event"] for line in logs)


@pytest.mark.parametrize("days", [None, 1.0])
async def test_a_relay_that_shows_nothing_is_claimed_nothing_of(days: float | None) -> None:
    async with OddRelay([], live=False) as relay:
        start = await planned(relay, days, quiet=0.5)
    assert start.is_blind
    assert (start.oldest, start.head, start.covered_from, start.missing) == (None, None, None, None)
    assert start.position.seq == 0


async def test_an_outdated_cursor_promises_a_frame() -> None:
    """#info OutdatedCursor is believed: what comes next, however late, is the oldest."""
    info = frame("#info", name="OutdatedCursor")
    late = OddRelay.of(20, DAY / 2, late=lambda _: 1.5, live=False, before=lambda c: [] if c is None else [info])
    async with late as relay:
        found = await probe(relay.url, 7, timeout=0.5)
        assert found.outdated
        assert found.first is not None
        assert found.first.seq == relay.frames[0][0]


async def test_the_frames_that_a_look_saw_are_there() -> None:
    async with OddRelay.of(20, DAY) as relay:
        found = await probe(relay.url, 1009)
        start = await planned(relay, None)
    assert [(seen.seq, seen.did, seen.time) for seen in found.frames[:2]] == [
        (seq, f"did:plc:{seq:024d}", at) for seq, at in relay.frames[10:12]
    ]
    assert [seen.seq for seen in start.heads] == [1019]
    assert found.absence is None


# -- cursors


@pytest.mark.parametrize("by", ["frame", "http", "close"])
async def test_a_future_cursor_however_it_is_said(by: str) -> None:
    body = json.dumps({"error": "FutureCursor", "message": "Cursor in the future."})
    relay = OddRelay.of(
        5, DAY,
        answers=lambda cursor, _: answer(400, body) if by == "http" and cursor is not None else None,
        before=lambda cursor: [error_frame("FutureCursor")] if by == "frame" and cursor is not None else [],
    )  # fmt: skip
    if by == "close":

        async def close(connection: Any, cursor: int | None) -> None:
            await connection.close(1008, "FutureCursor")

        relay._stream = close  # type: ignore[method-assign]
    async with relay:
        assert (await probe(relay.url, 99_999)).absence is Absence.FUTURE
        with pytest.raises(ErrorFrame) as said:
            await (await open_relay(relay.url, 99_999, _decode)).ended
        assert said.value.name == "FutureCursor"


def _decode(data: bytes) -> None:
    probing.split_frame(data)


def refuses(below: int) -> Callable[[int | None, str], Response | None]:
    return lambda cursor, _: answer(400, "cursor!") if cursor is not None and cursor < below else None


@pytest.mark.parametrize("below", [1, 2, 1000, 1050, 1198])
async def test_a_relay_that_refuses_old_cursors_is_searched_for_what_it_takes(below: int) -> None:
    async with OddRelay.of(200, DAY, answers=refuses(below)) as relay:
        start = await planned(relay, None)
    first = max(below + 1, 1000)
    assert start.position.seq == first - 1
    assert start.oldest is not None
    assert start.oldest.seq == first
    assert not start.live


async def test_a_relay_that_refuses_all_cursors_is_read_live() -> None:
    async with OddRelay.of(200, DAY, answers=refuses(1 << 60)) as relay:
        start = await planned(relay, 1)
    assert start.live
    assert start.missing is not None
    assert (start.missing.reason, start.missing.to_seq) == (CURSORS_REFUSED, relay.frames[-1][0])


async def test_a_cursor_that_is_lost_on_the_way_is_noticed() -> None:
    async with OddRelay.of(50, DAY, ignores_cursor=True) as relay:
        send = relay._stream

        async def moving(connection: Any, cursor: int | None) -> None:
            relay.frames.append((relay.frames[-1][0] + 1, time.time_ns() // 1000))
            await send(connection, cursor)

        relay._stream = moving  # type: ignore[method-assign]
        start = await planned(relay, 1)
    assert start.missing is not None
    assert start.missing.reason == CURSOR_LOST
    assert start.covered_from is not None
    assert start.covered_from >= time.time_ns() // 1000 - 60 * SECOND


async def test_a_negative_cursor_is_never_sent() -> None:
    """A run that begins with seq 0 begins behind -1."""
    async with OddRelay.of(5, DAY) as relay:
        await (await open_relay(relay.url, -1, lambda _: None)).close()
    assert relay.cursors == [0]


# -- connections


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("strict", [False, True])
async def test_a_limit_of_connections_is_kept(says: bool, strict: bool) -> None:
    """Two in two seconds, and a search by time: it waits, and succeeds."""
    limit = Limit(2, 2.0, retry_after=says, strict=strict)
    async with OddRelay.of(2000, 5 * DAY, answers=limit) as relay:
        with capture_logs() as logs:
            start = await planned(relay, 1)
    assert start.missing is None
    assert start.covered_from == start.asked_from
    assert len(relay.cursors) <= 5
    assert limit.refused <= 6
    assert any("asking again in" in line["event"] for line in logs)


async def test_a_date_to_come_again_is_kept() -> None:
    opens = int(time.time()) + 3
    until = formatdate(opens, usegmt=True)
    relay = OddRelay.of(5, DAY, answers=lambda *_: answer(503, Retry_After=until) if time.time() < opens else None)
    async with relay:
        await Prober(relay.url).probe(0, 5.0)
        assert len(relay.paths) <= 3


async def test_a_relay_that_asks_for_hours_ends_the_start_with_a_sentence() -> None:
    async with OddRelay.of(5, DAY, answers=lambda *_: answer(429, Retry_After="3000")) as relay:
        with pytest.raises(RelayError, match=r"HTTP 429.*start again in 3000 s"):
            await planned(relay, 1)
        assert len(relay.paths) == 1


@pytest.mark.parametrize("busy", [answer(403), answer(429), answer(503), 1008, 1013])
async def test_one_connection_for_each_address_at_a_time(busy: Response | int) -> None:
    async with OddRelay.of(400, DAY, busy=busy) as relay:
        start = await planned(relay, 0.5)
    assert start.covered_from == start.asked_from
    assert relay.most_open == 1


# -- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/other", "http://127.0.0.1:{port}/other?a=b"])
async def test_a_redirect_does_not_lose_the_cursor(status: int, location: str) -> None:
    relay = OddRelay.of(20, DAY)
    relay._answers = lambda _, path: (
        answer(status, Location=location.format(port=relay.port)) if path.split("?")[0] == PATH else None
    )
    async with relay:
        with capture_logs() as logs:
            found = await probe(relay.url, 1009)
    assert found.first is not None
    assert found.first.seq == 1010
    assert relay.cursors == [1009]
    [line] = [line["event"] for line in logs]
    assert "the cursor was not taken along" in line
    assert "Set RELAY_URL to that." in line


async def test_a_redirect_elsewhere_gets_no_login() -> None:
    async with OddRelay.of(20, DAY) as there:
        relay = OddRelay.of(20, DAY, answers=lambda *_: answer(302, Location=f"http://localhost:{there.port}/x"))
        async with relay:
            url = relay.url.replace("ws://", "ws://user:hunter2@")
            with capture_logs() as logs:
                found = await probe(url, 1009)
            assert relay.logins == [f"Basic {base64.b64encode(b'user:hunter2').decode()}"]
        assert there.logins == [None]
    assert found.first is not None
    assert "hunter2" not in str(logs)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (answer(302, Location=PATH), "in a circle"),
        (answer(302), "without saying where"),
        (answer(302, Location="mailto:a@b"), "redirects us to"),
        (answer(200, "<html>hello", Content_Type="text/html"), "as a web server"),
        (answer(403, "<html>Attention Required!"), "HTTP 403"),
        (answer(404), "HTTP 404"),
        (answer(400, '{"error":"InvalidRequest","message":"no such method"}'), "InvalidRequest: no such method"),
    ],
)
async def test_an_answer_that_is_no_relays_is_one_sentence(response: Response, words: str) -> None:
    async with OddRelay.of(5, DAY, answers=lambda *_: response) as relay:
        with pytest.raises(RelayError, match=words) as refusal:
            await planned(relay, 1)
    assert "RELAY_URL" in str(refusal.value)
    assert "\n" not in str(refusal.value)


async def test_a_server_that_speaks_no_tls_or_no_http() -> None:
    relay = OddRelay.of(5, DAY)
    with pytest.raises(RelayError, match="cannot be reached"):
        await planned(relay, 1, url=f"ws://127.0.0.1:{free_port()}{PATH}")
    with pytest.raises(RelayError, match="host name is not known"):
        await planned(relay, 1, url=f"ws://no-such-relay.invalid{PATH}")

    async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(garbage, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RelayError, match="cannot be reached"):
            await planned(relay, 1, url=f"ws://127.0.0.1:{port}{PATH}")
        with pytest.raises(RelayError, match="speaks no TLS on this port: write ws://"):
            await planned(relay, 1, url=f"wss://127.0.0.1:{port}{PATH}")


async def test_a_resumed_run_does_not_wait_for_what_the_relay_keeps() -> None:
    """It knows where to begin: what the relay keeps is told where it is shown soon."""
    last = Watermark(relay="r", run=5, topic_id="t", seq=1010, time=1, newest=1)
    async with OddRelay.of(50, DAY, late=lambda _: None) as relay:
        start = await plan_start(relay.url, Decision("resume", None, last), after_run=5)
    assert (start.position.seq, start.oldest, start.missing) == (1010, None, None)
    assert start.heads[0].seq == 1049
