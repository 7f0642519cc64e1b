"""What a relay's HTTP answer means: refused, later, the cursor, another address."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate

import pytest

from streams.errors import RelayError
from streams.protocol.frames import ErrorFrame
from streams.sources.firehose.handshake import (
    LONGEST_AT_START,
    LONGEST_WAIT,
    CursorRefused,
    NotNow,
    Refusal,
    Reply,
    keeps_cursor,
    meaning,
    pause_after,
    redirected,
    wait_asked,
)

NOW = 1_800_000_000.0


def reply(status: int, body: bytes = b"", **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "30"}, 30),
        ({"retry_after": " 1.5 "}, 1.5),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "-5"}, 0),
        ({"retry_after": "999999"}, LONGEST_WAIT),
        ({"retry_after": "1e400"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": formatdate(NOW + 90, usegmt=True)}, 91),
        ({"retry_after": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"retry_after": format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(days=9))}, LONGEST_WAIT),
        ({"retry_after": "Fri, 99 Foo 2027 00:00:00 GMT"}, None),
        ({"retry_after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"ratelimit_reset": str(int(NOW) + 45)}, 45),
        ({"ratelimit_reset": "45"}, 45),
        ({"retry_after": "7", "ratelimit_reset": "45"}, 7),
    ],
)
def test_how_long_a_relay_asks_us_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked(reply(429, **headers)) == seconds


def xrpc(name: str, message: str = "") -> bytes:
    return json.dumps({"error": name, "message": message}).encode()


@pytest.mark.parametrize(
    ("answer", "cursor", "kind"),
    [
        (reply(400, xrpc("FutureCursor", "Cursor in the future.")), 5, ErrorFrame),
        (reply(400, xrpc("InvalidRequest", "bad cursor")), 0, CursorRefused),
        (reply(400), 0, CursorRefused),
        (reply(410, xrpc("OutdatedCursor")), 5, CursorRefused),
        (reply(400), None, Refusal),
        (reply(401), 5, Refusal),
        (reply(403), 5, Refusal),
        (reply(403, retry_after="5"), 5, NotNow),
        (reply(403, ratelimit_remaining="99", ratelimit_reset="45"), 5, Refusal),
        (reply(403, ratelimit_remaining="0", ratelimit_reset="45"), 5, NotNow),
        (reply(404), 5, Refusal),
        (reply(405), 5, Refusal),
        (reply(408), 5, NotNow),
        (reply(418, b"[" * 100_000), 5, Refusal),
        (reply(429), 5, NotNow),
        (reply(500), 5, NotNow),
        (reply(502, b"<html>"), 5, NotNow),
        (reply(503, retry_after="5"), 5, NotNow),
        (reply(200, b"<html>", content_type="text/html; charset=utf-8"), 5, Refusal),
        (reply(426), 5, Refusal),
    ],
)
def test_what_an_answer_means(answer: Reply, cursor: int | None, kind: type[Exception]) -> None:
    error = meaning(answer, "relay.example", cursor)
    assert type(error) is kind
    if kind is not ErrorFrame:
        assert f"HTTP {answer.status}" in str(error)
    if isinstance(error, RelayError):
        assert "RELAY_URL" in str(error)


def test_how_often_a_start_asks_again() -> None:
    limited, down = NotNow("HTTP 429", None, limits=True), NotNow("HTTP 502", None, limits=False)
    waits = [pause_after(limited, n, taken=False) for n in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 32, 32, None]
    assert pause_after(NotNow("", 30.0, limits=True), 0, taken=False) == 30
    assert pause_after(NotNow("", 1.0, limits=True), 4, taken=False) == 16, "a limit may count what it refuses"
    assert pause_after(NotNow("", LONGEST_AT_START + 1, limits=True), 0, taken=False) is None
    for error in (down, OSError("away"), TimeoutError()):
        assert [pause_after(error, n, taken=True) for n in range(4)] == [0.5, 1, 2, None]
    assert pause_after(Refusal("HTTP 403"), 0, taken=False) is None
    assert [pause_after(Refusal("HTTP 403"), n, taken=True) for n in range(5)] == [1, 2, 4, 8, None]


@pytest.mark.parametrize(
    ("url", "location", "address"),
    [
        ("ws://a:1/x", "/y", "ws://a:1/y"),
        ("ws://a:1/x", "y?cursor=3&b=c", "ws://a:1/y?b=c"),
        ("ws://a:1/x", "http://b:2/y", "ws://b:2/y"),
        ("ws://a/x", "https://a/x", "wss://a/x"),
        ("wss://a/x", "wss://b/y?cursor=3", "wss://b/y"),
        ("wss://u:secret@a/x", "/y", "wss://u:secret@a/y"),
        ("wss://u:secret@a/x", "https://a:443/y", "wss://u:secret@a:443/y"),
        ("wss://u:secret@a/x", "https://b/y", "wss://b/y"),
        ("wss://a/x", "https://evil:login@b/y", "wss://b/y"),
        ("wss://a/x", "//b", "wss://b/"),
    ],
)
def test_where_a_redirect_leads(url: str, location: str, address: str) -> None:
    assert redirected(url, location, "a") == address


@pytest.mark.parametrize("location", [None, "", "ftp://b/y", "javascript:alert(1)", "http://b/y", "http://["])
def test_a_redirect_that_cannot_be_followed(location: str | None) -> None:
    with pytest.raises(Refusal, match="RELAY_URL"):
        redirected("wss://u:secret@a/x", location, "a")


def test_whether_a_redirect_keeps_the_cursor() -> None:
    assert keeps_cursor("/y?cursor=5", 5)
    assert keeps_cursor("/y", None)
    assert not keeps_cursor("/y", 5)
    assert not keeps_cursor("/y?cursor=6", 5)
    assert not keeps_cursor("/y?xcursor=5", 5)
