"""How long the first frame of a connection is waited for."""

from __future__ import annotations

import pytest

from streams.runtime.waiting import RateLimitedLog
from streams.sources.firehose.first_frame import CERTAIN, LIKELY, PING_EVERY, FirstFrame


class Log:
    """What was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)


class Connection:
    """One that answers pings, or does not."""

    def __init__(self, *, alive: bool) -> None:
        self.alive = alive
        self.pings = 0

    async def answers(self, timeout: float) -> bool:
        self.pings += 1
        return self.alive


async def waits(connection: Connection, *, certain: bool, log: Log) -> int:
    """Seconds until it is not waited for any more."""
    first = FirstFrame(RateLimitedLog(log), "relay.example")
    for second in range(10_000):
        if not await first.is_awaited(connection, float(second), certain=certain):
            return second
    raise AssertionError("for ever")


@pytest.mark.parametrize(("certain", "seconds"), [(True, CERTAIN), (False, LIKELY)])
async def test_it_is_waited_for_as_long_as_the_connection_lives(certain: bool, seconds: float) -> None:
    log = Log()
    assert await waits(Connection(alive=True), certain=certain, log=log) == seconds
    assert log.lines == [
        "the relay relay.example has sent nothing on this connection yet: its first frame is waited for"
    ]


async def test_a_connection_that_is_dead_is_not_waited_for() -> None:
    connection = Connection(alive=False)
    assert await waits(connection, certain=True, log=Log()) == PING_EVERY
    assert connection.pings == 1
