"""The reader of a relay: connect, connect again, and begin a new run after a reset of the relay's sequence.

A frame's way is in ``intake.py``, a connection's silence in ``silence.py``. After trouble with Kafka there is another
publisher: ``ingestion/session.py`` hands over the one to read into.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import structlog

from streams.errors import RelayError
from streams.kafka.publisher import Publisher
from streams.messages import StreamPosition
from streams.protocol.collection_filter import compile_patterns
from streams.protocol.events import frame_seq
from streams.protocol.frames import ErrorFrame, FrameError, split_frame
from streams.runtime.drills import IngestPoint, crash_point
from streams.runtime.waiting import RateLimitedLog, Stopped, StopSignal
from streams.settings import Settings
from streams.sources.firehose.first_frame import FirstFrame
from streams.sources.firehose.foreign import Doubt, ForeignStreamError
from streams.sources.firehose.handshake import CursorRefused, NotNow, Refusal
from streams.sources.firehose.intake import AskAgain, FrameCounts, Intake, SequenceReset
from streams.sources.firehose.plan import Decision, blind_gap, reset_gap
from streams.sources.firehose.probing import EXPECTED
from streams.sources.firehose.read_options import ReadOptions
from streams.sources.firehose.relay import (
    ConnectionEnd,
    EndReason,
    OnFrame,
    OversizedMessage,
    RelayConnection,
    closed,
    open_relay,
    relay_name,
)
from streams.sources.firehose.sequence.arrivals import Memory
from streams.sources.firehose.silence import SilenceWatch
from streams.sources.firehose.stalled_relay import Stalled, StalledRelay, check_shown, is_beyond_head
from streams.sources.firehose.start import PlannedRun, cursor_taken, plan_start
from streams.sources.source import ReadProgress, Source

log = structlog.get_logger("streams.ingest")

#: The most times that silence grows, where the relay stays quiet: each time its live frames are probed.
MAX_SLOWNESS: Final = 32
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


class FirehoseReader(Source):
    """The reader of a topic's run ``start``, and of the runs after it. ``has_watermarks``: the topic holds some.

    ``start`` and ``continuity`` are the run and the position of now: for reports, to be read only.
    """

    def __init__(
        self, settings: Settings, options: ReadOptions, start: PlannedRun, counts: FrameCounts, *,
        stop: StopSignal, trouble: RateLimitedLog, topic_id: str, has_watermarks: bool,
    ) -> None:  # fmt: skip
        self.start = start
        self.topic_id = topic_id
        self.has_watermarks = has_watermarks
        self._connection: RelayConnection | None = None
        self.connections = 0
        self._memory = Memory()
        self.continuity = start.continuity(self._memory)
        self.head_reached = False
        self._taken_at_reset = 0
        self._stalled = StalledRelay(settings.relay_url)
        #: How many times the usual silence a relay is given before its live frames are probed.
        self._slowness = 1
        #: Whether we wait for Kafka to acknowledge watermarks before we go on.
        self.is_writing_watermarks = False
        self._settings = settings
        self._options = options
        self._stop = stop
        self._trouble = trouble
        self._counts = counts
        #: The run for which it was logged that its frames are not in DAG-CBOR's form.
        self._logged_tolerated: int | None = None
        self._relay = relay_name(settings.relay_url)
        self._doubt = Doubt(self._relay)
        self._keep = compile_patterns(settings.ingest_collections)
        #: The cursor that the relay takes instead of ours; unset where it has refused none.
        self._instead: list[int | None] = []
        self._is_replanned = False
        self._is_reading = False
        self._held = False
        #: The position at which the reading into the current publisher began.
        self._read_from = start.position
        self._received = 0
        #: The frames that were there before this connection: its first may come while it is opened.
        self._frames_before = 0
        #: Seconds that the relay asked us to wait before the next connection.
        self._asked_wait = 0.0
        #: When the window of ``start.oldest`` was asked for, in µs.
        self._planned_at = time.time_ns() // 1000

    # -- from outside, at any time
    @property
    def is_connected(self) -> bool:
        """Return whether there is a connection to the relay now."""
        return self._connection is not None

    @property
    def has_announced(self) -> bool:
        """Return whether Kafka has this run's first messages."""
        return self.start.announced

    def hold(self, held: bool) -> None:
        """Stop reading from the relay, or go on."""
        self._held = held
        if self._connection is not None:
            self._connection.hold(held)

    def stop(self) -> None:
        """End the reading, whatever it waits for."""
        self._stop.set()
        self._finish(ConnectionEnd(EndReason.STOPPED))

    def reconnect(self, why: str) -> None:
        """End the connection; the next one is opened unless the publisher has failed. ``why``: for people."""
        self._finish(closed(why))

    def _finish(self, end: ConnectionEnd) -> None:
        if self._connection is not None:
            self._connection.finish(end)

    # -- with each publisher
    def begin(self, publisher: Publisher) -> None:
        """Tell the publisher the position and, until Kafka has it, the topic how this run began."""
        start = self.start
        self.continuity = start.continuity(self._memory)
        if not start.announced:
            publisher.control(start.announcement(self._relay, self.topic_id, self._options.days))
            for gap in (start.passed_over, start.missing):
                if gap is not None:
                    publisher.control(gap)
        publisher.begin_run(partial(start.watermark, self._relay, self.topic_id), self._position)

    def _position(self) -> StreamPosition:
        """Return up to where the run was given to the publisher."""
        continuity = self.continuity
        last = continuity.reference
        return StreamPosition(continuity.position, continuity.time, last.time, last.spread, continuity.event)

    def go_back(self, publisher: Publisher) -> bool:
        """Continue at the last watermark that Kafka has of a failed publisher. Return whether that is a new one."""
        self.head_reached = False
        self._memory.forget_events()  # not all that was taken is in Kafka
        if publisher.durable is not None:
            self.start.position = publisher.durable
            self.start.known = publisher.durable.event is not None
        return self.start.position != self._read_from

    async def _announce(self, publisher: Publisher) -> None:
        """Write the run's first watermarks: a consumer learns of the run, and a restart resumes it."""
        crash_point(IngestPoint.RUN_BEFORE_FIRST_WATERMARK)
        await self._until_acknowledged(publisher.write_watermarks())
        crash_point(IngestPoint.RUN_AFTER_FIRST_WATERMARK)
        self.start.announced = self.has_watermarks = True

    async def drain(self, publisher: Publisher) -> None:
        """Wait until Kafka has everything that was read, with watermarks behind it. Raises Stopped, SendError."""
        await self._until_acknowledged(publisher.drain())

    async def _until_acknowledged(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for Kafka. By itself aiokafka waits for replicas without end or word. Raises Stopped, SendError."""
        self.is_writing_watermarks = True
        try:
            await self._stop.race(work, lambda: self._trouble.warning("kafka", NOT_TAKEN))
        finally:
            self.is_writing_watermarks = False

    # -- one connection until it ends, and the next
    async def read(self, publisher: Publisher) -> None:
        """Connect, and connect again, until the head is reached or we are stopped. Raises SendError, RelayError."""
        self._is_reading = True
        self._read_from = self.start.position
        try:
            with contextlib.suppress(Stopped):
                await self._read_on(publisher)
        finally:
            self.continuity.accept_cut()
            self._is_reading = False

    async def _read_on(self, publisher: Publisher) -> None:
        await self._announce(publisher)
        attempt = 0
        while not self._stop.is_set and not self.head_reached:
            publisher.check()
            before, begin = self._counts.taken, "the last event"
            try:
                end = await self._try_connection(publisher, attempt)
            except SequenceReset as reset:
                await self._reset(publisher, reset)
                continue
            except ErrorFrame as error:
                if error.name == "FutureCursor":
                    if self._may_be_reset():
                        await self._reset(publisher, SequenceReset(BEYOND_HEAD), refused=True)
                        continue
                    # It sends the old sequence again, and then refuses the position in it: read on from the beginning.
                    self.continuity.go_on_at(0)
                    begin = BEGINNING
                end = closed(f"the relay said {error}")
            except (OSError, TimeoutError) as error:
                end = closed(f"the relay cannot be reached: {str(error) or type(error).__name__}")
            except AskAgain:
                end, begin = closed("the relay sent its old sequence again, not the one after it"), BEGINNING
            except OversizedMessage as error:
                if attempt >= OVERSIZED_TRIES:
                    raise self._oversized(str(error)) from None
                end = closed(f"the relay sends a message that is too large ({error})")
            if end.reason is EndReason.HEAD or self._stop.is_set:
                return
            publisher.check()  # then it is Kafka that we wait for
            if self._counts.taken != before:
                attempt = 0  # it brought something new: what was seen before comes again with every connection
            self._trouble.warning("relay", f"{end.text}; connecting again from {begin}")
            await self._stop.backoff(attempt, self._asked_wait)
            attempt += 1

    async def _try_connection(self, publisher: Publisher, attempt: int) -> ConnectionEnd:
        """Read from one connection until it ends, also where the relay refuses it for now, or refuses our cursor.

        Raises what ``_read_connection`` raises; Refusal only where the relay refuses us again and again.
        """
        self._asked_wait, taken = 0.0, self._counts.taken
        try:
            try:
                end = await self._read_connection(publisher)
            except FirstShown:
                await self._replan(publisher)
                end = await self._read_connection(publisher)
        except CursorRefused as error:
            return closed(await self._other_cursor(error))
        except Stalled as error:
            await self._judge_stall(brought=self._counts.taken != taken)
            return closed(str(error))
        except Refusal as error:
            if attempt >= REFUSED_TRIES:
                raise
            return closed(str(error))
        except NotNow as error:
            self._asked_wait = error.after or 0.0
            asked = f", and asks us to wait {error.after:.0f} s" if error.after else ""
            return closed(f"the relay does not take us now: {error}{asked}")
        if end.reason is EndReason.HEAD:
            self._report_blind(publisher)
        return end

    async def _read_connection(self, publisher: Publisher) -> ConnectionEnd:
        continuity, head, follow = self.continuity, self.start.head, self._options.follow
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
            intake.accept_pending()
            self._reach_head()
            return ConnectionEnd(EndReason.HEAD)
        cursor = self._cursor(intake)
        self._frames_before = self._counts.frames
        connection = await self._stop.race(
            open_relay(
                self._settings.relay_url, cursor, self._taker(intake), intake.text,
                on_bytes=self._on_bytes, max_size=self._options.frame,
            )
        )  # fmt: skip
        self._connection = connection
        self.connections += 1
        try:
            if self._stop.is_set:  # told just before there was a connection to finish
                return ConnectionEnd(EndReason.STOPPED)
            publisher.check()  # it may have failed just before, too
            if connection.redirect is not None:
                self._trouble.warning("redirect", connection.redirect)
            connection.hold(self._held)
            end = await self._watch(connection, intake)
        except ForeignStreamError:
            raise  # its messages are not dead letters of a firehose
        except BaseException:
            intake.release()
            raise
        else:
            intake.release()
            return end
        finally:
            self._connection = None
            await connection.close()

    def _on_bytes(self, size: int) -> None:
        self._received += size
        self._options.on_bytes(size)

    def _turn(self) -> int:
        """Begin another sequence in this run: the relay had sent the old one again. Return its name."""
        self.start.sequence = max(time.time_ns() // 1000, self.start.sequence + 1)
        return self.start.sequence

    def _tolerate(self) -> None:
        """Count a frame that is not in DAG-CBOR's one form, and log that once a run."""
        self._counts.tolerated += 1
        if self._logged_tolerated != self.start.run:
            self._logged_tolerated = self.start.run
            log.warning(
                "the relay's frames are CBOR, but not in DAG-CBOR's form (keys out of order, or numbers longer than "
                "need be): they are read by a slower decoder",
                relay=self._relay,
            )

    def _cursor(self, intake: Intake) -> int | None:
        """Return the cursor to ask for; None: live, if the relay takes none."""
        if self.start.live or self._instead:
            self.continuity.known = not self.start.is_blind  # what does not come behind our position is a gap
        cursor = intake.reconnected()
        if self._instead:
            return self._instead.pop()
        return None if self.start.live else cursor

    async def _other_cursor(self, refused: CursorRefused) -> str:
        """Find a cursor that the relay takes instead of ours. Return a sentence for the log."""
        try:
            taken = await self._stop.race(cursor_taken(self._settings.relay_url))
        except ForeignStreamError:
            raise
        except RelayError as error:
            return f"the relay refuses our cursor ({refused}), and then: {error}"
        self._instead = [taken]
        instead = "it takes none: reading live" if taken is None else f"asking for {taken} instead"
        return f"the relay refuses our cursor ({refused}); {instead}"

    # -- a relay that had shown nothing
    def _taker(self, intake: Intake) -> OnFrame:
        """Return the function that takes frames. If the relay had shown none, the first one leads to a new plan."""
        if not self.start.is_blind or self._is_replanned:
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

    async def _replan(self, publisher: Publisher) -> None:
        """Plan the run again after the relay's first frame: only now its window can be known."""
        log.info("the relay sends its first event: looking again at what it keeps")
        self._is_replanned = True
        old = self.start
        decision = Decision(old.mode, old.asked_from, None, old.held)
        self.start = await self._planned(decision, old.run, EXPECTED)
        self._planned_at = time.time_ns() // 1000
        self.begin(publisher)
        await self._announce(publisher)

    def _report_blind(self, publisher: Publisher) -> None:
        """Report a gap at the end of a run in which the relay has shown nothing: its window is not known."""
        start = self.start
        if start.is_blind and start.missing is None and not self.continuity.known:
            start.missing = blind_gap(self._relay, start.run, start.asked_from, time.time_ns() // 1000)
            self._counts.gaps += 1
            publisher.control(start.missing)

    def _oversized(self, details: str) -> RelayError:
        """Return the error for an oversized message. Reconnecting cannot get past it; only the operator may skip it."""
        return RelayError(
            f"After seq {self.continuity.highest} the relay {self._relay} sends a message of more than "
            f"{self._options.frame >> 20} MB ({details}); the protocol's are at most 5 MB.",
            "Tell its operator; go on behind it with --from-time, which leaves a gap.",
        )

    def _reach_head(self) -> None:
        self.head_reached = True
        self._finish(ConnectionEnd(EndReason.HEAD))

    # -- silence
    async def _watch(self, connection: RelayConnection, intake: Intake) -> ConnectionEnd:
        """Wait until the connection ends. Raises Stalled."""
        watch = SilenceWatch(
            connection, intake, FirstFrame(self._trouble, self._relay), self._doubt, lambda: self.at_head,
            idle=self._settings.ingest_idle_seconds, follow=self._options.follow, frames_before=self._frames_before,
            slowness=self._slowness,
        )  # fmt: skip
        end = await watch.end()
        if end.reason is EndReason.HEAD:
            self._reach_head()
        return end

    @property
    def at_head(self) -> bool:
        """Return whether silence can mean the head: the head of the start is reached, or none was seen."""
        last = self.start.head or self.start.oldest
        return last is None or self.continuity.position >= last.seq or self.continuity.has_seen(last.seq)

    async def _judge_stall(self, *, brought: bool) -> None:
        """Probe the live frames of a relay that fell silent. ``brought``: after something new.

        Raises SequenceReset, Stopped.
        """
        self._slowness = 2 if brought else min(2 * self._slowness, MAX_SLOWNESS)
        try:
            judged = self._stalled.judge(self.start, self.continuity, self._counts.taken)
            await self._stop.race(judged)
        except RelayError as error:
            self._trouble.warning("relay", str(error))

    # -- a relay whose sequence was reset
    def _may_be_reset(self) -> bool:
        """Return whether FutureCursor can mean a reset: not twice without anything newer in between."""
        is_new = self.start.mode != "reset" or self._counts.taken > self._taken_at_reset
        return is_new and not self.continuity.is_old

    async def _reset(self, publisher: Publisher, reset: SequenceReset, *, refused: bool = False) -> None:
        """Begin a new run, with all that the relay keeps, after a reset of its sequence. Between the two is a gap."""
        log.warning("the relay's sequence was reset: beginning a new run with all that it keeps", reason=str(reset))
        await self._until_acknowledged(publisher.write_watermarks())
        old, continuity = self.start, self.continuity
        self._memory, time_of_reset = continuity.begin_anew(refused=refused)
        start = await self._planned(Decision("reset", None, None), old.run)
        after = time_of_reset or (start.oldest.time if start.oldest else None)
        start.passed_over = reset_gap(self._relay, old.run, self._position(), after, str(reset))
        self.start = start
        self._planned_at = time.time_ns() // 1000
        self._counts.gaps += 1
        self._taken_at_reset = self._counts.taken
        self._is_replanned = False
        self.begin(publisher)
        await self._announce(publisher)

    async def _planned(self, decision: Decision, after_run: int, quiet: float | None = None) -> PlannedRun:
        """Plan a run; wait for a relay that is away. Raises Stopped."""
        attempt = 0
        while True:
            try:
                return await self._stop.race(
                    plan_start(self._settings.relay_url, decision, after_run=after_run, quiet=quiet)
                )
            except ForeignStreamError:
                raise
            except RelayError as error:
                self._trouble.warning("relay", str(error))
                await self._stop.backoff(attempt)
                attempt += 1

    # -- what others ask
    def progress(self) -> ReadProgress:
        """Return where the reading stands."""
        start, continuity, connection = self.start, self.continuity, self._connection
        return ReadProgress(
            now=time.monotonic(), wall=time.time_ns() // 1000, received=self._received,
            position=continuity.time,
            oldest=start.oldest.time if start.oldest is not None else None, oldest_at=self._planned_at,
            head=start.head.time if start.head is not None and not self._options.follow else None,
            waits=connection is not None and not connection.paused, away=self._is_reading and connection is None,
            events=self._counts.events + self._counts.filtered,
        )  # fmt: skip
