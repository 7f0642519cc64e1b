"""The pace of an ingest: its budget (``ingest_budget.py``), or more if the relay's window demands it.

A relay keeps its last so many hours: its oldest event slides along with the clock. An ingest that reads slower than
real time loses ground against it, and what the relay drops first is lost. ``WindowPace`` decides, without I/O;
``Budget`` turns a rate into waits; ``IngestPace`` samples the machine once a second and holds the source.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from streams.resources.idleness import NOT_KNOWN, IdleJudge, MachineSample, reason
from streams.resources.ingest_budget import LEAST, NETWORK_BYTES, ingest_budget, ingest_limit
from streams.resources.machine import SAMPLE_SECONDS, Machine
from streams.runtime.rates import WINDOW, Rate
from streams.settings import Settings
from streams.sources.source import ReadProgress
from streams.status import process
from streams.status.process import machine_use
from streams.text import format_span

log = structlog.get_logger("streams.ingest")

#: Seconds of firehose a second that are needed to ever catch up.
NEED: Final = 1.25
#: Seconds to the relay's oldest event from which on NEED is enough. With half of them, twice NEED is needed.
SAFE: Final = 3600.0
#: Seconds behind the clock below which there is no backlog to pace: the events are live.
NEAR_HEAD: Final = 30.0
#: Seconds of the budget that may come at once, and the least bytes: one read of the socket.
BURST_SECONDS, BURST_BYTES = 0.25, 256 * 1024
#: Events in WINDOW from which on their size is known.
ENOUGH_EVENTS: Final = 100
#: Seconds between two lines about the same.
SAY_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """A decision. ``rate``: bytes a second that may be read (None: no limit); ``demanded``: it is more than the budget.

    ``speed``: seconds of firehose a second. ``left``: seconds to the end, ``window_left``: until the relay drops the
    next event, both at this speed. None: not known, or it will not happen.
    """

    rate: float | None
    demanded: bool
    speed: float | None
    bytes_rate: float
    left: float | None
    window_left: float | None

    @property
    def loses(self) -> bool:
        """Return whether the window will run out before the end is reached."""
        return self.window_left is not None and (self.left is None or self.window_left < self.left)


class WindowPace:
    """The decision how fast to read, by samples about once a second. ``bytes_an_event``: as it was measured last."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.bytes_an_event: float = NETWORK_BYTES
        #: Since there is a position: its time in seconds, the bytes received, and the events in them.
        self._position, self._received, self._events = Rate(WINDOW), Rate(WINDOW), Rate(WINDOW)
        #: Bytes of a second of firehose, as they were measured last.
        self._density: float | None = None

    @property
    def is_known(self) -> bool:
        """Return whether there are samples of nearly a whole window."""
        return self._position.seconds >= WINDOW * 0.9

    def judge(self, progress: ReadProgress, *, give_way: bool) -> Outlook:
        """Return what follows from where the reading stands now. ``give_way``: the budget holds now."""
        speed, bytes_rate = None, 0.0
        if progress.position is not None:
            self._add(progress, progress.position / 1e6)
            if self._position.seconds > 0:
                speed, bytes_rate = self._position.per_second, self._received.per_second
        margin = _margin(progress)
        rate = self._rate(progress, margin) if give_way else None
        return Outlook(
            rate=rate,
            demanded=give_way and (rate is None or rate > self.budget),
            speed=speed,
            bytes_rate=bytes_rate,
            left=_left(progress, speed),
            # Where nothing comes there is nothing that could be lost.
            window_left=None if progress.waits and not bytes_rate else _window_left(progress, speed, margin),
        )

    def _add(self, progress: ReadProgress, position: float) -> None:
        """Take in a sample; ``position`` in seconds. A position that goes back begins the measurements again."""
        rates = self._position, self._received, self._events
        if position < (self._position.last or 0.0):
            for rate in rates:
                rate.clear()
        for rate, count in zip(rates, (position, progress.received, progress.events), strict=True):
            rate.add(progress.now, count)
        if self._events.change >= ENOUGH_EVENTS:
            self.bytes_an_event = self._received.change / self._events.change
        if self._position.change > 0 and self._received.change > 0:
            self._density = self._received.change / self._position.change

    def _rate(self, progress: ReadProgress, margin: float | None) -> float | None:
        if progress.position is not None and progress.wall - progress.position < NEAR_HEAD * 1e6:
            return None
        need = needed_speed(margin)
        if math.isinf(need):
            return None
        return max(self.budget, need * self._density) if self._density is not None else self.budget


def needed_speed(margin: float | None) -> float:
    """Return the seconds of firehose a second that are needed. ``margin``: seconds after the relay's oldest event."""
    if margin is None or margin >= SAFE:
        return NEED
    return NEED * SAFE / margin if margin > 0 else math.inf


def _margin(progress: ReadProgress) -> float | None:
    if progress.oldest is None or progress.position is None:
        return None
    return (progress.position - progress.oldest - (progress.wall - progress.oldest_at)) / 1e6


def _left(progress: ReadProgress, speed: float | None) -> float | None:
    if speed is None or progress.position is None:
        return None
    if progress.head is not None:
        return max(progress.head - progress.position, 0) / 1e6 / speed if speed > 0 else None
    return max(progress.wall - progress.position, 0) / 1e6 / (speed - 1) if speed > 1 else None


def _window_left(progress: ReadProgress, speed: float | None, margin: float | None) -> float | None:
    if speed is None or margin is None or speed >= 1 or progress.position is None:
        return None
    if progress.wall - progress.position < NEAR_HEAD * 1e6:
        return None
    return max(margin, 0.0) / (1 - speed)


class Budget:
    """A rate as waits: ``spend`` returns for how many seconds nothing more may be read."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._level = 0.0
        self._at = 0.0

    def spend(self, now: float, size: int) -> float:
        """Take in that so many bytes were read. Return the seconds to wait."""
        if self.rate is None:
            return 0.0
        most = max(self.rate * BURST_SECONDS, BURST_BYTES)
        self._level = min(most, self._level + (now - self._at) * self.rate) - size
        self._at = now
        return max(0.0, -self._level / self.rate)

    def set_rate(self, now: float, rate: float | None) -> None:
        """Use another rate from now on (above 0; None: no limit)."""
        if self.rate is None:
            self._level, self._at = 0.0, now
        else:
            self.spend(now, 0)
        self.rate = rate


class IngestPace:
    """The pace of one ingest. ``on_hold`` is told when nothing may be read for now, and when it may again."""

    def __init__(self, settings: Settings, on_hold: Callable[[bool], None]) -> None:
        self._settings = settings
        self._on_hold = on_hold
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
        self.outlook = Outlook(self._budget.rate, False, None, 0.0, None, None)

    # -- what people see

    @property
    def machine(self) -> process.MachineUse | None:
        """Return what others use of the machine; None before the first sample."""
        return None if self._seen is None else machine_use(self._seen, self._judge)

    @property
    def is_paced(self) -> bool:
        """Return whether a limit holds now."""
        return self._budget.rate is not None

    @property
    def why(self) -> str:
        """Return a sentence for people: the reason for the rate of now."""
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
        """Return the mode, and the reason for the rate of now."""
        return process.Mode.PACED if self.is_paced else process.Mode.FULL_SPEED, self.why

    def plan(self) -> str:
        """Return a sentence about the pace, for the log at the start."""
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
        """Return whether the budget follows what the workers can apply: it is not set, and above the least."""
        return self._settings.ingest_busy_mb_per_s is None and self._window.budget > LEAST

    # -- the reading

    def received(self, size: int) -> None:
        """Take in that so many bytes were read from the source."""
        if self._budget.rate is None:
            return
        wait = self._budget.spend(time.monotonic(), size)
        if wait > 0 and self._release is None:
            self._release = asyncio.get_running_loop().call_later(wait, self._go_on)
            self._on_hold(True)

    def _go_on(self) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None
            self._on_hold(False)

    async def run(self, progress_of: Callable[[], ReadProgress]) -> None:
        """Set the rate once a second, by a sample of the machine and by where the reading stands."""
        while True:
            self._seen = await asyncio.to_thread(self._machine.sample)
            idle = self._judge.sample(self._seen)
            progress = progress_of()
            self._window.budget = ingest_budget(self._settings, self.workers, self._window.bytes_an_event) or 0.0
            give_way = self._has_limit and not (self._settings.backfill_use_idle and idle)
            self.outlook = self._window.judge(progress, give_way=give_way)
            self._set_rate(self.outlook.rate)
            self._say_pace(progress.now)
            self._warn(progress.now, away=progress.away)
            await asyncio.sleep(SAMPLE_SECONDS)

    def _set_rate(self, rate: float | None) -> None:
        was = self._budget.rate
        self._budget.set_rate(time.monotonic(), rate)
        if rate is None or (was is not None and rate > was * 1.1):
            self._go_on()

    def _say_pace(self, now: float) -> None:
        """Log the reason for the rate when it changes. The same reason is logged at most once each WINDOW."""
        pace = self.is_paced, self.outlook.demanded
        if pace != self._pace_now and now - self._pace_said.get(pace, -math.inf) >= WINDOW:
            self._pace_now = pace
            self._pace_said[pace] = now
            log.info("[BACKFILL] Pace: " + self.why)

    def _warn(self, now: float, *, away: bool = False) -> None:
        """Log that the window will run out, unless the relay is ``away``: then reading faster cannot help."""
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
    """Return ``at this pace (0.4 x real time) the relay will drop what is not yet taken in 5h12m``, or the like."""
    assert outlook.window_left is not None
    when = f"in {format_span(outlook.window_left)}" if outlook.window_left >= 60 else "within a minute"
    pace = f"at this pace ({outlook.speed:.1f} x real time)" if outlook.speed else "nothing is taken now, and"
    return f"{pace} the relay will drop what is not yet taken {when}"
