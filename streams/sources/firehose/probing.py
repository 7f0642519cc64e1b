"""Probes of a relay's sequence: short connections, one after another, no faster than the relay allows.

Silence proves nothing: a first frame may come late, and a relay that sends nothing may have nothing, or be slow. What
a ``ProbeResult`` says is proven by frames, or by the relay's own words.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog

from streams.errors import RelayError
from streams.protocol.events import frame_seq, frame_time
from streams.protocol.frames import ErrorFrame, FrameError, split_frame
from streams.runtime.waiting import RateLimitedLog
from streams.sources.firehose.foreign import FIREHOSE_TYPES, Doubt
from streams.sources.firehose.handshake import (
    FUTURE_CURSOR,
    OUTDATED_CURSOR,
    CursorRefused,
    NotNow,
    Refusal,
    pause_after,
)
from streams.sources.firehose.relay import ConnectionEnd, OversizedMessage, RelayConnection, open_relay, relay_name
from streams.sources.firehose.seek import WITNESSES, Absence, Search, Sighting, believed_time

log = structlog.get_logger("streams.ingest")

#: Seconds for a first frame where it may well be that there is none: live, or behind the head.
SILENCE: Final = 3.0
#: Seconds for a first frame of a relay that has shown none at all: it may have none.
QUIET: Final = 20.0
#: Seconds for a first frame that the relay has promised (#info OutdatedCursor), or must have: it sends newer ones.
PROMISED: Final = 60.0
EXPECTED: Final = 180.0
#: Seconds that a probe waits for the frames after the first.
WITNESSED: Final = 0.5
#: Seconds after which a wait is logged.
SAY_AFTER: Final = 10.0
#: Odd messages, with nothing else in all that time, that are enough to say that it is not a relay.
_ODD: Final = 3
#: A cursor beyond any head (seqs are below 2^53), and a time after any frame's.
_BEYOND: Final = (1 << 53) - 1
_NEVER: Final = 1 << 62


class SeenFrame(NamedTuple):
    """A frame that a probe saw; ``time`` in µs as it claims (None: it has none that can be read)."""

    seq: int
    did: str | None
    rev: str | None
    time: int | None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The first frames from a cursor on, or why there are none. ``seconds``: until the first frame, or the end.

    ``outdated``: the relay said that it keeps nothing as old as the cursor, so that the first frame is its oldest.
    """

    frames: tuple[SeenFrame, ...] = ()
    absence: Absence | None = None
    outdated: bool = False
    seconds: float = 0.0

    @property
    def first(self) -> Sighting | None:
        """Return the first frame, with its time as far as the frames after it confirm that."""
        times = [seen.time for seen in self.frames]
        return Sighting(self.frames[0].seq, believed_time(times)) if self.frames else None

    @property
    def oldest(self) -> Sighting | None:
        """Return the frame with the lowest seq: the first that a relay sends may be out of order."""
        return Sighting(min(seen.seq for seen in self.frames), self.first.time) if self.first is not None else None

    @property
    def head(self) -> Sighting | None:
        """Return the middle frame by its seq, as the head: the seq of one of them may be far off."""
        if self.first is None:
            return None
        seqs = sorted(seen.seq for seen in self.frames)
        return Sighting(seqs[(len(seqs) - 1) // 2], self.first.time)

    @property
    def middle(self) -> int | None:
        """Return the middle time of the frames; None if the probe did not see them all."""
        times = sorted(seen.time for seen in self.frames if seen.time is not None)
        return times[len(times) // 2] if len(times) >= WITNESSES else None


class _Witnesses:
    """The first frames of a connection. ``first``: there is one, or an error; ``enough``: there are all."""

    def __init__(self, relay: str) -> None:
        loop = asyncio.get_running_loop()
        self.doubt = Doubt(relay)
        self.first: asyncio.Future[None] = loop.create_future()
        self.enough: asyncio.Future[None] = loop.create_future()
        self.frames: list[SeenFrame] = []
        self.absence: Absence | None = None
        self.outdated = False
        self.error: str | None = None

    def frame(self, data: bytes) -> None:
        """Take a frame."""
        if self.enough.done():
            return
        try:
            kind, body = split_frame(data)
            if kind == "#info":
                self.outdated |= body.get("name") == OUTDATED_CURSOR
                return
            if kind not in FIREHOSE_TYPES:
                if not self.doubt.proven:
                    self.doubt.type(kind)
                return
            self.frames.append(_seen(body))
            self.doubt.prove()
        except ErrorFrame as error:
            self.error = str(error)
            if error.name not in {FUTURE_CURSOR, OUTDATED_CURSOR}:
                return
            self.absence = Absence.FUTURE if error.name == FUTURE_CURSOR else Absence.REFUSED
        except FrameError:  # garbage: the next one may do
            if not self.doubt.proven:
                self.doubt.binary(data)
            return
        if not self.first.done():
            self.first.set_result(None)
        if self.absence is not None or len(self.frames) >= WITNESSES:
            self.enough.set_result(None)

    def text(self, data: bytes) -> None:
        """Take a text message."""
        if not self.doubt.proven:
            self.doubt.text(data)


def _seen(body: dict[str, Any]) -> SeenFrame:
    did, rev = body.get("repo", body.get("did")), body.get("rev")
    return SeenFrame(
        frame_seq(body), did if isinstance(did, str) else None, rev if isinstance(rev, str) else None, frame_time(body)
    )


async def probe(
    url: str, cursor: int | None, timeout: float = SILENCE, on_late: Callable[[float], None] = lambda _: None
) -> ProbeResult:
    """Return what the relay sends first from a cursor on (None: live), within ``timeout`` seconds.

    ``on_late`` is told now and then for how long nothing has come. Raises RelayError where the relay refuses us,
    OSError or TimeoutError where it cannot be reached or ends the connection.
    """
    witnesses, began = _Witnesses(relay_name(url)), time.monotonic()
    try:
        connection = await open_relay(url, cursor, witnesses.frame, witnesses.text)
    except CursorRefused:
        return ProbeResult(absence=Absence.REFUSED)
    except ErrorFrame:  # as an HTTP answer it is FutureCursor only
        return ProbeResult(absence=Absence.FUTURE)
    try:
        if connection.redirect is not None:
            log.warning(connection.redirect)
        await _first_frame(connection, witnesses, timeout, on_late)
        seconds = time.monotonic() - began
        if witnesses.frames:
            await asyncio.wait((witnesses.enough, connection.ended), timeout=WITNESSED,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        witnesses.doubt.check(_ODD)
        if witnesses.frames:
            return ProbeResult(tuple(witnesses.frames), None, witnesses.outdated, seconds)
        return ProbeResult((), witnesses.absence or Absence.SILENT, witnesses.outdated, seconds)
    finally:
        with contextlib.suppress(Exception):
            await connection.close()


async def _first_frame(
    connection: RelayConnection, witnesses: _Witnesses, timeout: float, on_late: Callable[[float], None]
) -> None:
    """Wait for the first frame, or until there will be none. Raises ConnectionError where the connection ends."""
    began = time.monotonic()
    while not witnesses.first.done():
        waited = time.monotonic() - began
        left = (max(timeout, PROMISED) if witnesses.outdated else timeout) - waited
        if left <= 0:
            return
        if waited >= SAY_AFTER:
            on_late(waited)
        await asyncio.wait((witnesses.first, connection.ended), timeout=min(left, SAY_AFTER),
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        if connection.ended.done() and not witnesses.first.done():
            why = _why(connection.ended)
            witnesses.doubt.check(_ODD)
            if why is None:
                witnesses.absence = Absence.FUTURE
                return
            raise ConnectionError(f"the relay said {witnesses.error}" if witnesses.error else why)


def _why(ended: asyncio.Future[ConnectionEnd]) -> str | None:
    """Return why a connection has ended, for people; None: the cursor is beyond the relay's head."""
    try:
        return ended.result().text
    except ErrorFrame:
        return None
    except OversizedMessage as error:
        return f"it sends a message that is too large ({error})"


class Prober:
    """The probes of one relay, with the waits that it asks for. Between two probes no connection is open."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._relay = relay_name(url)
        self._taken = False
        self._trouble = RateLimitedLog(log)
        #: Whether the relay has limited our connections: then only those are made that must be.
        self.is_limited = False
        #: Seconds of the slowest first frame so far.
        self.slowest = 0.0

    async def probe(self, cursor: int | None, timeout: float) -> ProbeResult:
        """Probe; try again if the relay cannot be reached, or asks us to come later. Raises RelayError."""
        attempt = 0
        while True:
            try:
                found = await probe(self._url, cursor, timeout, self._late)
            except (Refusal, OSError, TimeoutError) as error:
                pause = pause_after(error, attempt, taken=self._taken)
                if pause is None:
                    raise self._given_up(error) from None
                if isinstance(error, NotNow | Refusal):
                    self.is_limited = True
                    log.warning(f"the relay does not take us now ({error}): asking again in {pause:.0f} s")
                await asyncio.sleep(pause)
                attempt += 1
                continue
            self._taken = True
            if found.frames:
                self.slowest = max(self.slowest, found.seconds)
            return found

    @property
    def usual(self) -> float:
        """Return the seconds after which silence probably means that there is nothing: 3 times the slowest answer."""
        return max(SILENCE, 3 * self.slowest)

    def _late(self, waited: float) -> None:
        text = f"the relay {self._relay} has sent nothing for {waited:.0f} s: its first frame is waited for"
        self._trouble.warning("first frame", text)

    def _given_up(self, error: Exception) -> RelayError:
        if isinstance(error, RelayError):
            return error
        if isinstance(error, NotNow) and error.limits:
            when = f"in {error.after:.0f} s" if error.after else "later"
            return RelayError(f"The relay {self._relay} does not take us now ({error})", f"start again {when}.")
        why = str(error) or type(error).__name__
        return RelayError(f"The relay {self._relay} cannot be reached ({why})", "check RELAY_URL and the network.")


async def find_start(prober: Prober, oldest: Sighting, head: Sighting | None, target: int) -> Sighting:
    """Return the frame to start at for ``target`` (µs): see ``Search``. Raises RelayError.

    If the relay does not show a frame that it must have, return the best so far: it is earlier than asked for.
    """
    search = Search(oldest, head, target)
    while (cursor := search.next_cursor()) is not None:
        expected = head is not None and cursor < head.seq
        found = await prober.probe(cursor, EXPECTED if expected else prober.usual)
        if expected and found.absence is Absence.SILENT:
            log.warning("the relay does not show what it has at the time asked for: reading from an earlier event")
            break
        if found.absence is Absence.REFUSED:
            search.refuse()
        else:
            search.tell(found.oldest, found.middle)
    return search.best


async def find_head(prober: Prober, oldest: Sighting) -> Sighting | None:
    """Return the last frame of a relay that sends nothing live, where it tells cursors beyond its head; else None.

    That takes many probes: a relay that limits our connections is spared them.
    """
    if prober.is_limited or (await prober.probe(_BEYOND, prober.usual)).absence is not Absence.FUTURE:
        return None
    return await find_start(prober, oldest, None, _NEVER)


async def find_oldest(prober: Prober, head: Sighting) -> Sighting | None:
    """Return the oldest frame of a relay that refuses cursors below its window; None where it refuses them all."""
    low, high, step = 1, head.seq, 1024
    best: Sighting | None = None
    while high - low > 1:
        cursor = max(head.seq - step, low + 1) if low == 1 else (low + high) // 2
        step *= 4
        found = await prober.probe(cursor, EXPECTED)
        if found.absence is Absence.REFUSED:
            low = cursor
        elif found.first is None:
            break
        else:
            high, best = cursor, found.oldest
    return best
