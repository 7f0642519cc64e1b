"""How fast the ingest may read: its budget (``ingest_budget.py``), or more where the relay's window demands it.

A relay keeps its last so many hours: its oldest event slides along with the clock. An ingest that reads slower than
real time loses ground against it, and what the relay drops first is lost. ``WindowPace`` decides, purely; ``Budget``
turns a rate into waits; ``IngestPace`` looks at the machine once a second and holds the connection.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from streams.resources.idleness import NOT_KNOWN, IdleJudge, MachineSample, reason
from streams.resources.ingest_budget import LEAST, NETWORK_BYTES, ingest_budget, ingest_limit
from streams.resources.machine import SAMPLE_SECONDS, Machine
from streams.settings import Settings
from streams.sources.source import Look, Source
from streams.status import process
from streams.status.process import machine_use
from streams.text import span

log = structlog.get_logger("streams.ingest")

#: Seconds over which speed and rate are taken.
WINDOW: Final = 10.0
#: Seconds of firehose a second that are needed to ever catch up.
NEED: Final = 1.25
#: Seconds to the relay's oldest event from which on nothing presses. With less, as many times more is needed.
SAFE: Final = 3600.0
#: Seconds behind the clock from which on there is no backlog to pace: what comes is live.
NEAR_HEAD: Final = 30.0
#: Seconds of the budget that may come at once, and the least bytes: one read of the socket.
BURST_SECONDS, BURST_BYTES = 0.25, 256 * 1024
#: Events in WINDOW from which on their size is known.
ENOUGH_EVENTS: Final = 100
#: Seconds between two lines about the same.
SAY_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What follows. ``rate``: bytes a second that may be read (None: no limit); ``demanded``: more than the budget.

    ``speed``: seconds of firehose a second. ``left``: seconds to the end, ``window_left``: until the relay drops what
    is next, both at this speed. None where it cannot be known, or will not be.
    """

    rate: float | None
    demanded: bool
    speed: float | None
    bytes_rate: float
    left: float | None
    window_left: float | None

    @property
    def loses(self) -> bool:
        """Whether the window will run out before the end is reached."""
        return self.window_left is not None and (self.left is None or self.window_left < self.left)


class WindowPace:
    """Takes looks, about one a second, and says what may be read. ``bytes_an_event``: as it was measured last."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.bytes_an_event: float = NETWORK_BYTES
        self._looks: deque[Look] = deque()
        self._density: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether there are looks enough to speak of a pace."""
        return len(self._looks) > 1 and self._looks[-1].now - self._looks[0].now >= WINDOW * 0.9

    def look(self, look: Look, *, give_way: bool) -> Outlook:
        """``give_way``: whether the budget holds now."""
        looks = self._looks
        if looks and look.position is not None and look.position < (looks[-1].position or 0):
            looks.clear()  # went back: begun anew
        looks.append(look)
        while look.now - looks[0].now > WINDOW:
            looks.popleft()
        if look.events - looks[0].events >= ENOUGH_EVENTS:
            self.bytes_an_event = (look.received - looks[0].received) / (look.events - looks[0].events)
        seconds, moved, received = self._progress()
        if moved > 0 and received > 0:
            self._density = received / moved
        speed = moved / seconds if seconds > 0 and look.position is not None else None
        margin = _margin(look)
        rate = self._rate(look, margin) if give_way else None
        return Outlook(
            rate=rate,
            demanded=give_way and (rate is None or rate > self.budget),
            speed=speed,
            bytes_rate=received / seconds if seconds > 0 else 0.0,
            left=_left(look, speed),
            # Where nothing comes there is nothing that could be lost.
            window_left=None if look.waits and not received else _window_left(look, speed, margin),
        )

    def _progress(self) -> tuple[float, float, int]:
        """Seconds, seconds of firehose and bytes between the first look that had a position, and the last."""
        first = next((look for look in self._looks if look.position is not None), self._looks[-1])
        last = self._looks[-1]
        moved = (last.position - first.position) / 1e6 if last.position and first.position else 0.0
        return last.now - first.now, moved, last.received - first.received

    def _rate(self, look: Look, margin: float | None) -> float | None:
        if look.position is not None and look.wall - look.position < NEAR_HEAD * 1e6:
            return None
        need = needed_speed(margin)
        if math.isinf(need):
            return None
        return max(self.budget, need * self._density) if self._density is not None else self.budget


def needed_speed(margin: float | None) -> float:
    """Seconds of firehose a second that are needed, with ``margin`` seconds between us and the relay's oldest event."""
    if margin is None or margin >= SAFE:
        return NEED
    return NEED * SAFE / margin if margin > 0 else math.inf


def _margin(look: Look) -> float | None:
    if look.oldest is None or look.position is None:
        return None
    return (look.position - look.oldest - (look.wall - look.oldest_at)) / 1e6


def _left(look: Look, speed: float | None) -> float | None:
    if speed is None or look.position is None:
        return None
    if look.head is not None:
        return max(look.head - look.position, 0) / 1e6 / speed if speed > 0 else None
    return max(look.wall - look.position, 0) / 1e6 / (speed - 1) if speed > 1 else None


def _window_left(look: Look, speed: float | None, margin: float | None) -> float | None:
    if speed is None or margin is None or speed >= 1 or look.position is None:
        return None
    if look.wall - look.position < NEAR_HEAD * 1e6:
        return None
    return max(margin, 0.0) / (1 - speed)


class Budget:
    """A rate as waits: ``spend`` says for how many seconds nothing more may be read."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._level = 0.0
        self._at = 0.0

    def spend(self, now: float, size: int) -> float:
        """So many bytes were read."""
        if self.rate is None:
            return 0.0
        most = max(self.rate * BURST_SECONDS, BURST_BYTES)
        self._level = min(most, self._level + (now - self._at) * self.rate) - size
        self._at = now
        return max(0.0, -self._level / self.rate)

    def set_rate(self, now: float, rate: float | None) -> None:
        """Another rate from now on (above 0; None: no limit)."""
        if self.rate is None:
            self._level, self._at = 0.0, now
        else:
            self.spend(now, 0)
        self.rate = rate


class IngestPace:
    """Paces one ingest. ``on_change`` is called when ``holding`` has changed; ``run`` beside the reading."""

    def __init__(self, settings: Settings, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        #: Workers of our group that are there.
        self.workers = 1
        self._has_limit = ingest_budget(settings) is not None
        self._machine = Machine(settings)
        self._judge = IdleJudge()
        self._seen: MachineSample | None = None
        self._window = WindowPace(ingest_budget(settings) or 0.0)
        self._budget = Budget()
        if self._has_limit:  # until it is known whether the machine is idle
            self._budget.set_rate(time.monotonic(), self._window.budget)
        self._release: asyncio.TimerHandle | None = None
        self._said: float | None = None
        self._pace_now: tuple[bool, bool] | None = None
        self._pace_said: dict[tuple[bool, bool], float] = {}
        self._received = 0
        self._paused = False
        self.outlook = Outlook(self._budget.rate, False, None, 0.0, None, None)

    # -- what people see

    @property
    def machine(self) -> process.MachineUse | None:
        """What others use of the machine; None before the first look at it."""
        return None if self._seen is None else machine_use(self._seen, self._judge)

    @property
    def is_paced(self) -> bool:
        """Whether a limit holds now."""
        return self._budget.rate is not None

    @property
    def why(self) -> str:
        """Why it reads as fast as it does, in a sentence."""
        outlook = self.outlook
        if outlook.demanded:
            rate = f"{outlook.rate / 1e6:.1f} MB/s" if outlook.rate is not None else "as fast as it goes"
            least = "the workers can apply" if self._follows else "INGEST_BUSY_MB_PER_S"
            return f"{rate}: the relay's window demands more than {least}"
        if outlook.rate is None:
            return "the settings have no limit" if not self._has_limit else "the machine is idle but for us"
        because = "BACKFILL_USE_IDLE is off"
        if self._settings.backfill_use_idle:
            because = reason(self._seen) if self._seen is not None else NOT_KNOWN
        return f"{outlook.rate / 1e6:.1f} MB/s: {because}"

    @property
    def mode(self) -> tuple[process.Mode, str]:
        """Whether a limit holds, and why it reads as fast as it does."""
        return process.Mode.PACED if self.is_paced else process.Mode.FULL_SPEED, self.why

    def plan(self) -> str:
        """What it will do, for the log at the start."""
        if not self._has_limit:
            return "reads as fast as it goes."
        held = f"reads {self._window.budget / 1e6:.3g} MB/s, more where the relay's window demands it"
        if self._settings.backfill_use_idle:
            held += ", while the machine is busy with other work; as fast as it goes while it is idle"
        if self._follows:
            return f"{held}. That is what the worker's settings can apply, and it changes with the size of the events."
        slower = ingest_limit(self._settings) is not None
        return f"{held}." + (
            " That is less than the worker's settings can apply: INGEST_BUSY_MB_PER_S." if slower else ""
        )

    @property
    def _follows(self) -> bool:
        """Whether the budget is what the workers can apply, and that is more than the least."""
        return self._settings.ingest_busy_mb_per_s is None and self._window.budget > LEAST

    # -- the reading

    @property
    def holding(self) -> bool:
        """Whether the connection must not be read now."""
        return self._release is not None or self._paused

    @property
    def paused(self) -> bool:
        """Whether nothing is read, by the command ``pause``."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            self._on_change()

    def received(self, size: int) -> None:
        """So many bytes were read from the relay."""
        self._received += size
        if self._budget.rate is None:
            return
        wait = self._budget.spend(time.monotonic(), size)
        if wait > 0 and self._release is None:
            self._release = asyncio.get_running_loop().call_later(wait, self._go_on)
            self._on_change()

    def _go_on(self) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None
            self._on_change()

    async def run(self, source: Source) -> None:
        """Look at the machine and at the reading, once a second, and set the rate."""
        while True:
            self._seen = await asyncio.to_thread(self._machine.sample)
            idle = self._judge.sample(self._seen)
            look = source.look(self._received)
            self._window.budget = ingest_budget(self._settings, self.workers, self._window.bytes_an_event) or 0.0
            give_way = self._has_limit and not (self._settings.backfill_use_idle and idle)
            self.outlook = self._window.look(look, give_way=give_way)
            self._set_rate(self.outlook.rate)
            self._say_pace(look.now)
            self._warn(look.now, away=look.away)
            await asyncio.sleep(SAMPLE_SECONDS)

    def _set_rate(self, rate: float | None) -> None:
        was = self._budget.rate
        self._budget.set_rate(time.monotonic(), rate)
        if rate is None or (was is not None and rate > was * 1.1):
            self._go_on()

    def _say_pace(self, now: float) -> None:
        """Say why it goes as it goes, when that has changed: at once, but the same no more often than each WINDOW."""
        pace = self.is_paced, self.outlook.demanded
        if pace != self._pace_now and now - self._pace_said.get(pace, -math.inf) >= WINDOW:
            self._pace_now = pace
            self._pace_said[pace] = now
            log.info("[BACKFILL] Pace: " + self.why)

    def _warn(self, now: float, *, away: bool = False) -> None:
        """Say that the window will run out, where reading can change that; that a relay is away is said elsewhere."""
        outlook = self.outlook
        if away:
            return
        if outlook.loses and self._window.is_known:
            if self._said is None or now - self._said >= SAY_EVERY:
                self._said = now
                log.warning("[BACKFILL] Window: " + loss(outlook))
        elif self._said is not None and not outlook.loses:
            self._said = None
            log.info("[BACKFILL] Window: what is not yet taken will be taken before the relay drops it")


def loss(outlook: Outlook) -> str:
    """``at this pace (0.4 x real time) the relay will drop what is not yet taken in 5h12m``; or nothing is taken."""
    assert outlook.window_left is not None
    when = f"in {span(outlook.window_left)}" if outlook.window_left >= 60 else "within a minute"
    pace = f"at this pace ({outlook.speed:.1f} x real time)" if outlook.speed else "nothing is taken now, and"
    return f"{pace} the relay will drop what is not yet taken {when}"
