"""The first frame of a connection, which may come late: a relay reads what is old from a cold disk."""

from __future__ import annotations

from typing import Final, Protocol

from streams.runtime.waiting import RateLimitedLog

#: Seconds for the first frame of a connection where there must be one; then a new connection is tried.
CERTAIN: Final = 600.0
#: Seconds for it where there probably is one: our own last event, as a proof.
LIKELY: Final = 60.0
#: Seconds between two pings meanwhile: a relay that is busy with our cursor may be slow to answer those, too.
PING_EVERY: Final = 120.0
#: Seconds that it may take to answer one.
PONG: Final = 15.0
#: Seconds after which the wait is logged.
SAY_AFTER: Final = 10.0


class Pingable(Protocol):
    """A connection that can be asked for a pong."""

    async def answers(self, timeout: float) -> bool:
        """Return whether a pong comes within so many seconds."""


class FirstFrame:
    """The wait for the first frame of one connection, as long as the connection lives. It is logged once a minute."""

    def __init__(self, trouble: RateLimitedLog, relay: str) -> None:
        self._trouble = trouble
        self._relay = relay
        self._ping_at = PING_EVERY

    async def is_awaited(self, connection: Pingable, silent: float, *, certain: bool) -> bool:
        """Return whether to wait on, after ``silent`` seconds. ``certain``: the relay has shown that there is one."""
        if silent >= SAY_AFTER:
            text = f"the relay {self._relay} has sent nothing on this connection yet: its first frame is waited for"
            self._trouble.warning("first frame", text)
        if silent >= self._ping_at:
            self._ping_at = silent + PING_EVERY
            if not await connection.answers(PONG):
                return False
        return silent < (CERTAIN if certain else LIKELY)
