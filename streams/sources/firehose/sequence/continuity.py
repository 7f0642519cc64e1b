"""The position in a relay's sequence, from frames in the order in which they arrive. Pure.

The order on the wire is not always the order of the seqs: live events overtake a replay, a relay repeats frames, one
frame carries a seq that is far off. So no single frame moves the position or proves anything:

- A frame is passed over only if this very event (its seq, its repo, its rev) was taken lately. A repeat does no harm,
  because the highest rev of a key wins; a frame that is dropped is lost for ever.
- The position is the lowest seq of a block of ``BLOCK`` arrivals. Where more seqs than usual were left out below that,
  they may come yet: it waits for ``HELD`` arrivals. At a pause and at the end the rest is accepted, without a lone seq
  that is far ahead; at the end of a connection only what follows on, and nothing that the last block may overtake.
- After a reconnect the event at the position must come again. Where it does not, what lies between is missing.
- The sequence was reset where ``WITNESSES`` arrivals in a row lie below the position, were not seen before, and are
  newer than all that was read. It is acted upon once: what is older than its witnesses is the old sequence, read
  again, and proves nothing new.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise
from operator import itemgetter
from typing import Final

from streams.sources.firehose.sequence.arrival_times import Reference
from streams.sources.firehose.sequence.arrivals import BLOCK, NEW, REMEMBERED, SEEN, Arrival, Memory, Missing, Verdict
from streams.sources.firehose.sequence.resets import QUIET_WITNESSES, SHOWN_WITNESSES, WITNESSES, ResetWitnesses, Ruling
from streams.sources.firehose.sequence.stream_time import StreamTime

#: Arrivals for which the position waits where more seqs than usual were left out.
HELD: Final = 1024
#: As long as the event that proves that nothing is missing has not come: a replay may come after what is live.
_HELD_UNPROVEN: Final = 16 * HELD
#: Blocks from which it is known how many seqs are usually left out.
_USUAL_BLOCKS: Final = 16
#: Arrivals for which the event at the position is waited for, where another came under its seq.
_REPLACED: Final = 3 * BLOCK
#: Late arrivals from one judgement to the next: each looks at the times of all witnesses.
_JUDGED_EVERY: Final = 8
#: Arrivals beyond a jump of the seqs that make it believed when the rest is accepted.
_SEVERAL: Final = 3
#: A jump that is not believed then, in seqs and in usual steps between two of them.
_JUMP: Final = 16
_JUMP_STEPS: Final = 8
#: Connections in a row that bring nothing new, after which what they sent is believed: in order, or as it is.
_TOLD_AGAIN: Final = 3
_FRUITLESS: Final = 6
#: Steps between seqs from which the usual one is known.
_FEW_STEPS: Final = 8
_NO_SEQ: Final = 1 << 62

_seq_of = itemgetter(0)


class Continuity:
    """The position in the relay's sequence: every frame up to ``position`` has arrived, where the relay is in order.

    ``missing``: what the relay left out; set it to None when it is reported.
    """

    __slots__ = (
        "_ahead",
        "_asked",
        "_block",
        "_changed",
        "_confirmed",
        "_event",
        "_fast_above",
        "_fast_since",
        "_followed",
        "_fruitless",
        "_held",
        "_highest_before",
        "_is_new",
        "_left_out",
        "_memory",
        "_rest",
        "_stream",
        "_taken_before",
        "_was_at",
        "_witnesses",
        "_young",
        "asks_again",
        "known",
        "late",
        "missing",
        "position",
        "proven",
        "turned",
    )

    def __init__(
        self, position: int, *, known: bool, event: str | None = None, time: int | None = None,
        reference: Reference | None = None, memory: Memory | None = None, clock: Callable[[], int] = lambda: _NO_SEQ,
    ) -> None:  # fmt: skip
        """Begin at a position. ``known``: the frame at it was taken; else it is only the place to begin behind.

        ``event``: that frame's event (None: not known, its seq must do). ``time``: up to when the stream was read, in
        µs. ``reference``: the times of the last frames. ``memory``: of the run before, if all that it took is in Kafka.
        ``clock``: our own time in µs; nothing that we have read can be newer.
        """
        self.position, self.known, self.proven = position, known, True
        self.missing: Missing | None = None
        #: How many arrivals in a row lay below the position and were not seen before.
        self.late = 0
        #: Whether a sequence that is known to have ended was left; for the caller to take back.
        self.turned = False
        #: Whether the relay must be asked again, for everything: the sequence that goes on began before what came.
        self.asks_again = False
        #: The cursor that this connection was to begin behind.
        self._asked = position
        self._event = event
        self._stream = StreamTime(time, position)
        self._memory = memory if memory is not None else Memory()
        self._young = self._memory.young
        self._witnesses = ResetWitnesses(reference or Reference(None), self._memory, clock)
        #: What arrived above the position since the last block was full; before that, since the position moved, with
        #: this connection; and the last full blocks.
        self._block: list[Arrival] = []
        self._rest: list[Arrival] = []
        #: The seqs above the position that the connections before have brought; and those of them that were proven.
        self._taken_before: list[int] = []
        self._followed: list[int] = []
        #: The seqs above the position that have arrived with this connection, before the open block.
        self._ahead: list[int] = []
        #: For how many arrivals the position waits by now, and how many seqs were left out below it the last times.
        self._held = 0
        self._left_out: deque[int] = deque(maxlen=_USUAL_BLOCKS)
        #: The position as full blocks, or the run before, say: only what is below it can be a witness of a reset.
        self._confirmed = position
        #: Whether this connection sent another event under the position's seq.
        self._changed = False
        #: A frame with a higher seq cannot have been seen before; and what that was when nothing was remembered yet.
        self._fast_above = self._fast_since = max(position, self._memory.highest)
        #: The position, and the highest seq, when this connection began; whether it brought something new below that;
        #: how many connections in a row brought nothing.
        self._was_at = position
        self._highest_before = self._memory.highest
        self._is_new = False
        self._fruitless = 0

    # -- what is known
    @property
    def time(self) -> int | None:
        """Return up to when the stream was read, in µs, as far as that is believed: see ``StreamTime``."""
        return self._stream.time

    @property
    def reference(self) -> Reference:
        """Return the times of the last frames: those of a sequence that began anew are newer."""
        return self._witnesses.reference(self._block)

    @property
    def time_before(self) -> int | None:
        """Return ``time`` as it was before the last frame, so without that frame's claim. None where there was none."""
        return self._stream.before

    @property
    def guess(self) -> int | None:
        """Return a guess for ``time`` while there is none: see ``StreamTime.guess``."""
        return self._stream.guess

    @property
    def highest(self) -> int:
        """Return the highest seq among the last arrivals: a lone one that is far ahead, too."""
        last = (*self._witnesses.blocks, self._block)
        return max(self.position, *(arrival[0] for block in last for arrival in block), 0)

    def has_seen(self, seq: int) -> bool:
        """Return whether an event with this seq is among the last arrivals."""
        last = (*self._witnesses.blocks, self._rest, self._block)
        return any(arrival[0] == seq for block in last for arrival in block)

    @property
    def event(self) -> str | None:
        """Return the event at the position, as a watermark holds it; None where it is not known."""
        return self._event

    # -- a connection
    def reconnected(self) -> int:
        """Begin a connection. Return the cursor to ask for: a known frame must come again, as a proof."""
        self.accept_cut()
        self._witnesses.reconnected(self._block)
        taken = {arrival[0] for arrival in (*self._rest, *self._block)}
        if self.proven:
            self._followed = self._above(taken.union(self._followed))
        self._taken_before = self._above(taken.union(self._taken_before))
        self._block, self._rest, self._ahead, self._held = [], [], [], 0
        self._changed = self.asks_again = False
        self.proven = not self.known
        self._highest_before = self._memory.highest
        self._fast_since = max(self.position, self._memory.highest)
        self._fast_above = _NO_SEQ if self.known else self._fast_since
        self._asked = max(self.position - 1, 0) if self.known else self.position
        return self._asked

    def _above(self, seqs: Iterable[int]) -> list[int]:
        """Return the first of the seqs above the position, in order."""
        return sorted(seq for seq in seqs if seq > self.position)[: 2 * HELD]

    def see(self, seq: int, did: str, rev: str, time: int | None) -> Verdict:
        """Judge a frame, and move on. Afterwards ``position`` may be another, and ``missing`` may be set."""
        if seq <= self._fast_above:
            return self._see_closely(Arrival(seq, did, rev, time))
        self._fast_above = seq
        young = self._young
        young.add(hash((seq, did, rev)))
        block = self._block
        block.append((seq, did, rev, time))  # type: ignore[arg-type] # to make it an Arrival costs 0.2 µs more
        if time is not None:
            self._stream.see(time, seq)
        if self.late:
            self._end_late()
        if len(block) >= BLOCK:
            self._close_block()
        return NEW

    def _see_closely(self, arrival: Arrival) -> Verdict:
        """Judge a frame that may have come before, or whose connection has proved nothing yet."""
        memory = self._memory
        memory.note(arrival.seq)
        key = hash(arrival[:3])
        seen = key in memory
        if arrival.seq == self.position and self.known and not seen:
            seen = self._event is None or self._event == _event_of(arrival)
            # Another event of the same sequence is about as old as ours.
            self._changed = self._changed or (not seen and self._witnesses.connected.is_before([arrival]))
        self._young.add(key)
        if len(self._young) >= REMEMBERED:
            self._turn()
        if seen and arrival.seq <= self.position:
            self._prove()
        if arrival.seq > self.position:
            return self._see_above(arrival, seen=seen)
        if seen:
            return SEEN
        self._witnesses.add_late(arrival)
        self.late += 1
        due = self.late >= WITNESSES and self.late % _JUDGED_EVERY == 0
        return Verdict.RESET if due and self._is_reset() else Verdict.LATE

    def _see_above(self, arrival: Arrival, *, seen: bool) -> Verdict:
        block = self._block
        if not seen:
            self._is_new = True
            self._end_late()
            if arrival.time is not None:
                self._stream.see(arrival.time, arrival.seq)
        if arrival.seq == self.position + 1 and not self._changed:
            self._prove()  # nothing lies between
        if not seen or not any(arrival[:3] == other[:3] for other in block):  # a repeat is no second arrival
            block.append(arrival)
        if len(block) >= BLOCK:
            if self._is_replaced(_REPLACED):
                return Verdict.RESET
            if self._block:
                self._close_block()
        return SEEN if seen else NEW

    def _prove(self) -> None:
        if not self.proven:
            self.proven = True
            self._fast_above = self._fast_since = max(self.position, self._memory.highest)

    def _note_highest(self) -> None:
        if self._fast_since < self._fast_above != _NO_SEQ:
            self._memory.note(self._fast_above)

    def _end_late(self) -> None:
        self._witnesses.clear()
        self.late = 0

    # -- the position
    def _close_block(self) -> None:
        """Move to the lowest seq of a full block, unless that is further than usual."""
        block, self._block = self._block, []
        self._witnesses.add_block(block)
        seqs = sorted([arrival[0] for arrival in block])
        low = seqs[0]
        lowest = block[0] if block[0][0] == low else min(block, key=_seq_of)
        left_out = max(low - self.position - 1 - self._pass(seqs), 0)
        if left_out or self._left_out or not self.proven:
            usual = self._usually_left_out()
            if self.position > 0 and (left_out > 2 * usual or not self.proven):  # 0 is all that the relay keeps
                self._held += BLOCK
                if self._held < (HELD if self.proven else _HELD_UNPROVEN):
                    self._rest += block
                    return
            if self.known and self.proven:
                self._left_out.append(min(left_out, 2 * usual + BLOCK))
        self._held = 0
        self._rest = list(block)
        self._move(lowest)
        del self._ahead[: bisect_right(self._ahead, self.position)]
        self._confirmed = max(self._confirmed, low)
        if len(self._young) >= REMEMBERED:
            self._turn()

    def _usually_left_out(self) -> int:
        """Return how many seqs are left out below a block at most, as far as that is known."""
        return max(self._left_out) if self._left_out else (self._usual_step() - 1) * BLOCK

    def _turn(self) -> None:
        self._note_highest()
        memory = self._memory
        memory.turn()
        self._young = memory.young
        self._is_new = True
        if self._fast_above != _NO_SEQ:
            self._fast_above = self._fast_since = max(self.position, memory.highest)

    def _pass(self, seqs: list[int]) -> int:
        """Note the seqs of a full block, which are sorted. Return how many seqs below them arrived before."""
        ahead, low = self._ahead, seqs[0]
        seqs = sorted(set(seqs))
        if ahead and ahead[-1] >= low:
            ahead[:] = sorted({*ahead, *seqs})
            if len(ahead) > 2 * HELD + BLOCK:
                del ahead[2 * HELD :]  # lone ones, far ahead
            return bisect_left(ahead, low)
        passed = len(ahead)
        ahead += seqs
        return passed

    def _move(self, to: Arrival) -> None:
        """Move the position forward. What a connection without a proof has not sent until now is missing."""
        seq, _, _, time = to
        if seq <= self.position:
            return
        if not self.proven:
            first, last = self._missing_below(seq)
            if first <= last:
                read = self._stream.time if self._stream.time is not None else self._witnesses.connected.time
                self.missing = Missing(first, last, read, time)
            self._prove()
        self.position = seq
        self._event = _event_of(to)
        self.known = True

    def _missing_below(self, seq: int) -> tuple[int, int]:
        """Return the first and the last seq that no connection has brought; no range where one had come to ``seq``.

        Only where a connection was proven nothing lies between the position and what it brought.
        """
        followed, place = self._followed, bisect_left(self._followed, seq)
        if followed[place : place + 1] == [seq]:
            return seq, seq - 1
        first, last, taken = (
            max(self.position, followed[place - 1] if place else 0) + 1,
            seq - 1,
            set(self._taken_before),
        )
        while last in taken:
            last -= 1
        return first, last

    def accept_pending(self, now: int, head: int | None = None, *, patient: bool = True) -> None:
        """Accept the last arrivals at a pause, or at the end: nothing came that says otherwise. ``now`` in µs.

        The rest of a block is taken, but for a lone seq far ahead; and the last times, as far as they lie before now.
        ``head``: a seq that the relay named before; where it has come, it is not alone. Not ``patient``: the event that
        proves that nothing is missing may come yet.
        """
        self._stream.accept_pending(now)
        if self.known and not self.proven and not patient:
            return
        pending = (*self._rest, *self._block)
        named = head if head is not None and any(arrival[0] == head for arrival in pending) else 0
        self._accept(max(_JUMP, _JUMP_STEPS * self._usual_step()), named=named)

    def accept_cut(self) -> None:
        """Accept the last arrivals at the end of a connection. It may have ended amid frames that are out of order.

        Only what follows on is taken, and nothing that an arrival overtook by less than a block: what was left out may
        come with the next connection. Where some bring the same again, in order, nothing was left out; and where many
        do, the relay is believed as it is.
        """
        self._note_highest()
        if not self._rest and not self._block:
            return
        is_new = self._is_new or self._memory.highest > self._highest_before
        self._fruitless = self._fruitless + 1 if self.position == self._was_at and not is_new else 0
        is_told_again = self._fruitless >= _TOLD_AGAIN and self.proven and self._is_in_order()
        if is_told_again or self._fruitless >= _FRUITLESS:
            self._accept(max(_JUMP, _JUMP_STEPS * self._usual_step()))
            if self._fruitless >= _FRUITLESS and self.position == self._was_at:
                self._accept(_NO_SEQ)
        elif self.known and self.proven:  # else it may have begun with what overtook all others
            last = self._witnesses.last(self._block)[-BLOCK:]
            if len(last) == BLOCK:
                self._accept(1, several=_NO_SEQ, most=min(last, key=_seq_of)[0])
        self._was_at, self._is_new = self.position, False

    def _is_in_order(self) -> bool:
        """Return whether what came with this connection, above the position, came in order."""
        return all(low[0] <= high[0] for low, high in pairwise((*self._rest, *self._block)))

    def _accept(self, jump: int, *, several: int = _SEVERAL, named: int = 0, most: int = _NO_SEQ) -> None:
        """Move to the highest of the last seqs, up to ``most``, that no jump keeps apart from the position.

        A jump with ``several`` arrivals behind it is none, and none up to ``named``.
        """
        last = sorted((*self._rest, *self._block), key=_seq_of)
        for index, arrival in enumerate(last):
            if arrival[0] > most:
                break
            is_jump = arrival[0] - self.position > jump and arrival[0] > named
            if is_jump and self.known and len(last) - index < several:
                break
            self._move(arrival)
        del self._ahead[: bisect_right(self._ahead, self.position)]

    def _usual_step(self) -> int:
        """Return the median step between two seqs; 1 where too few are known."""
        seqs = sorted({arrival[0] for block in (*self._witnesses.blocks, self._block) for arrival in block})
        steps = sorted(high - low for low, high in pairwise(seqs))
        return steps[len(steps) // 2] if len(steps) >= _FEW_STEPS else 1

    # -- a sequence that began anew
    def is_reset_at_rest(self) -> bool:
        """Return whether the last arrivals prove a reset, where the relay is silent now: fewer must do."""
        is_late = self.late >= QUIET_WITNESSES and self._is_reset(quarters=0)
        return self.known and (is_late or self._is_replaced(QUIET_WITNESSES))

    def is_left_at_rest(self) -> bool:
        """Return whether the relay is silent in a sequence whose end is known; then it is asked for everything again.

        By its seqs it sends nothing of the new one for a cursor in the old one.
        """
        if self._asked > 0 and self.is_old:
            self.go_on_at(0)
            self.asks_again = True
        return self.asks_again

    def is_over(self, shown: list[Arrival]) -> bool:
        """Return whether frames that the relay shows when it is asked prove that our sequence has ended."""
        if len(shown) < SHOWN_WITNESSES or not self.is_above(shown):
            return False
        return self._is_proven(self._witnesses.rule(self.reference, shown, self.position, quarters=2), 0)

    def is_above(self, shown: list[Arrival]) -> bool:
        """Return whether frames that the relay shows lie below the position, and are newer than what we have."""
        reference = self._witnesses.believed(self.reference, shown)
        return max(shown, key=_seq_of)[0] <= self.position and reference.is_before(shown)

    @property
    def is_old(self) -> bool:
        """Return True if what was read last is an old sequence, sent again, whose end was acted upon."""
        return self._witnesses.is_known(self.reference, self.position)

    def _is_reset(self, *, quarters: int = 2) -> bool:
        """Return whether the late arrivals prove a reset."""
        return self._is_proven(*self._witnesses.rule_on_late(self._confirmed, self._block, quarters=quarters))

    def _is_replaced(self, several: int) -> bool:
        """Return whether another event came under the position's seq, ours did not, and those behind it are newer."""
        witnesses = [*self._rest, *self._block]
        if not self._changed or self.proven or len(witnesses) < several:
            return False
        ruling = self._witnesses.rule(self._witnesses.connected, witnesses, self.position, quarters=1)
        self._witnesses.take_as_late(witnesses if ruling is Ruling.RESET else ())
        return self._is_proven(ruling, 0)

    def _is_proven(self, ruling: Ruling, begin: int) -> bool:
        """Return whether it is a reset. Where it is known, go on at ``begin`` in the new sequence, or ask again."""
        if ruling is Ruling.KNOWN:
            self.asks_again = begin < self._asked  # by its seqs, a relay sends nothing of what is below that
            self.go_on_at(0 if self.asks_again else begin)
        return ruling is Ruling.RESET

    def go_on_at(self, begin: int) -> None:
        """Go on behind a seq of the new sequence, where a relay sends the old one before it again."""
        self.turned = True
        self.position = self._confirmed = max(begin, 0)
        self.known, self._event = False, None
        self._prove()
        self._block, self._rest, self._ahead, self._held = [], [], [], 0
        self._end_late()

    def begin_anew(self, *, refused: bool = False) -> tuple[Memory, int | None]:
        """Act on a reset. Return the memory for the new run, and the usual time of its first frames (µs).

        ``refused``: the relay said that our cursor was beyond its head.
        """
        self._note_highest()
        return self._memory, self._witnesses.act(self.reference, self._asked if refused else None)


def _event_of(arrival: Arrival) -> str:
    return f"{arrival[1]} {arrival[2]}"
