"""The ingest's way through a world, with the product's continuity and nothing else of it: connections, cuts, kills.

``travel`` raises ``Broken`` where a promise is: an event lost or passed over, a reset invented or not found, an input
that is read for ever. What it reads, publishes and forgets is kept here, apart from the code under test.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Final

from streams.sources.firehose.sequence.arrival_times import Reference
from streams.sources.firehose.sequence.arrivals import BLOCK, Memory, Verdict
from streams.sources.firehose.sequence.continuity import HELD, Continuity
from tests.arrivals.world import BEGIN_US, SECOND, YEAR, Event, World

#: Frames of a new sequence until it must be noticed.
FOUND_WITHIN: Final = 64
#: Connections, and frames for each frame of the stream, that no reading may need.
MOST_CONNECTIONS: Final = 150
MOST_READINGS: Final = 60
NEVER: Final = 1 << 62
#: From when an event was made to when it is here, in µs.
LATER: Final = SECOND

Key = tuple[int, str, str]


class Broken(AssertionError):  # noqa: N818 (a promise)
    """A promise is broken."""


@dataclass
class Durable:
    """The last watermark, and how many published events it acknowledges."""

    position: int
    known: bool
    event: str | None = None
    time: int | None = None
    reference: Reference | None = None
    published: int = 0


@dataclass
class Travel:
    """One reading of a world, until all of it was read and the relay is silent."""

    world: World
    rnd: Random
    continuity: Continuity = field(init=False)
    memory: Memory = field(default_factory=Memory)
    durable: Durable = field(init=False)
    #: What Kafka has, or will have if nothing is killed; and what was given up with an ingest.
    published: list[Key] = field(default_factory=list)
    taken: set[Key] = field(default_factory=set)
    forgiven: set[Key] = field(default_factory=set)
    #: The seq behind which it begins.
    begin: int = 0
    resets: int = 0
    connections: int = 0
    frames: int = 0
    #: Frames of the new sequence since it began, while a position of the old one stood above them.
    unnoticed: int = 0
    at: int = 0
    mode_reset: bool = False
    taken_anew: int = 0
    kills: int = 0

    def __post_init__(self) -> None:
        """Begin at the oldest that the relay keeps."""
        self.at = self.rnd.randint(0, self.world.began_anew or len(self.world.stream))
        self.begin = min((event.seq for event in self.world.stream[: self.at]), default=1) - 1
        self._begin(Durable(self.begin, known=False))

    def _begin(self, at: Durable) -> None:
        self.durable = at
        self.continuity = Continuity(
            at.position, known=at.known, event=at.event, time=at.time, reference=at.reference, memory=self.memory,
            clock=self._now,
        )  # fmt: skip

    def _now(self) -> int:
        """The ingest's own clock, in µs: what was sent was made before."""
        return max((event.made for event in self.world.stream[: self.at]), default=BEGIN_US) + LATER

    # -- the life of an ingest
    def run(self) -> None:
        """Read until nothing more comes."""
        # What is sent again in order, several times, is believed.
        is_odd = {"cut-over", "overtaken"} & set(self.world.faults)
        cuts = self.rnd.choice((0, 0, 1, 3) if is_odd else (0, 0, 1, 3, 8))
        while True:
            self.connections += 1
            if self.connections > MOST_CONNECTIONS:
                raise Broken(f"{self.connections} connections, and no end")
            length = self.rnd.randint(1, 80) if cuts else NEVER
            if self._connection(length):
                return
            if cuts:
                cuts -= 1
                self._trouble()

    def _trouble(self) -> None:
        """Besides a cut: the ingest is killed, or Kafka did not take what was sent."""
        what = self.rnd.random()
        if what < 0.6:
            return
        self.forgiven.update(self.published[self.durable.published :])
        del self.published[self.durable.published :]
        self.kills += 1
        if what < 0.8:
            self.memory = Memory()
            self.mode_reset = False
        else:
            self.memory.forget_events()
        self._begin(self.durable)
        self.unnoticed = 0

    def _connection(self, length: int) -> bool:  # noqa: PLR0911 (one a way to end)
        """Read one connection of at most so many frames. Return whether nothing more will come."""
        cursor = self.continuity.reconnected()
        self._no_gap()
        answer = self.world.answer(cursor, self.at)
        if answer is None:
            if (not self.mode_reset or self.taken_anew) and not self.continuity.is_old:
                self._reset(refused=True)
            else:
                self.continuity.go_on_at(0)
            return False
        for place in answer[:length]:
            if self._frame(place):
                return False
        if length < len(answer):
            return False
        length -= len(answer)
        while self.at < len(self.world.stream):
            if length <= 0:
                return False
            length -= 1
            self.at += 1
            if self._frame(self.at - 1):
                return False
            if self.rnd.random() < 0.01 and self._is_calm(self.at) and self._rest():
                return False
        return not self._rest()

    def _rest(self) -> bool:
        """The relay is silent. Return whether that proves a reset."""
        if self.continuity.is_reset_at_rest():
            self._reset()
            return True
        if self.continuity.is_left_at_rest():
            return True
        self.continuity.accept_pending(NEVER)
        self._no_gap()
        return False

    def _is_calm(self, at: int) -> bool:
        """Whether all that was sent until now is below all that comes: a pause settles it."""
        world = self.world
        since, until = world.began_anew or 0, len(world.stream)
        if at <= since:
            since, until = 0, since
        before, after = world.stream[since:at], world.stream[at:until]
        return not before or not after or max(event.seq for event in before) < min(event.seq for event in after)

    # -- a frame
    def _frame(self, place: int) -> bool:
        """Take one frame. Return whether the connection ends with it."""
        self.frames += 1
        if self.frames > MOST_READINGS * (len(self.world.stream) + 10):
            raise Broken(f"{self.frames} frames were read of {len(self.world.stream)}, and no end")
        event = self.world.stream[place]
        key = event[:3]
        time = BEGIN_US + YEAR + self.frames * SECOND if self.world.time_of_sending else event.time
        self._count_unnoticed(place, event)
        verdict = self.continuity.see(*key, time)
        self._no_gap()
        if verdict is Verdict.SEEN:
            if key not in self.taken:
                raise Broken(f"{key} was passed over, and never taken")
        else:
            self.published.append(key)
            self.taken_anew += 1
            self.taken.add(key)
        if verdict is Verdict.RESET:
            self._reset()
            return True
        if self.continuity.asks_again:
            return True
        if self.unnoticed > FOUND_WITHIN:
            raise Broken(f"the sequence began anew, and {self.unnoticed} frames later it is not noticed")
        if self.rnd.random() < 0.1:
            at = self.continuity
            self.durable = Durable(at.position, at.known, at.event, at.time, at.reference, len(self.published))
        return False

    def _count_unnoticed(self, place: int, event: Event) -> None:
        world = self.world
        if world.began_anew is None or place < world.began_anew or self.resets:
            self.unnoticed = 0
        elif self.continuity.known and event.seq <= self.continuity.position:
            self.unnoticed += 1

    def _reset(self, *, refused: bool = False) -> None:
        world = self.world
        if world.began_anew is None or self.at <= world.began_anew:
            raise Broken("a reset was found, and the sequence never began anew")
        self.resets += 1
        if self.resets > 2 + 2 * self.kills:  # an ingest that was killed knows nothing of it
            raise Broken("one reset was acted upon again and again")
        self.memory, _ = self.continuity.begin_anew(refused=refused)
        self.mode_reset = True
        self.taken_anew = 0
        self._begin(Durable(0, known=False, published=len(self.published)))

    def _no_gap(self) -> None:
        if self.continuity.missing is not None:
            raise Broken(f"a gap where nothing is missing: {self.continuity.missing}")

    # -- what must have come
    def check(self) -> None:
        """Compare what was published with what the relay sent."""
        published = set(self.published)
        # Where it begins with all that the relay keeps, the first block says where that begins.
        first = min(event.seq for event in self.world.stream[:BLOCK]) if self.begin == 0 else 0
        for place, event in due(self.world):
            key = event[:3]
            # What was given up with an ingest, and the relay has forgotten since, nobody can bring back.
            gone = key in self.forgiven and place < self.world.kept(self.at)[0]
            if key not in published | self.world.astray and not gone and event.seq > max(self.begin, first - 1):
                raise Broken(f"{key} is lost")


def due(world: World) -> list[tuple[int, Event]]:
    """Return the events that must come, whatever is cut or killed.

    An event that many others overtook may be lost with the process that took it: a relay does not send it again for
    the position that those have moved. Where the seqs are dense, what is left out of them is waited for: a second event
    under a seq leaves nothing out.
    """
    found: list[tuple[int, Event]] = []
    above: list[int] = []
    carried: set[int] = set()
    seqs = sorted({event.seq for event in world.stream})
    dense = all(high - low == 1 for low, high in pairwise(seqs))
    for place, event in enumerate(world.stream):
        if place == world.began_anew:
            above, carried = [], set()
        overtook = len(above) - bisect_right(above, event.seq - 1)
        insort(above, event.seq)
        if overtook < BLOCK or (dense and overtook < HELD and event.seq not in carried):
            found.append((place, event))
        carried.add(event.seq)
    return found


def travel(world: World, rnd: Random) -> Travel:
    """Read a world. Raises Broken."""
    made = Travel(world, rnd)
    made.run()
    made.check()
    return made
