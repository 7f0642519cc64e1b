"""A relay's stream with everything that real ones do wrong: order, repeats, outliers, clocks, a sequence that restarts.

Pure, and made from one random number generator. It shares no code with the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal, NamedTuple

BEGIN_US: Final = 1_790_000_000_000_000
SECOND: Final = 1_000_000
YEAR: Final = 365 * 86_400 * SECOND
_BASE32: Final = "234567abcdefghijklmnopqrstuvwxyz"
DIDS: Final = 40

Serve = Literal["by seq", "by place", "sorted"]
Beyond = Literal["live", "FutureCursor", "silent"]


class Event(NamedTuple):
    """A frame: its event (seq, did, rev), the time that it claims (µs or None), and when it was made."""

    seq: int
    did: str
    rev: str
    time: int | None
    made: int


def tid(us: int, clock: int = 0) -> str:
    """The TID of a time in µs."""
    number = us << 10 | clock
    return "".join(_BASE32[number >> shift & 31] for shift in range(60, -1, -5))


@dataclass
class World:
    """What one relay sends. ``stream``: in the order of the wire; ``began_anew``: the place of a new sequence in it."""

    stream: list[Event]
    began_anew: int | None = None
    keeps_old: bool = False
    serve: Serve = "by seq"
    beyond: Beyond = "live"
    inclusive: bool = False
    #: The relay writes ``time`` when it sends.
    time_of_sending: bool = False
    faults: list[str] = field(default_factory=list)
    #: Lone events whose seq is far behind: a relay sends them to nobody who asks for what comes after it.
    astray: set[tuple[int, str, str]] = field(default_factory=set)

    def kept(self, at: int) -> tuple[int, int]:
        """From where to where the relay keeps the stream, when it has sent ``at`` frames of it."""
        low = self.began_anew if self.began_anew is not None and not self.keeps_old and at > self.began_anew else 0
        return low, at

    def answer(self, cursor: int, at: int) -> list[int] | None:
        """Return the places of the frames with which the relay answers a cursor; None is FutureCursor."""
        low, high = self.kept(at)
        places = list(range(low, high))
        seqs = [self.stream[place].seq for place in places]
        since = self.began_anew if self.began_anew is not None and at > self.began_anew else low
        head = max((self.stream[place].seq for place in range(since, high)), default=0)
        if cursor > head and self.beyond != "live" and places:
            return None if self.beyond == "FutureCursor" else []
        if self.serve == "by place":
            for index, seq in enumerate(seqs):
                if seq > cursor or (self.inclusive and seq == cursor):
                    return places[index:]
            return []
        found = [
            place for place, seq in zip(places, seqs, strict=True) if seq > cursor or (self.inclusive and seq == cursor)
        ]
        return sorted(found, key=lambda place: self.stream[place].seq) if self.serve == "sorted" else found


def make_world(rnd: Random, *, largest: int = 120) -> World:
    """A random world: an orderly stream, and one to three faults."""
    world = World(_orderly(rnd, rnd.randint(1, largest), rnd.choice((1, 7, 999, 5_000_000_000)), BEGIN_US))
    world.serve = rnd.choice(("by seq", "by place", "sorted"))
    world.inclusive = rnd.random() < 0.3
    if rnd.random() < 0.25:
        _begin_anew(rnd, world)
    names = rnd.sample(sorted(_FAULTS), rnd.randint(0, 3))
    if world.began_anew is None:
        for name in names:
            _FAULTS[name](rnd, world)
            world.faults.append(name)
        world.time_of_sending = rnd.random() < 0.1
    else:
        for name in names:
            if name in ("repeats", "wrong clocks", "no times", "swapped"):
                _FAULTS[name](rnd, world)
                world.faults.append(name)
    return world


def _orderly(rnd: Random, count: int, first: int, begin: int) -> list[Event]:
    """Events in order. Real seqs are dense, or have holes; the times of PDSes differ by some seconds."""
    step = rnd.choice((1, 1, 1, 3, 1000))
    pace = rnd.choice((SECOND // 1000, SECOND // 10, SECOND, 30 * SECOND))
    jitter = rnd.choice((0, 0, pace * 3))
    events, seq, made = [], first, begin
    for number in range(count):
        seq += rnd.randint(1, step)
        made += pace
        did = f"did:plc:{rnd.randrange(DIDS):024d}"
        at = made + (rnd.randint(-jitter, jitter) if jitter else 0)
        events.append(Event(seq, did, tid(at, number % 1024), at, made))
    return events


def _begin_anew(rnd: Random, world: World) -> None:
    """The relay's sequence begins anew, far below where it was, and later."""
    old = world.stream
    if len(old) < 64 or old[0].seq < 64:
        return
    later = old[-1].made + rnd.choice((120, 3600, 60 * 3600, 7 * 86_400)) * SECOND
    new = _orderly(rnd, rnd.randint(70, 140), 0, later)
    room = old[0].seq // 2  # in each case below the old sequence, as a new one is for a long time
    if new[-1].seq >= room:
        new = [event._replace(seq=number + 1) for number, event in enumerate(new)]
    if new[-1].seq >= old[0].seq:
        return
    world.began_anew = len(old)
    world.keeps_old = rnd.random() < 0.3
    world.beyond = rnd.choice(("live", "FutureCursor"))
    world.stream = old + new


def _places(rnd: Random, world: World, count: int) -> list[int]:
    return sorted(rnd.randrange(len(world.stream)) for _ in range(count))


def _swapped(rnd: Random, world: World) -> None:
    """Neighbours are exchanged."""
    stream = world.stream
    for place in _places(rnd, world, rnd.randint(1, 8)):
        if place + 1 < len(stream) and place + 1 != world.began_anew:
            stream[place], stream[place + 1] = stream[place + 1], stream[place]


def _overtaken(rnd: Random, world: World) -> None:
    """Single events come earlier than those before them: up to sixty overtake."""
    for place in _places(rnd, world, rnd.randint(1, 4)):
        event = world.stream.pop(place)
        world.stream.insert(max(place - rnd.randint(1, 60), 0), event)


def _cut_over(rnd: Random, world: World) -> None:
    """A replay cuts over to live: a block of live events comes before the end of the replay."""
    stream = world.stream
    first, middle, last = (rnd.randrange(len(stream) + 1) for _ in range(3))
    first, middle, last = sorted((first, middle, last))
    world.stream = [*stream[:first], *stream[middle:last], *stream[first:middle], *stream[last:]]


def _repeats(rnd: Random, world: World) -> None:
    """An event is sent again, at once or later."""
    for place in reversed(_places(rnd, world, rnd.randint(1, 10))):
        later = place + rnd.choice((1, 1, rnd.randint(1, 60)))
        if world.began_anew is not None and place < world.began_anew:
            if later > world.began_anew:
                continue
            world.began_anew += 1
        world.stream.insert(min(later, len(world.stream)), world.stream[place])


def _outliers(rnd: Random, world: World) -> None:
    """Lone events carry a seq far ahead, or far behind."""
    for place in _places(rnd, world, rnd.randint(1, 2)):
        event = world.stream[place]
        far = rnd.choice((10_000, 100_000, 900_000, 1 << 40))
        low = rnd.randint(1, event.seq)
        world.stream[place] = event._replace(seq=rnd.choice((event.seq + far, low)))
        if world.stream[place].seq <= event.seq:
            world.astray.add(world.stream[place][:3])


def _same_seq(rnd: Random, world: World) -> None:
    """Two events carry one seq."""
    for place in _places(rnd, world, rnd.randint(1, 3)):
        if place + 1 < len(world.stream):
            world.stream[place + 1] = world.stream[place + 1]._replace(seq=world.stream[place].seq)


def _wrong_clocks(rnd: Random, world: World) -> None:
    """One PDS' clock is a day to decades off, in time and rev; sometimes it sends some frames in a row."""
    off = rnd.choice((1, -1)) * rnd.choice((86_400 * SECOND, YEAR, 70 * YEAR))
    burst = rnd.randint(1, 5)
    for place in _places(rnd, world, rnd.randint(1, 2)):
        for event in set(world.stream[place : place + burst]):
            at = max((event.time or event.made) + off, 0)
            shifted = event._replace(time=at, rev=tid(at, event.seq % 1024))
            # Each copy of a repeat: it is the PDS that is wrong.
            world.stream = [shifted if one == event else one for one in world.stream]


def _no_times(rnd: Random, world: World) -> None:
    """Some frames have no time that can be read."""
    for place in _places(rnd, world, rnd.randint(1, 10)):
        world.stream[place] = world.stream[place]._replace(time=None)


_FAULTS: Final = {
    "swapped": _swapped, "overtaken": _overtaken, "cut-over": _cut_over, "repeats": _repeats, "outliers": _outliers,
    "same seq": _same_seq, "wrong clocks": _wrong_clocks, "no times": _no_times,
}  # fmt: skip
