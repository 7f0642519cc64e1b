"""The silence of one connection: a pause between frames, the relay's head, or a stall.

TCP does not tell that a relay is gone, so silence is judged by the clock. First the frames that came last are accepted,
then the relay is asked for a pong, at last the connection is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from streams.sources.firehose.first_frame import PONG, FirstFrame
from streams.sources.firehose.foreign import Doubt
from streams.sources.firehose.intake import Intake
from streams.sources.firehose.relay import ConnectionEnd, EndReason, RelayConnection
from streams.sources.firehose.stalled_relay import Stalled

log = structlog.get_logger("streams.ingest")

#: Seconds without a frame, beside INGEST_IDLE_SECONDS, after which a connection is stalled.
STALL: Final = 20.0
#: Seconds without a frame, or without another position, after which the frames that came last are accepted.
PAUSE: Final = 1.0
UNMOVED: Final = 5.0
#: Seconds for which our last event is waited for, as the proof that nothing is missing: it may come after live ones.
PROOF: Final = 20.0


class SilenceWatch:
    """The wait for the end of one connection, with a judgement of its silence.

    ``at_head`` returns whether silence can mean the relay's head. ``idle``: seconds of silence that mean it then.
    ``frames_before``: the frames that were counted before this connection. ``slowness``: how many times as long as
    usual the relay may be silent before the connection is stalled.
    """

    def __init__(
        self, connection: RelayConnection, intake: Intake, first: FirstFrame, doubt: Doubt,
        at_head: Callable[[], bool], *, idle: float, follow: bool, frames_before: int, slowness: int,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._intake = intake
        self._first = first
        self._doubt = doubt
        self._at_head = at_head
        self._idle = idle
        self._follow = follow
        self._frames_before = frames_before
        self._stalled_after = (STALL + idle) * slowness

    async def end(self) -> ConnectionEnd:
        """Return the end of the connection, also where its silence is the head. Raises Stalled."""
        loop = asyncio.get_running_loop()
        connection, intake = self._connection, self._intake
        counts, continuity = intake.counts, intake.continuity
        messages, since = counts.frames + counts.text, loop.time()
        began, tick, position, unmoved = since, min(0.5, self._idle / 4), continuity.position, 0.0
        while True:
            await asyncio.wait((connection.ended,), timeout=tick)
            if connection.ended.done():
                return connection.ended.result()
            if continuity.position != position:
                position, unmoved = continuity.position, 0.0
            elif unmoved or counts.frames + counts.text != messages:
                unmoved += tick  # since the first frame behind it
            if counts.frames + counts.text != messages or connection.paused:
                messages, since = counts.frames + counts.text, loop.time()
                if unmoved >= UNMOVED:
                    intake.accept_pending(silent=False, patient=since - began >= PROOF)
                continue
            silent = loop.time() - since
            if silent >= PAUSE:
                intake.accept_pending(patient=loop.time() - began >= PROOF)
            if await self._awaits_first(silent):
                continue
            if await self._is_head(silent):
                return ConnectionEnd(EndReason.HEAD)
            if silent >= self._stalled_after:
                # Also where it answers a ping: to a position beyond its head many a relay sends nothing.
                raise Stalled("stalled: no frame" + ("" if self._at_head() else " before the head"))

    async def _awaits_first(self, silent: float) -> bool:
        """Return whether to wait for this connection's first frame: our last event, or newer ones, are due."""
        known = self._intake.continuity.known
        due = self._intake.counts.frames == self._frames_before and (known or not self._at_head())
        return due and await self._first.is_awaited(self._connection, silent, certain=not self._at_head())

    async def _is_head(self, silent: float) -> bool:
        """Return whether the silence is that of a relay whose head is reached. Raises Stalled where it is gone."""
        if self._follow or silent < self._idle or not self._at_head():
            return False
        self._doubt.check()
        if not await self._connection.answers(PONG):
            raise Stalled("stalled: no frame and no pong")
        self._intake.accept_pending()
        log.info("the relay is quiet: taken as its head", idle_seconds=round(silent, 1))
        return True
