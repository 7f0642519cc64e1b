"""Frames that are cut by us are those that websockets' own parser finds, wherever a read ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from streams.sources.firehose.frame_cutter import FrameCutter

LIMIT = 70_000
Message = tuple[Opcode, bytes]


def handshake() -> tuple[ClientProtocol, bytes]:
    """Return a client that has asked, and the server's answer."""
    client, server = ClientProtocol(parse_uri("ws://localhost/"), max_size=LIMIT), ServerProtocol()
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    request = server.events_received()[0]
    server.send_response(server.accept(request))  # type: ignore[arg-type] # it is a Request
    return client, b"".join(server.data_to_send())


class Received:
    """What a client's parser has made of what it was given, whole messages only."""

    def __init__(self, client: ClientProtocol) -> None:
        self.client = client
        self.messages: list[Message] = []
        self.given = 0
        self._parts: list[bytes] = []
        self._kind = Opcode.BINARY

    def give(self, data: bytes) -> bool:
        self.given += len(data)
        self.client.receive_data(data)
        for event in self.client.events_received():
            if isinstance(event, Frame) and event.opcode.value <= Opcode.BINARY.value:
                self._kind = event.opcode if event.opcode is not Opcode.CONT else self._kind
                self._parts.append(bytes(event.data))
                if event.fin:
                    self.messages.append((self._kind, b"".join(self._parts)))
                    self._parts = []
        return self.client.state is State.OPEN

    def outcome(self) -> tuple[list[Message], bytes, State, object]:
        sent = b"".join(self.client.data_to_send())
        pongs = sent[:1]  # what is sent is masked at random: only its kind can be compared
        return self.messages, pongs, self.client.state, self.client.close_sent


def by_the_parser(frames: bytes) -> Received:
    client, answer = handshake()
    received = Received(client)
    received.give(answer + frames)
    return received


def by_the_cutter(reads: Iterable[bytes], client: ClientProtocol) -> Received:
    received = Received(client)
    cutter = FrameCutter(lambda data: received.messages.append((Opcode.BINARY, data)), received.give, max_size=LIMIT)
    for read in reads:
        cutter.feed(read)
    return received


def frame(first: int, payload: bytes, *, form: int | None = None, mask: int = 0) -> bytes:
    """Return a frame; ``form`` chooses one of the three ways to write its length, and may not be the shortest."""
    length = len(payload)
    form = form if form is not None else 0 if length < 126 else 2 if length < 65_536 else 8
    if form == 0:
        return bytes([first, length | mask]) + payload
    return bytes([first, (126 if form == 2 else 127) | mask]) + length.to_bytes(form, "big") + payload


def reads(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[low:high] for low, high in pairwise(edges)]


SIZES = st.sampled_from([0, 1, 2, 5, 124, 125, 126, 127, 128, 300, 65_535, 65_536, LIMIT - 1, LIMIT, LIMIT + 1])
PAYLOADS = st.builds(lambda size, fill: bytes([fill]) * size, SIZES, st.sampled_from([0, 65, 0x82, 126]))
SMALL = st.binary(max_size=125)
GOOD = st.one_of(
    st.builds(lambda payload: frame(0x82, payload), PAYLOADS),
    st.builds(lambda payload, form: frame(0x82, payload, form=form), SMALL, st.sampled_from([2, 8])),
    st.builds(lambda payload: frame(0x89, payload), SMALL),
    st.builds(lambda payload: frame(0x8A, payload), SMALL),
    st.builds(lambda text: frame(0x81, text.encode()), st.text(max_size=200)),
    st.builds(  # in fragments, with a ping between them
        lambda parts: b"".join(
            [frame(0x02, parts[0]), frame(0x89, b"p"), *(frame(0x00, p) for p in parts[1:]), frame(0x80, b"end")]
        ),
        st.lists(PAYLOADS, min_size=1, max_size=3),
    ),
)
BAD = st.one_of(
    st.builds(frame, st.sampled_from([0xC2, 0x83, 0x80, 0x0A, 0x00]), SMALL),
    st.builds(lambda payload: frame(0x82, payload, mask=0x80), SMALL),
    st.builds(lambda payload: frame(0x88, payload), st.sampled_from([b"", b"\x03\xe8", b"\x03\xf0bye", b"x"])),
    st.builds(lambda payload: frame(0x02, payload) + frame(0x82, payload), SMALL),  # a message within a message
    st.just(bytes([0x82, 127]) + b"\xff" * 8),
    st.just(frame(0x89, b"x" * 126)),
)


@given(st.lists(st.one_of(GOOD, GOOD, GOOD, BAD), max_size=12), st.lists(st.integers(0, 400_000), max_size=12))
def test_every_cut_gives_the_messages_of_the_parser(frames: list[bytes], cuts: list[int]) -> None:
    client, answer = handshake()
    stream = b"".join(frames)
    expected = by_the_parser(stream).outcome()
    assert by_the_cutter(reads(answer + stream, cuts), client).outcome() == expected


SHORT = b"".join(
    [
        frame(0x82, b"a" * 130),
        frame(0x82, b""),
        frame(0x89, b"ping"),
        frame(0x02, b"frag"),
        frame(0x80, b"ment"),
        frame(0x82, b"b" * 126),
        frame(0x82, b"c" * 3, form=8),
        frame(0x81, b"text"),
        frame(0x88, b"\x03\xe8"),
        frame(0x82, b"after the close"),
    ]
)


def test_two_reads_at_every_byte_and_every_byte_alone() -> None:
    expected = by_the_parser(SHORT).outcome()
    _, answer = handshake()
    for cut in range(len(answer) + len(SHORT) + 1):
        client, answer = handshake()
        assert by_the_cutter(reads(answer + SHORT, [cut]), client).outcome() == expected, cut
    client, answer = handshake()
    assert by_the_cutter([bytes([byte]) for byte in answer + SHORT], client).outcome() == expected


def test_whole_messages_do_not_pass_through_the_parser() -> None:
    """The slow way gives the same: so what the parser was given is counted."""
    client, answer = handshake()
    stream = b"".join(frame(0x82, b"x" * size) for size in (1, 126, 4_700, 65_535, 65_536, LIMIT))
    received = by_the_cutter(reads(answer + stream, [9_000, 9_001, 100_000]), client)
    assert len(received.messages) == 6
    assert received.given == len(answer)


@pytest.mark.parametrize(("size", "taken"), [(200, True), (201, False)])
def test_a_small_limit_holds_for_usual_messages_too(size: int, taken: bool) -> None:
    client, answer = handshake()
    messages: list[bytes] = []
    cutter = FrameCutter(messages.append, Received(client).give, max_size=200)
    cutter.feed(answer + frame(0x82, b"x" * size))
    assert bool(messages) is taken


def test_a_refused_handshake_is_read_to_its_end() -> None:
    client, _ = handshake()
    answer = [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n", b"\r\nno", b"pe"]
    received = by_the_cutter(answer, client)
    assert client.handshake_exc is not None
    assert received.given == len(b"".join(answer))


@pytest.mark.parametrize("reads_at_once", [True, False])
def test_nothing_is_given_on_once_it_is_stopped(*, reads_at_once: bool) -> None:
    client, answer = handshake()
    messages: list[bytes] = []

    def take(data: bytes) -> None:
        messages.append(data)
        cutter.stopped = True

    cutter = FrameCutter(take, Received(client).give, max_size=LIMIT)
    stream = answer + frame(0x82, b"x" * 200) * 3
    for read in [stream] if reads_at_once else [stream[at : at + 100] for at in range(0, len(stream), 100)]:
        cutter.feed(read)
    assert len(messages) == 1
