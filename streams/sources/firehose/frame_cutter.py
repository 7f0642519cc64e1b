"""The bytes that a websocket receives, cut into its frames, so that a frame costs a slice of bytes. Pure.

websockets' parser takes 8 µs of CPU a frame, a slice 1 µs (docs/performance.md). So a message in one binary frame, as
relays send them, does not pass through the parser. Every other frame is handed to it as a whole: it is always between
two frames, and the handshake, pings, closing, fragments and limits stay its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: First byte of a frame (RFC 6455, 5.2): the last fragment of a binary message, which is its first, too.
_WHOLE_BINARY: Final = 0x82
#: In the first byte: the last fragment of a message; and the opcode.
_FIN: Final = 0x80
_OPCODE: Final = 0x0F
#: Opcodes from here on are of control frames, which may stand between fragments.
_CONTROL: Final = 0x08
#: In the second byte: the payload is masked, which no server may do.
_MASKED: Final = 0x80
#: Lengths in the second byte that say that the length follows, in two bytes or in eight.
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
#: The longest head of an unmasked frame, in bytes.
_MAX_HEAD: Final = 10
_END_OF_HEADERS: Final = b"\r\n\r\n"


class FrameCutter:
    """The cutter of one connection's bytes, which come in reads of any size.

    ``on_message`` gets the payload of each binary message that is one frame. ``on_rest`` gets what is websockets': the
    handshake's answer, and every other frame, whole; it returns whether the connection is open, so that frames follow.
    Once it is not, or a frame is larger than ``max_size`` or masked, all that comes is websockets'.
    """

    __slots__ = ("_cutting", "_fragmented", "_head", "_max_size", "_missing", "_on_message", "_on_rest", "_pieces",
                 "_tail", "stopped")  # fmt: skip

    def __init__(self, on_message: Callable[[bytes], None], on_rest: Callable[[bytes], bool], *, max_size: int) -> None:
        self._on_message = on_message
        self._on_rest = on_rest
        self._max_size = max_size
        #: Set by the owner: nothing more is handed to ``on_message``.
        self.stopped = False
        #: Whether frames are cut, and not (yet, or any longer) all handed to ``on_rest``.
        self._cutting = False
        #: The end of what came before the frames: None where those have begun, or never will.
        self._tail: bytes | None = b""
        #: Whether the last fragment of a message is to come.
        self._fragmented = False
        #: Of the frame that a read ended in: its head, the pieces of its payload, and how many bytes of it are missing.
        #: Until the head is whole, ``_missing`` is 0.
        self._head = b""
        self._pieces: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take what one read gave. Raises what ``on_message`` raises."""
        at, end = 0, len(data)
        if not self._cutting:
            at = self._begin(data)
        elif self._head:
            at = self._go_on(data)
        while at < end and not self.stopped:
            at = self._usual(data, at)
            if at < end and not self.stopped:
                at = self._one(data, at)

    def _usual(self, data: bytes, at: int) -> int:
        """Take messages of 126 to 65,535 bytes, as nearly all are. Return where the first other frame begins."""
        if self._fragmented or not self._cutting:
            return at
        on_message, last = self._on_message, len(data) - 4
        while at < last and data[at] == _WHOLE_BINARY and data[at + 1] == _TWO_BYTES and not self.stopped:
            begin = at + 4
            stop = begin + (data[at + 2] << 8 | data[at + 3])
            if stop > last + 4 or stop - begin > self._max_size:
                break
            at = stop
            on_message(data[begin:stop])
        return at

    def _begin(self, data: bytes) -> int:
        """Hand over the answer to the handshake. Return how many bytes of ``data`` that took."""
        if self._tail is None:
            self._on_rest(data)
            return len(data)
        seen = len(self._tail)
        found = (self._tail + data).find(_END_OF_HEADERS)
        if found < 0:
            self._tail = (self._tail + data)[1 - len(_END_OF_HEADERS) :]
            self._on_rest(data)
            return len(data)
        at = found + len(_END_OF_HEADERS) - seen
        self._tail = None
        self._cutting = self._on_rest(data[:at])  # not after a refusal, whose text follows
        return at

    def _one(self, data: bytes, at: int) -> int:
        """Take one frame of any kind, or the beginning of one. Return where the next begins."""
        if not self._cutting:
            self._on_rest(data[at:])
            return len(data)
        head = data[at : at + _MAX_HEAD]
        size = _size(head)
        if size is None:
            self._head = head
            return len(data)
        length, payload = size
        if payload > self._max_size or head[1] & _MASKED:
            self._hand_over(data[at:])
            return len(data)
        begin = at + length
        stop = begin + payload
        if stop > len(data):
            self._head = head[:length]
            self._pieces = [data[begin:]]
            self._missing = stop - len(data)
            return len(data)
        self._whole(head[:length], data[begin:stop])
        return stop

    def _go_on(self, data: bytes) -> int:
        """Continue the frame that the last read ended in. Return how many bytes of ``data`` belong to it."""
        if not self._missing:
            return self._go_on_with_head(data)
        piece = data[: self._missing]
        self._pieces.append(piece)
        self._missing -= len(piece)
        if not self._missing:
            head, pieces = self._head, self._pieces
            self._head, self._pieces = b"", []
            self._whole(head, b"".join(pieces))
        return len(piece)

    def _go_on_with_head(self, data: bytes) -> int:
        before = len(self._head)
        head = self._head + data[: _MAX_HEAD - before]
        size = _size(head)
        if size is None:
            self._head = head
            return len(data)
        self._head = b""
        length, payload = size
        if payload > self._max_size or head[1] & _MASKED:
            self._hand_over(head[:before] + data)
            return len(data)
        used = length - before
        if payload:
            self._head, self._missing = head[:length], payload
            return used + (self._go_on(data[used:]) if used < len(data) else 0)
        self._whole(head[:length], b"")
        return used

    def _whole(self, head: bytes, payload: bytes) -> None:
        """Give on one whole frame."""
        if head[0] == _WHOLE_BINARY and not self._fragmented:
            if not self.stopped:
                self._on_message(payload)
            return
        if head[0] & _OPCODE < _CONTROL:
            self._fragmented = not head[0] & _FIN
        self._cutting = self._on_rest(head + payload)

    def _hand_over(self, data: bytes) -> None:
        """Leave this frame and all that follows to websockets, which knows what is wrong with it."""
        self._cutting = False
        self._on_rest(data)


def _size(head: bytes) -> tuple[int, int] | None:
    """Return the lengths of a frame's head and payload, in bytes; None where the head is cut."""
    if len(head) < 2:
        return None
    length = head[1] & ~_MASKED
    if length < _TWO_BYTES:
        return 2, length
    size = 2 if length == _TWO_BYTES else 8
    if len(head) < 2 + size:
        return None
    return 2 + size, int.from_bytes(head[2 : 2 + size], "big")
