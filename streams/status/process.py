"""A process's report of itself: the same figures for ``status``, the metrics and the live page. Pure; JSON by msgspec.

Sizes are bytes, rates are per second over the last ten seconds, times are UTC.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import Final, Literal

import msgspec

from streams.resources.idleness import IdleJudge, MachineSample
from streams.resources.others import Other


class Mode(enum.StrEnum):
    """The reason for a process' present pace. Of several reasons that are true, the first counts."""

    STARTING = "starting"  # a worker: no partition yet, or a rebalance; an ingest: no plan yet
    STOPPING = "stopping"
    PAUSED = "paused"  # by the command `pause`
    NO_DATABASE = "no database"  # transactions are being tried again
    NO_RELAY = "no relay"  # connecting again
    NO_BROKER = "no broker"  # an ingest: Kafka has not acknowledged a share of the memory, and the relay is not read
    MEMORY = "memory"  # over the limit: nothing is pulled
    RETENTION = "retention"  # a slow group nears the topic's retention, and the disk is full
    SMALL_BATCHES = "small batches"  # over the limit, and nothing can be freed
    PACED = "paced"  # the settings' pace, because the machine is busy with other work or USE_IDLE is off
    WHOLE_SLICES = "whole slices"  # a worker, as fast as it goes
    FULL_SPEED = "full speed"  # an ingest, as fast as it goes

    @property
    def is_waiting(self) -> bool:
        """True while something that is needed is away, or has run out: a trouble."""
        return self in _WAITING

    @property
    def is_on_purpose(self) -> bool:
        """True while the process stands still, or goes slowly, on purpose: starting it again would not help."""
        return self in _ON_PURPOSE

    @property
    def speed(self) -> Literal["full", "slow", "waits"]:
        """As fast as it goes; slowly; or not at all."""
        if self in (Mode.WHOLE_SLICES, Mode.FULL_SPEED):
            return "full"
        return "slow" if self in (Mode.PACED, Mode.SMALL_BATCHES) else "waits"


_WAITING: Final = frozenset(
    {Mode.NO_DATABASE, Mode.NO_BROKER, Mode.NO_RELAY, Mode.MEMORY, Mode.SMALL_BATCHES, Mode.RETENTION}
)
_ON_PURPOSE: Final = frozenset({Mode.PAUSED, Mode.MEMORY, Mode.SMALL_BATCHES, Mode.PACED, Mode.RETENTION})

#: The modes of each kind of process.
WORKER_MODES: Final = (
    Mode.STARTING, Mode.STOPPING, Mode.PAUSED, Mode.NO_DATABASE, Mode.NO_BROKER, Mode.MEMORY, Mode.SMALL_BATCHES,
    Mode.PACED, Mode.WHOLE_SLICES,
)  # fmt: skip
INGEST_MODES: Final = (
    Mode.STARTING, Mode.STOPPING, Mode.PAUSED, Mode.NO_RELAY, Mode.NO_BROKER, Mode.MEMORY, Mode.RETENTION, Mode.PACED,
    Mode.FULL_SPEED,
)  # fmt: skip

#: Seconds between two reports of a process, and seconds after which a silent one counts as down.
BEAT_SECONDS: Final = 2.0
DOWN_AFTER: Final = 10.0


class MemoryUse(msgspec.Struct, frozen=True):
    """The memory of a process. ``in_flight``: bytes of events that are counted now, of ``budget``."""

    rss: int
    limit: int
    in_flight: int = 0
    budget: int = 0


class MachineUse(msgspec.Struct, frozen=True):
    """The use of the machine by others: ``others`` is a share of its cores; pressures are percent, None where unknown.

    ``top``: who they are, the largest three.
    """

    others: float
    idle: bool
    cores: float
    memory_pressure: float | None = None
    io_pressure: float | None = None
    top: tuple[Other, ...] = ()


class WorkerState(msgspec.Struct, frozen=True):
    """A worker. Counts are since its start: received = processed + skipped + dead."""

    mode: Mode
    why: str
    memory: MemoryUse
    machine: MachineUse | None
    partitions: tuple[int, ...]
    received: int
    processed: int
    skipped: int
    dead: int
    rate: float
    transactions: int
    transactions_max: int
    web: str | None = None


class IngestState(msgspec.Struct, frozen=True):
    """An ingest. ``speed``: seconds of firehose a second; ``window_left``: seconds until the relay drops what is next.

    ``left``: seconds until the head, at this speed. None where it cannot be known.
    """

    mode: Mode
    why: str
    memory: MemoryUse
    machine: MachineUse | None
    relay: str
    run: int
    plan: str
    seq: int
    time: dt.datetime | None
    head: dt.datetime | None
    oldest: dt.datetime | None
    covered_from: dt.datetime | None
    frames: int
    events: int
    dead: int
    gaps: int
    rate: float
    bytes_rate: float
    speed: float | None
    left: float | None
    window_left: float | None
    web: str | None = None
    #: Frames passed over because the same event was taken before; frames taken although others had overtaken them.
    repeated: int = 0
    late: int = 0


def order_text(repeated: int, late: int) -> str:
    """Return how much the relay sent twice, and out of order; empty where it did neither."""
    parts = (f"{repeated:,} sent again and passed over" if repeated else "", f"{late:,} out of order" if late else "")
    return ", ".join(filter(None, parts))


def plan_text(mode: str, days: int) -> str:
    """Return why a run began where it did: its mode, and what was asked for."""
    asked = "all that the relay keeps" if days < 0 else f"the last {days} day{'' if days == 1 else 's'}"
    return f"{mode}, asked for {asked}"


def ingest_mode(
    *,
    stopping: bool,
    paused: bool,
    planned: bool,
    memory: str | None,
    kafka_behind: bool,
    waits_for_group: bool,
    connected: bool,
    pace: tuple[Mode, str],
) -> tuple[Mode, str]:
    """Return an ingest's mode, and why: the first that is true, at last ``pace``. ``memory``: why it waits for some."""
    ways: tuple[tuple[bool, Mode, str], ...] = (
        (stopping, Mode.STOPPING, "it was told to stop"),
        (paused, Mode.PAUSED, "by the command pause; resume ends that, and the relay's window does not wait"),
        (not planned, Mode.STARTING, "it looks where the topic stands, and what the relay keeps"),
        (memory is not None, Mode.MEMORY, memory or ""),
        (kafka_behind, Mode.NO_BROKER, "Kafka has not acknowledged what was sent: the relay is not read"),
        (waits_for_group, Mode.RETENTION, "a slow group nears the topic's retention, and the disk is full"),
        (not connected, Mode.NO_RELAY, "it connects to the relay again"),
    )
    return next(((mode, why) for holds, mode, why in ways if holds), pace)


def machine_use(sample: MachineSample, judge: IdleJudge) -> MachineUse:
    """Return a sample and its judgement as other programs see them."""
    return MachineUse(
        others=round(sample.others, 3), idle=judge.idle, cores=sample.cores,
        memory_pressure=sample.memory_pressure, io_pressure=sample.io_pressure, top=sample.top,
    )  # fmt: skip
