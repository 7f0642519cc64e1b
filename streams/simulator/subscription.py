"""One client of the development relay: the websocket, its place in the stream, and the faults that it suffers.

The protocol is websockets' own sans-I/O state machine; frames go around it, in large chunks straight to the transport.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from streams.simulator import dialects
from streams.simulator.admission import Answer, Caller
from streams.simulator.arrangement import SEQ_KINDS, TAIL, claimed, frames_in_a_row, turns
from streams.simulator.faults import CLAIM_KINDS, FRAME_KINDS, ORDER_KINDS, Fault, bad_frame, error_frame, info_frame
from streams.simulator.manner import Beyond
from streams.simulator.recording import Frame, iso_time
from streams.simulator.retained import fragments, websocket_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.simulator.relay import DevRelay

_CHUNK: Final = 256 * 1024
#: Chunks written before other connections get their turn.
_CHUNKS_A_TURN: Final = 4
_BUFFER_HIGH: Final = 1024 * 1024
_CLOSE_SECONDS: Final = 5.0
_POLICY: Final = 1008
#: Seconds that a fault waits for the frames that it is about.
_OUT_WITHIN: Final = 2.0
#: For a ``late`` that names no seconds.
_LATE_SECONDS: Final = 5.0
_FUTURE: Final = "Cursor in the future."


@dataclass
class Connection:
    """The course of one connection. ``end``: why the relay ended it; None if the client did, or it is open."""

    number: int
    cursor: int | None
    first_index: int | None = None
    sent: int = 0
    end: str | None = None
    open: bool = True


class Subscription(asyncio.Protocol):
    """A websocket that answers the handshake, replays from the cursor, and goes on live."""

    def __init__(self, relay: DevRelay) -> None:
        self._relay = relay
        self._protocol = ServerProtocol()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._record: Connection | None = None
        self._first = self._index = 0
        #: Frames before ``_replay_end`` are sent where their seqs are above ``_above``: a stream that is out of order.
        self._above = self._replay_end = 0
        self._faults: list[tuple[int, Fault]] = []
        self._streaming = False
        self._full = False  # the transport's buffer
        self._held = False  # by a fault
        self._mute = False  # no pongs either
        self._scheduled = False
        self._caught_up = False
        self._seconds_a_frame = 0.0
        self._patient_until = 0.0

    # -- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin when the TCP connection is there, before the handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_BUFFER_HIGH)
        self._relay.subscriptions.add(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client: its handshake, pings, its close."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
        self._flush()

    def eof_received(self) -> bool:
        """End when the client has closed its side."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the TCP connection, whoever ended it."""
        self._streaming = False
        self._relay.subscriptions.discard(self)
        if self._record is not None:
            self._record.open = False
            if self._relay.on_end is not None:
                self._relay.on_end(self._record)

    def pause_writing(self) -> None:
        """Pause: the client reads more slowly than we write."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._full = False
        self.wake()

    # -- handshake

    @property
    def address(self) -> str:
        """Return the client's address, without its port."""
        return str((self._transport.get_extra_info("peername") or ("",))[0])

    def _answer(self, request: Request) -> None:
        relay, url = self._relay, urlsplit(request.path)
        if url.path not in relay.paths:
            status = HTTPStatus.OK if url.path == "/xrpc/_health" else HTTPStatus.NOT_FOUND
            response = self._protocol.reject(status, f'{{"version":"development relay","path":"{status.phrase}"}}\n')
            return self._respond(response)
        record = self._record = relay.new_connection()
        others = sum(1 for other in relay.subscriptions if other.is_open and other.address == self.address)
        verdict = relay.admission.judge(
            Caller(record.number, self.address, url.path, url.query, others, time.monotonic(), time.time())
        )
        future = None
        if not isinstance(verdict, Answer):
            future = relay.future(verdict, record.number)
            if future is Beyond.HTTP:
                text = f'{{"error":"FutureCursor","message":"{_FUTURE}"}}'
                verdict = Answer(HTTPStatus.BAD_REQUEST, text, (("Content-Type", "application/json"),))
        if isinstance(verdict, Answer):
            record.end = f"refused {verdict.status.value}"
            response = self._protocol.reject(verdict.status, verdict.text + "\n")
            for name, value in verdict.headers:
                response.headers.pop(name, None)
                response.headers[name] = value
            return self._respond(response)
        self._respond(self._protocol.accept(request))
        if self._protocol.state is OPEN:
            self._begin(verdict, future)
        return None

    def _respond(self, response: Response) -> None:
        self._protocol.send_response(response)
        self._flush()

    @property
    def is_open(self) -> bool:
        """Return True once it was admitted, until it is closed."""
        return self._protocol.state is OPEN

    def _begin(self, cursor: int | None, future: Beyond | None) -> None:
        """Find the place in the stream, as real relays do, and begin to send."""
        relay, record = self._relay, self._record
        assert record is not None
        record.cursor = cursor
        if future is Beyond.ERROR:
            self.end_with_error("FutureCursor", _FUTURE)
            return
        low, high = relay.window()
        if cursor is None or future is not None:
            self._index = relay.head_index
        else:
            self._index = relay.place_of(cursor)
            self._above = cursor - relay.cursor_inclusive
            self._replay_end = relay.head_index if relay.judges_each() else 0
            if relay.outdated_info and cursor and high > low and cursor < relay.store.seqs[low]:
                self._send(info_frame("OutdatedCursor", "Requested cursor exceeded limit. Possibly missing events."))
        clamp = relay.faults.take("clamp", record.number)
        if clamp is not None:
            self._index = min(relay.head_index, self._index + clamp.count)
        record.first_index = self._first = self._index
        self._faults = sorted(
            ((place, fault) for fault in relay.faults.of(record.number) if (place := self._place(fault)) is not None),
            key=lambda entry: entry[0],
        )
        self._streaming = future is not Beyond.SILENT
        late = relay.faults.standing("late", record.number) if cursor is not None else None
        if late is not None and relay.head_index - self._index > late.count:
            late.fired += 1
            self._hold(late.seconds or _LATE_SECONDS)
        self.wake()

    def _place(self, fault: Fault) -> int | None:
        """Return the index before which a fault happens on this connection, or None if that is behind us already."""
        if fault.seq is None:
            return self._index + (fault.after or 0)
        place = self._relay.store.index_from(fault.seq, self._relay.window()[0], len(self._relay.store))
        return place if place >= self._index else None

    # -- the stream

    def wake(self) -> None:
        """Send soon whatever there is to send."""
        if self._streaming and not self._scheduled:
            self._scheduled = True
            self._relay.loop.call_soon(self._pump)

    def backlog(self) -> int:
        """Return how many published frames a client that had caught up has not been sent; 0 while it replays."""
        return self._relay.head_index - self._index if self._streaming and self._caught_up else 0

    def _pump(self) -> None:
        """Send until the head, the next fault, a full buffer, or the end of this turn."""
        self._scheduled = False
        if not self._streaming or self._full or self._held:
            return
        relay, start = self._relay, self._index
        cut = relay.next_cut(self._first)
        stop = min(relay.head_index, self._faults[0][0] if self._faults else cut, cut)
        if self._seconds_a_frame:
            stop = min(stop, start + 1)
        for _ in range(_CHUNKS_A_TURN):
            if self._index >= stop or self._full:
                break
            self._send_chunk(stop)
        if self._index > start:  # a client that is live from the head on passes nothing
            relay.passed(self._index)
        if self._faults and self._index >= self._faults[0][0]:
            self._hold_for(self._faults.pop(0)[1])
        elif self._index >= relay.head_index:
            self._caught_up = True
            relay.caught_up.set()
        elif self._index == cut:
            relay.begin_anew(cut)
        elif self._seconds_a_frame:
            self._hold(self._seconds_a_frame)
        elif not self._full:
            self.wake()

    def _send_chunk(self, stop: int) -> None:
        """Send the next frames, at most about a chunk of them."""
        store, begin, limit = self._relay.store, self._index, stop
        if begin < self._replay_end:
            begin, limit = store.run_above(self._above, begin, min(stop, self._replay_end))
            self._index = begin
        if begin < limit:
            self._index = store.chunk_end(begin, limit, _CHUNK)
            self._send_stored(begin, self._index)

    def _send_stored(self, begin: int, end: int) -> None:
        """Send frames of the store as they are, or with the present as their time."""
        store = self._relay.store
        if self._relay.manner.sent_times:
            now = time.time_ns() // 1000
            frames = (store.frame(index) for index in range(begin, end))
            self._transport.write(
                b"".join(websocket_message(dialects.sent_at(f.data, now), text=f.text) for f in frames)
            )
        else:
            self._transport.write(store.messages(begin, end))
        if self._record is not None:
            self._record.sent += end - begin

    def _send(self, data: bytes, *, text: bool = False) -> None:
        self._transport.write(websocket_message(data, text=text))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if not data:  # the end: of the handshake that was refused, or of the websocket
                self._streaming = False
                self._transport.close()
                self._relay.loop.call_later(_CLOSE_SECONDS, self._transport.abort)
            elif not self._mute:
                self._transport.write(data)

    # -- the end

    def end_with_error(self, name: str, message: str) -> None:
        """Send the error frame, then close, as real relays do it."""
        self._send(error_frame(name, message))
        self.close(_POLICY, name)

    def close(self, code: int, reason: str) -> None:
        """Close properly. A client that does not answer is cut off after some seconds."""
        self._streaming = False
        if self._record is not None:
            self._record.end = self._record.end or f"closed {code} {reason}".strip()
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
            self._relay.loop.call_later(_CLOSE_SECONDS, self._transport.abort)
        else:
            self._transport.close()

    def abort(self) -> None:
        """End the TCP connection at once."""
        self._transport.abort()

    # -- faults

    def _hold(self, seconds: float) -> None:
        """Send nothing for some seconds."""
        self._held = True
        self._relay.loop.call_later(seconds, self._release)

    def _release(self) -> None:
        self._held = self._mute = False
        self.wake()

    def _hold_for(self, fault: Fault) -> None:
        """Stop before the fault. A client that only reads the first frame goes away, and does not use the fault up."""
        self._held = True
        self._relay.loop.call_later(fault.settle if fault.times else 0, self._suffer, fault)

    def _suffer(self, fault: Fault) -> None:
        self._held = False
        if not self._streaming:
            return
        if not fault.spent:
            fault.fired += 1
            self._happen(fault)
        self.wake()

    def _happen(self, fault: Fault) -> None:
        """Do what the fault says."""
        match fault.kind:
            case "drop":
                self._streaming = False
                if self._record is not None:
                    self._record.end = "dropped"
                (self._transport.abort if fault.hard else self._transport.close)()
            case "close":
                self.close(fault.code, fault.reason)
            case "error":
                self.end_with_error(fault.name, fault.message)
            case "rewind":
                self._index = max(self._relay.window()[0], self._index - fault.count)
            case "duplicate" | "fragments" as kind:
                self._send_otherwise(fault.count, _twice if kind == "duplicate" else _in_fragments)
            case kind if kind in ORDER_KINDS:
                self._when_out(fault, turns(fault))
            case kind if kind in CLAIM_KINDS:
                self._when_out(fault, list(range(frames_in_a_row(fault))))
            case "drip":
                self._seconds_a_frame = 1 / fault.rate
            case "stall":
                self._held, self._mute = True, not fault.pongs
                if fault.seconds:
                    self._relay.loop.call_later(fault.seconds, self._release)
            case kind if kind in FRAME_KINDS:
                seq, time_us = self._position()
                data, text = bad_frame(kind, seq, iso_time(time_us))
                self._send(data, text=text)

    def _position(self) -> tuple[int, int]:
        """Return seq and time of the last frame that was sent."""
        store, index = self._relay.store, self._index - 1
        return (store.seqs[index], store.times[index]) if 0 <= index < len(store) else (0, 0)

    def _when_out(self, fault: Fault, order: list[int]) -> None:
        """Send the next frames in this order, or with a false claim, once all of them are out; else what is out."""
        relay, now = self._relay, self._relay.loop.time()
        # A seq that is wrong stays away from the end of what is out: the position settles there.
        out = min(relay.head_index, relay.next_cut(self._first)) - (TAIL if fault.kind in SEQ_KINDS else 0)
        self._patient_until = self._patient_until or now + _OUT_WITHIN
        if self._index + max(order) >= out and now < self._patient_until:
            fault.fired -= 1
            self._held = True
            relay.loop.call_later(0.02, self._suffer, fault)
            return
        self._patient_until = 0.0
        places = [self._index + turn for turn in order if self._index + turn < out]
        for place in places:
            if fault.kind in CLAIM_KINDS:
                self._send_frame(claimed(relay.store.frame(place), fault, self._frame_before(place)))
            else:
                self._send_stored(place, place + 1)
        self._index += len(set(places))

    def _frame_before(self, index: int) -> Frame | None:
        return self._relay.store.frame(index - 1) if index else None

    def _send_frame(self, frame: Frame) -> None:
        self._send(frame.data, text=frame.text)
        if self._record is not None:
            self._record.sent += 1

    def _send_otherwise(self, count: int, form: Callable[[Frame], list[bytes]]) -> None:
        """Send the next frames, each in the form that is given, as far as they are out."""
        relay = self._relay
        for index in range(self._index, min(self._index + count, relay.head_index)):
            for piece in form(relay.store.frame(index)):
                self._transport.write(piece)
            self._index = index + 1


def _twice(frame: Frame) -> list[bytes]:
    return [websocket_message(frame.data, text=frame.text)] * 2


def _in_fragments(frame: Frame) -> list[bytes]:
    return fragments(frame.data)
