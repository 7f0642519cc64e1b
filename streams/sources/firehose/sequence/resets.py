"""The proof that a relay's sequence began anew: events below the position, newer than all that was read. Pure."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Final

from streams.sources.firehose.sequence.arrival_times import RECENT, Reference, median_time
from streams.sources.firehose.sequence.arrivals import BLOCK, Arrival, Memory

#: Arrivals in a row that prove a reset; so many where the relay then is silent; and so many that it shows when asked.
WITNESSES: Final = 32
QUIET_WITNESSES: Final = 8
SHOWN_WITNESSES: Final = 4
#: Blocks that are kept: what stands above the arrivals that may belong to a sequence that was reset.
_KEPT_BLOCKS: Final = 5
#: Late arrivals that are kept until it is known whether the sequence was reset.
_KEPT_LATE: Final = 4096
#: Arrivals from which a usual time is taken, where there are no more.
_SEVERAL: Final = 3

_seq_of = itemgetter(0)


class Ruling(enum.Enum):
    """The conclusion from witnesses."""

    NOTHING = "nothing"
    RESET = "reset"
    #: The sequence before them is one whose end was acted upon, sent again.
    KNOWN = "known"


class ResetWitnesses:
    """The last arrivals with their times, and those below the position that may prove that the sequence was reset.

    ``blocks``: the last full blocks, oldest first. ``connected``: the times of what was read before this connection.
    """

    __slots__ = ("_before", "_clock", "_late", "_memory", "_read", "_recent", "blocks", "connected")

    def __init__(self, before: Reference, memory: Memory, clock: Callable[[], int]) -> None:
        """Begin a run. ``before``: the times of the run before. ``clock``: our time in µs; what was read is older."""
        self._before = self.connected = before
        self.blocks: deque[list[Arrival]] = deque(maxlen=_KEPT_BLOCKS)
        self._late: deque[Arrival] = deque(maxlen=_KEPT_LATE)
        self._recent: list[Arrival] = []
        self._memory = memory
        self._clock = clock
        #: When the last block was read, in µs of our own clock.
        self._read = clock()

    # -- what arrives
    def add_block(self, block: list[Arrival]) -> None:
        """Take a full block."""
        self.blocks.append(block)
        self._read = self._clock()

    def add_late(self, arrival: Arrival) -> None:
        """Take an arrival below the position."""
        self._late.append(arrival)

    def clear(self) -> None:
        """Forget the late arrivals: they were out of order. Later ones are judged by themselves."""
        self._late.clear()

    def reconnected(self, block: Sequence[Arrival]) -> None:
        """Begin a connection. ``block``: the arrivals of the open block."""
        self.connected, self._recent = self.reference(block), self.last(block)

    def last(self, block: Sequence[Arrival]) -> list[Arrival]:
        """Return the last arrivals, each event once, the open block's among them."""
        last = (*self._recent, *chain.from_iterable(self.blocks), *block)
        return list({arrival[:3]: arrival for arrival in last}.values())[-RECENT:]

    def reference(self, block: Sequence[Arrival]) -> Reference:
        """Return the times of the last arrivals: those of a sequence that began anew are newer."""
        last = self.last(block)
        are_several = len({arrival[0] for arrival in last}) >= _SEVERAL  # a seq that comes again and again is one
        return Reference.of_last(last, self._before) if are_several else self._before

    # -- what they prove
    def rule_on_late(self, confirmed: int, block: Sequence[Arrival], *, quarters: int) -> tuple[Ruling, int]:
        """Return what the late arrivals prove, and the seq behind which they begin.

        ``confirmed``: the position as full blocks say. Only what is below it can be a witness.
        """
        witnesses = list(islice(reversed(self._late), WITNESSES))
        seqs = sorted(map(_seq_of, witnesses))
        if seqs[-1] > confirmed:
            return Ruling.NOTHING, confirmed
        above = [arrival for arrival in self.last(block) if arrival[0] >= seqs[-1]]
        last = self.reference(block)
        if len(above) >= BLOCK:  # what is below was overtaken itself
            last = last.later(Reference.of_last(above, self._before))
        return self.rule(last, witnesses, confirmed, quarters=quarters), seqs[0] - 1

    def rule(self, last: Reference, witnesses: Sequence[Arrival], position: int, *, quarters: int) -> Ruling:
        """Return what it proves that these arrivals came, and not what follows on what was read up to ``last``.

        ``position``: the seq up to which it was read. ``quarters``: which quarter of their times must be newer; 2 is
        the median, 0 the lowest.
        """
        reference = self.believed(last, witnesses)
        if not reference.is_before(witnesses, quarters=quarters):
            return Ruling.NOTHING
        return Ruling.KNOWN if self.is_known(reference, position) else Ruling.RESET

    def believed(self, last: Reference, witnesses: Sequence[Arrival]) -> Reference:
        """Return a reference, not later than when it was read; as it is where the witnesses are of the future, too.

        What was read was not of the future. But a machine's clock may be days behind: then it says nothing.
        """
        time = median_time(witnesses)
        return last if time is not None and time > self._clock() else last.at_most(self._read)

    def is_known(self, reference: Reference, position: int) -> bool:
        """Return whether what was read up to a time and a seq is a sequence whose end was acted upon, sent again."""
        if reference.time is None:
            return False
        refused, refused_time = self._memory.refused or (position + 1, 0)
        return reference.time < self._memory.reset_time or (position >= refused and reference.time < refused_time)

    def take_as_late(self, witnesses: Sequence[Arrival]) -> None:
        """Take arrivals as late ones: they prove a reset, although they came above the position."""
        self._late.extend(witnesses)

    def act(self, last: Reference, refused: int | None) -> int | None:
        """Act upon the reset of a sequence that was read up to ``last``. Return the usual time of its witnesses, in µs.

        ``refused``: the cursor that the relay said was beyond its head, where that is the sign.

        The memory keeps when it was. The witnesses were published as the old sequence's: the memory forgets them, so
        that they are taken again.
        """
        witnesses, memory = list(self._late), self._memory
        begins, ends = median_time(witnesses), last.at_most(self._read).time
        known = begins if begins is not None else ends + 1 if ends is not None else -1
        memory.reset_time = max(memory.reset_time, known)
        if refused is not None:
            memory.refused = refused, self._clock()
        memory.forget({hash(arrival[:3]) for arrival in witnesses})
        return begins
