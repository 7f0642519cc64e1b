"""Reads a run from its relay: connect, judge silence, connect again; and begin anew where the relay's sequence does.

What happens to a frame is in ``intake.py``, what becomes of its events in the publisher, which is another one after
each trouble with Kafka: ``ingestion/session.py`` hands over the one to read into.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from streams.errors import RelayError
from streams.kafka.publisher import Publisher
from streams.messages import Run, StreamPosition, Watermark
from streams.protocol.collection_filter import compile_patterns
from streams.protocol.events import frame_seq
from streams.protocol.frames import ErrorFrame, FrameError, split_frame
from streams.runtime.drills import crash_point
from streams.runtime.waiting import Ended, Patience
from streams.settings import Settings
from streams.sources.firehose.first_frame import FirstFrame
from streams.sources.firehose.foreign import Doubt, ForeignStreamError
from streams.sources.firehose.handshake import CursorRefused, NotNow, Refusal
from streams.sources.firehose.intake import AskAgain, Counts, Intake, SequenceReset
from streams.sources.firehose.looking import EXPECTED
from streams.sources.firehose.plan import Decision, blind_gap, reset_gap
from streams.sources.firehose.reading import Reading
from streams.sources.firehose.relay import OnFrame, OversizedMessage, RelayConnection, open_relay, relay_name
from streams.sources.firehose.sequence.arrival_times import Reference
from streams.sources.firehose.sequence.arrivals import Memory
from streams.sources.firehose.sequence.continuity import Continuity
from streams.sources.firehose.stalled_relay import Stalled, StalledRelay, check_shown, is_beyond_head
from streams.sources.firehose.start import RunStart, cursor_taken, plan_start
from streams.sources.source import Look

log = structlog.get_logger("streams.ingest")

#: Seconds without a frame and without a pong after which a connection is stalled.
STALL: Final = 20.0
PONG: Final = 15.0
#: Most times that as long, where the relay stays quiet: each time it is asked what it sends live.
MOST_PATIENT: Final = 32
#: Seconds without a frame, or with some and without another position, after which what came last is settled.
PAUSE: Final = 1.0
UNMOVED: Final = 5.0
#: Seconds for which our last event is waited for, as the proof that nothing is missing: it may come after live ones.
PROOF: Final = 20.0
#: Times that a relay may send the same oversized message before it is a fault: a broken connection may be one too.
OVERSIZED_TRIES: Final = 3
#: Times that a relay may refuse us in a row, once it has taken us: some need a moment to see that a connection is gone.
REFUSED_TRIES: Final = 4
BEGINNING: Final = "the oldest event that it keeps"
BEYOND_HEAD: Final = "FutureCursor: our position is beyond its head"
NOT_TAKEN: Final = (
    "Kafka has not acknowledged what was sent: is it up, and are enough replicas in sync (min.insync.replicas)? "
    "Waiting for it."
)


class FirstShown(Exception):  # noqa: N818 (good news)
    """A relay that had shown nothing when the run was planned sends its first frame."""


class RunReader:
    """Reads the run ``start`` of a topic. ``marked``: the topic has watermarks already."""

    def __init__(
        self, settings: Settings, reading: Reading, start: RunStart, patience: Patience, counts: Counts, *,
        topic_id: str, marked: bool,
    ) -> None:  # fmt: skip
        self.start = start
        self.topic_id = topic_id
        self.marked = marked
        self.connection: RelayConnection | None = None
        self.connections = 0
        self._memory = Memory()
        self.continuity = _continuity(start, self._memory)
        self.head_reached = False
        self._taken_at_reset = 0
        self._stalled = StalledRelay(settings.relay_url)
        #: Times the usual silence after which a relay is asked what it sends live.
        self._patient = 1
        #: Whether Kafka has been given what must be there before we go on.
        self.marking = False
        self._settings = settings
        self._reading = reading
        self._patience = patience
        self._counts = counts
        #: The run for which it was said that its frames are not in DAG-CBOR's form.
        self._said_tolerated: int | None = None
        self._relay = relay_name(settings.relay_url)
        self._doubt = Doubt(self._relay)
        self._keep = compile_patterns(settings.ingest_collections)
        #: The cursor that the relay takes instead of ours; unset where it has refused none.
        self._instead: list[int | None] = []
        self._planned_anew = False
        self._is_reading = False
        #: The frames that were there before this connection: its first may come while it is opened.
        self._frames_before = 0
        #: Seconds that the relay asked us to wait before the next connection.
        self._asked_wait = 0.0
        #: When the window of ``start.oldest`` was asked for, in µs.
        self._planned_at = time.time_ns() // 1000

    def finish(self, why: str) -> None:
        """End the connection, if there is one."""
        if self.connection is not None:
            self.connection.finish(why)

    # -- with each publisher
    def begin(self, publisher: Publisher) -> None:
        """Tell the publisher where we are; and, until Kafka has it, tell the topic how this run began."""
        start = self.start
        self.continuity = _continuity(start, self._memory)

        def watermark(position: StreamPosition) -> Watermark:
            return Watermark(
                relay=self._relay, run=start.run, topic_id=self.topic_id, seq=position.seq, time=position.time,
                median=position.median, spread=position.spread, event=position.event, sequence=start.sequence,
            )  # fmt: skip

        if not start.announced:
            publisher.control(
                Run(
                    relay=self._relay, run=start.run, topic_id=self.topic_id, mode=start.mode,
                    days=self._reading.days, asked_from=start.asked_from,
                    oldest_seq=start.oldest.seq if start.oldest else None,
                    oldest_time=start.oldest.time if start.oldest else None,
                    from_seq=start.position.seq + 1,
                    head_seq=start.head.seq if start.head else None, head_time=start.head.time if start.head else None,
                )
            )  # fmt: skip
            for gap in (start.passed_over, start.missing):
                if gap is not None:
                    publisher.control(gap)
        publisher.mark_with(watermark, self._position)

    def _position(self) -> StreamPosition:
        """Up to where the run was given to the publisher."""
        continuity = self.continuity
        last = continuity.reference
        return StreamPosition(continuity.position, continuity.time, last.time, last.spread, continuity.event)

    def go_back(self, publisher: Publisher) -> None:
        """The next publisher begins at the last watermark that Kafka has, whatever was reached after it."""
        self.head_reached = False
        self._memory.forget_events()  # not all that was taken is in Kafka
        if publisher.durable is not None:
            self.start.position = publisher.durable
            self.start.known = publisher.durable.event is not None

    async def _announce(self, publisher: Publisher) -> None:
        """The run's first watermarks: a consumer learns of the run, and a restart resumes it."""
        crash_point("run.before_first_watermark")
        await self.until_taken(publisher.mark())
        crash_point("run.after_first_watermark")
        self.start.announced = self.marked = True

    async def until_taken(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait until Kafka has it. By itself aiokafka waits for replicas for ever, and without a word. Raises Ended."""
        self.marking = True
        try:
            await self._patience.unless_ended(work, "kafka", NOT_TAKEN)
        finally:
            self.marking = False

    # -- one connection until it ends, and the next
    async def read_until_done(self, publisher: Publisher) -> None:
        """Connect, and connect again, until the head is reached or we are stopped. Raises SendError, RelayError."""
        self._is_reading = True
        try:
            with contextlib.suppress(Ended):
                await self._read_on(publisher)
        finally:
            self.continuity.settle_cut()
            self._is_reading = False

    async def _read_on(self, publisher: Publisher) -> None:
        await self._announce(publisher)
        attempt = 0
        while not self._patience.ended and not self.head_reached:
            publisher.check()
            before, begin = self._counts.taken, "the last event"
            try:
                why = await self._connection(publisher, attempt)
            except SequenceReset as reset:
                await self._reset(publisher, reset)
                continue
            except ErrorFrame as error:
                if error.name == "FutureCursor":
                    if self._may_begin_anew():
                        await self._reset(publisher, SequenceReset(BEYOND_HEAD), refused=True)
                        continue
                    # It sends the old sequence again, and then refuses the position in it: read on from the beginning.
                    self.continuity.go_on_at(0)
                    begin = BEGINNING
                why = f"the relay said {error}"
            except (OSError, TimeoutError) as error:
                why = f"the relay cannot be reached: {str(error) or type(error).__name__}"
            except AskAgain:
                why, begin = "the relay sent its old sequence again, not the one after it", BEGINNING
            except OversizedMessage as error:
                if attempt >= OVERSIZED_TRIES:
                    raise self._oversized(str(error)) from None
                why = f"the relay sends a message that is too large ({error})"
            if why == "head" or self._patience.ended:
                return
            publisher.check()  # then it is Kafka that we wait for
            if self._counts.taken != before:
                attempt = 0  # it brought something new: what was seen before comes again with every connection
            self._patience.say("relay", f"{why}; connecting again from {begin}")
            await self._patience.wait(attempt, self._asked_wait)
            attempt += 1

    async def _connection(self, publisher: Publisher, attempt: int) -> str:
        """One connection until it ends; returns why, also where the relay does not take it now, or not from our cursor.

        Raises what ``_one_connection`` raises; Refusal only where the relay refuses us again and again.
        """
        self._asked_wait, taken = 0.0, self._counts.taken
        try:
            try:
                why = await self._one_connection(publisher)
            except FirstShown:
                await self._plan_anew(publisher)
                why = await self._one_connection(publisher)
        except CursorRefused as error:
            return await self._other_cursor(error)
        except Stalled as error:
            await self._judge_stall(brought=self._counts.taken != taken)
            return str(error)
        except Refusal as error:
            if attempt >= REFUSED_TRIES:
                raise
            return str(error)
        except NotNow as error:
            self._asked_wait = error.after or 0.0
            asked = f", and asks us to wait {error.after:.0f} s" if error.after else ""
            return f"the relay does not take us now: {error}{asked}"
        if why == "head":
            self._report_blind(publisher)
        return why

    async def _one_connection(self, publisher: Publisher) -> str:
        continuity, head, follow = self.continuity, self.start.head, self._reading.follow
        intake = Intake(
            publisher, continuity, self._counts, relay=self._relay, run=self.start.run, sequence=self.start.sequence,
            keep=self._keep,
            head_seq=None if follow or head is None else head.seq, on_head=self._reach_head,
            on_tolerated=self._tolerate, on_turn=self._turn, doubt=self._doubt,
        )  # fmt: skip
        is_beyond = is_beyond_head(self.start, continuity)
        if is_beyond:
            check_shown(continuity, self.start.heads or self.start.tails)
        is_at_head = head is not None and continuity.position >= head.seq and continuity.known and not continuity.is_old
        if not follow and is_at_head and not is_beyond:
            intake.settle()
            self._reach_head()
            return "head"
        cursor = self._cursor(intake)
        self._frames_before = self._counts.frames
        connection = await self._patience.unless_ended(
            open_relay(
                self._settings.relay_url, cursor, self._taker(intake), intake.text,
                on_bytes=self._reading.on_bytes, max_size=self._reading.frame,
            )
        )  # fmt: skip
        self.connection = connection
        self.connections += 1
        try:
            if self._patience.ended:  # told just before there was a connection to finish
                return "stopped"
            if connection.redirect is not None:
                self._patience.say("redirect", connection.redirect)
            self._reading.on_connected()
            why = await self._watch(connection, intake)
        except ForeignStreamError:
            raise  # what it sent is no dead letter of a firehose
        except BaseException:
            intake.release()
            raise
        else:
            intake.release()
            return why
        finally:
            self.connection = None
            await connection.close()

    def _turn(self) -> int:
        """Begin another sequence in this run: the relay had sent the old one again. Return its name."""
        self.start.sequence = max(time.time_ns() // 1000, self.start.sequence + 1)
        return self.start.sequence

    def _tolerate(self) -> None:
        """A frame is not in DAG-CBOR's one form: counted, and said once a run."""
        self._counts.tolerated += 1
        if self._said_tolerated != self.start.run:
            self._said_tolerated = self.start.run
            log.warning(
                "the relay's frames are CBOR, but not in DAG-CBOR's form (keys out of order, or numbers longer than "
                "need be): they are read by a slower decoder",
                relay=self._relay,
            )

    def _cursor(self, intake: Intake) -> int | None:
        """The cursor to ask for; None is live, where the relay takes none."""
        if self.start.live or self._instead:
            self.continuity.known = not self.start.is_blind  # what does not come behind our position is a gap
        cursor = intake.reconnected()
        if self._instead:
            return self._instead.pop()
        return None if self.start.live else cursor

    async def _other_cursor(self, refused: CursorRefused) -> str:
        """The relay refuses our cursor: find one that it takes. Returns what to say."""
        try:
            taken = await self._patience.unless_ended(cursor_taken(self._settings.relay_url))
        except ForeignStreamError:
            raise
        except RelayError as error:
            return f"the relay refuses our cursor ({refused}), and then: {error}"
        self._instead = [taken]
        instead = "it takes none: reading live" if taken is None else f"asking for {taken} instead"
        return f"the relay refuses our cursor ({refused}); {instead}"

    # -- a relay that had shown nothing
    def _taker(self, intake: Intake) -> OnFrame:
        """What takes the frames: of a relay that had shown none, the first plans the run anew."""
        if not self.start.is_blind or self._planned_anew:
            return intake.frame

        def first(data: bytes) -> None:
            with contextlib.suppress(FrameError):
                kind, body = split_frame(data)
                if kind != "#info" and frame_seq(body) >= 0:
                    if self.start.live:
                        intake.frame(data)  # it cannot be asked for again
                    raise FirstShown
            intake.frame(data)

        return first

    async def _plan_anew(self, publisher: Publisher) -> None:
        """The relay shows its first frame: only now can be known what it keeps of what was asked for."""
        log.info("the relay sends its first event: looking again at what it keeps")
        self._planned_anew = True
        old = self.start
        decision = Decision(old.mode, old.asked_from, None, old.held)
        self.start = await self._planned(decision, old.run, EXPECTED)
        self._planned_at = time.time_ns() // 1000
        self.begin(publisher)
        await self._announce(publisher)

    def _report_blind(self, publisher: Publisher) -> None:
        """At the end of a run in which the relay has shown nothing: what it keeps is not known."""
        start = self.start
        if start.is_blind and start.missing is None and not self.continuity.known:
            start.missing = blind_gap(self._relay, start.run, start.asked_from, time.time_ns() // 1000)
            self._counts.gaps += 1
            publisher.control(start.missing)

    def _oversized(self, details: str) -> RelayError:
        """No connection gets past such a message, and to skip it is the operator's to say."""
        return RelayError(
            f"After seq {self.continuity.highest} the relay {self._relay} sends a message of more than "
            f"{self._reading.frame >> 20} MB ({details}); the protocol's are at most 5 MB.",
            "Tell its operator; go on behind it with --from-time, which leaves a gap.",
        )

    def _reach_head(self) -> None:
        self.head_reached = True
        self.finish("head")

    # -- silence
    async def _watch(self, connection: RelayConnection, intake: Intake) -> str:
        """Wait for the connection's end; judge silence meanwhile."""
        loop = asyncio.get_running_loop()
        counts, follow = self._counts, self._reading.follow
        messages, since = counts.frames + counts.text, loop.time()
        first = FirstFrame(self._patience, self._relay)
        idle = self._settings.ingest_idle_seconds
        began, tick, position, unmoved = since, min(0.5, idle / 4), self.continuity.position, 0.0
        while True:
            await asyncio.wait((connection.ended,), timeout=tick)
            if connection.ended.done():
                return connection.ended.result()
            if self.continuity.position != position:
                position, unmoved = self.continuity.position, 0.0
            elif unmoved or counts.frames + counts.text != messages:
                unmoved += tick  # since the first frame behind it
            if counts.frames + counts.text != messages or connection.paused:
                messages, since = counts.frames + counts.text, loop.time()
                if unmoved >= UNMOVED:
                    intake.settle(silent=False, patient=since - began >= PROOF)
                continue
            silent = loop.time() - since
            if silent >= PAUSE:
                intake.settle(patient=loop.time() - began >= PROOF)
            if await self._awaits_first(first, connection, silent):
                continue
            if not follow and silent >= idle and self.at_head:
                self._doubt.check()
                if await connection.answers(PONG):
                    intake.settle()
                    log.info("the relay is quiet: taken as its head", idle_seconds=round(silent, 1))
                    self._reach_head()
                    return "head"
                raise Stalled("stalled: no frame and no pong")
            if silent >= (STALL + idle) * self._patient:
                # Also where it answers a ping: to a position beyond its head many a relay sends nothing.
                raise Stalled("stalled: no frame" + ("" if self.at_head else " before the head"))

    async def _awaits_first(self, first: FirstFrame, connection: RelayConnection, silent: float) -> bool:
        """Whether this connection has sent nothing yet, though something is due: our last event, or newer ones."""
        due = self._counts.frames == self._frames_before and (self.continuity.known or not self.at_head)
        return due and await first.is_awaited(connection, silent, certain=not self.at_head)

    @property
    def at_head(self) -> bool:
        """Whether silence can mean the head: what was seen at the start is reached, or nothing was."""
        last = self.start.head or self.start.oldest
        return last is None or self.continuity.position >= last.seq or self.continuity.has_seen(last.seq)

    async def _judge_stall(self, *, brought: bool) -> None:
        """Ask the relay what it sends live, where it fell silent. ``brought``: after something new.

        Raises SequenceReset, Ended.
        """
        self._patient = 2 if brought else min(2 * self._patient, MOST_PATIENT)
        try:
            judged = self._stalled.judge(self.start, self.continuity, self._counts.taken)
            await self._patience.unless_ended(judged)
        except RelayError as error:
            self._patience.say("relay", str(error))

    # -- a relay whose sequence began anew
    def _may_begin_anew(self) -> bool:
        """Return whether FutureCursor can mean a reset: not twice without anything newer in between."""
        is_new = self.start.mode != "reset" or self._counts.taken > self._taken_at_reset
        return is_new and not self.continuity.is_old

    async def _reset(self, publisher: Publisher, reset: SequenceReset, *, refused: bool = False) -> None:
        """The relay's sequence began anew: what lies between is a gap, and a new run takes all that it keeps."""
        log.warning("the relay's sequence was reset: beginning a new run with all that it keeps", reason=str(reset))
        await self.until_taken(publisher.mark())
        old, continuity = self.start, self.continuity
        self._memory, time_of_reset = continuity.begin_anew(refused=refused)
        start = await self._planned(Decision("reset", None, None), old.run)
        after = time_of_reset or (start.oldest.time if start.oldest else None)
        start.passed_over = reset_gap(self._relay, old.run, self._position(), after, str(reset))
        self.start = start
        self._planned_at = time.time_ns() // 1000
        self._counts.gaps += 1
        self._taken_at_reset = self._counts.taken
        self._planned_anew = False
        self.begin(publisher)
        await self._announce(publisher)

    async def _planned(self, decision: Decision, after_run: int, quiet: float | None = None) -> RunStart:
        """Where a run of a relay that we read begins. Raises Ended when we are stopped before it could be asked."""
        attempt = 0
        while True:
            try:
                return await self._patience.unless_ended(
                    plan_start(self._settings.relay_url, decision, after_run=after_run, quiet=quiet)
                )
            except ForeignStreamError:
                raise
            except RelayError as error:
                self._patience.say("relay", str(error))
                await self._patience.wait(attempt)
                attempt += 1

    # -- what others ask
    def look(self, received: int) -> Look:
        """Where the reading stands, for its pace."""
        start, continuity, connection = self.start, self.continuity, self.connection
        return Look(
            now=time.monotonic(), wall=time.time_ns() // 1000, received=received,
            position=continuity.time,
            oldest=start.oldest.time if start.oldest is not None else None, oldest_at=self._planned_at,
            head=start.head.time if start.head is not None and not self._reading.follow else None,
            waits=connection is not None and not connection.paused, away=self._is_reading and connection is None,
            events=self._counts.events + self._counts.filtered,
        )  # fmt: skip


def _continuity(start: RunStart, memory: Memory) -> Continuity:
    at = start.position
    reference = Reference(at.median, at.spread)
    return Continuity(
        at.seq, known=start.known, event=at.event, time=at.time, reference=reference, memory=memory,
        clock=lambda: time.time_ns() // 1000,
    )  # fmt: skip
