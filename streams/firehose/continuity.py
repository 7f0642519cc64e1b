"""Whether a frame is new, was seen before, or belongs to a sequence that was reset; and what lies between. Pure.

Relays answer a cursor that is too old silently with what they have, send it inclusively or exclusively, repeat frames
after a reconnect, and may lose their sequence altogether. After a reconnect the client asks one event early: a seq that
is known proves that nothing was left out; otherwise what lies between is a gap.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from streams.firehose.stream_time import StreamTime


class Verdict(enum.Enum):
    """What to do with a frame."""

    NEW = "new"
    SEEN = "seen"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Missing:
    """Sequence numbers that the relay did not send: ``from_seq`` to ``to_seq``, both included; times in µs or None."""

    from_seq: int
    to_seq: int
    from_time: int | None
    to_time: int | None


class Continuity:
    """The position in the relay's sequence: the last seq taken, and the newest time that any frame claimed (µs)."""

    __slots__ = ("_stream", "known", "last_seq", "missing", "newest_time", "proven")

    def __init__(self, last_seq: int, newest_time: int | None, *, known: bool, time: int | None = None) -> None:
        """``known``: the frame ``last_seq`` was taken; else it is only the place to begin behind.

        ``time``: up to when the stream was read, in µs.
        """
        self.last_seq = last_seq
        self.newest_time = newest_time
        self._stream = StreamTime(time)
        self.known = known
        self.proven = True
        self.missing: Missing | None = None

    @property
    def time(self) -> int | None:
        """Up to when the stream was read, in µs, as far as that is believed: see ``StreamTime``."""
        return self._stream.time

    def settle(self, now: int) -> bool:
        """The relay is quiet: see ``StreamTime.settle``."""
        return self._stream.settle(now)

    def reconnected(self) -> int:
        """A connection begins: the cursor to ask for. Where a frame is known, it must come again as a proof."""
        self.missing = None
        self.proven = not self.known
        return max(self.last_seq - 1, 0) if self.known else self.last_seq

    def see(self, seq: int, time: int | None) -> Verdict:
        """Judge a frame and move on. After NEW, ``missing`` is set where the relay left something out."""
        newest = self.newest_time
        if seq <= self.last_seq:
            if time is not None and newest is not None and time > newest:
                return Verdict.RESET
            self.proven = True
            return Verdict.SEEN
        self.missing = None
        self.known = True
        if not self.proven:
            self.proven = True
            if seq > self.last_seq + 1:
                read = self._stream.time
                self.missing = Missing(self.last_seq + 1, seq - 1, read if read is not None else newest, time)
        self.last_seq = seq
        if time is not None:
            self._stream.see(time)
            if newest is None or time > newest:
                self.newest_time = time
        return Verdict.NEW
