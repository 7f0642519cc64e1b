"""The judgement if the machine is idle but for us. Pure: samples in, a judgement with hysteresis and its reason out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streams.resources.others import Other, others_in_words


@dataclass(frozen=True, slots=True)
class MachineSample:
    """The work on the machine since the sample before.

    ``others``: the share (0 to 1) of the cores, or of the container's quota, that others used; ``top``: who they are.
    The pressures are percent of the last ten seconds; None where the kernel does not say. ``our_io``: our share of the
    bytes that the disks moved of late; None where it cannot be known. Without ``is_known`` nothing is known of others.
    """

    others: float
    cores: float = 1.0
    memory_pressure: float | None = None
    io_pressure: float | None = None
    our_io: float | None = None
    top: tuple[Other, ...] = ()
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class _Rule:
    """Above ``busy`` the machine is busy, below ``idle`` it may be idle; in between it stays what it was."""

    busy: float
    idle: float


#: The reason before there is a sample.
NOT_KNOWN: Final = "whether the machine is idle is not known yet"
#: Of all cores.
CPU: Final = _Rule(0.20, 0.10)
#: Percent of the time in which something waited for memory: whoever causes it, we make it worse.
MEMORY: Final = _Rule(10.0, 5.0)
#: Percent of the time in which something waited for a disk that others keep busy.
DISK: Final = _Rule(40.0, 20.0)
#: With this share of the disks' bytes, or more, we are the ones who keep them busy.
OUR_DISK: Final = 0.5


class IdleJudge:
    """A judge: busy after TO_BUSY busy samples in a row; idle after TO_IDLE idle ones, at first.

    An idleness that lasted less than SETTLED samples may have been ended by our own work where we do not know it as
    ours (a database in another container): each such time the next takes twice as many samples, up to MOST_TO_IDLE.
    """

    TO_BUSY, TO_IDLE, MOST_TO_IDLE, SETTLED = 2, 3, 48, 30

    def __init__(self) -> None:
        self.idle = False
        self._against = 0
        self._idle_for = 0
        self._to_idle = self.TO_IDLE

    def sample(self, sample: MachineSample) -> bool:
        """Take in one sample; return the judgement."""
        against = _is_busy(sample) if self.idle else _is_idle(sample)
        self._against = self._against + 1 if against else 0
        if not self.idle:
            if self._against >= self._to_idle:
                self.idle, self._against, self._idle_for = True, 0, 0
            return self.idle
        self._idle_for += 1
        if self._idle_for >= self.SETTLED:
            self._to_idle = self.TO_IDLE
        if self._against >= self.TO_BUSY:
            if self._idle_for < self.SETTLED:
                self._to_idle = min(self.MOST_TO_IDLE, self._to_idle * 2)
            self.idle, self._against = False, 0
        return self.idle


def _is_busy(sample: MachineSample) -> bool:
    memory, disk = sample.memory_pressure, _others_disk(sample)
    return sample.others > CPU.busy or (memory is not None and memory > MEMORY.busy) or disk > DISK.busy


def _is_idle(sample: MachineSample) -> bool:
    memory, disk = sample.memory_pressure, _others_disk(sample)
    return sample.others < CPU.idle and (memory is None or memory < MEMORY.idle) and disk < DISK.idle


def _others_disk(sample: MachineSample) -> float:
    """Return the pressure on the disks that others cause; 0 where it is ours, or where that is not known."""
    if sample.io_pressure is None or sample.our_io is None or sample.our_io >= OUR_DISK:
        return 0.0
    return sample.io_pressure


def reason(sample: MachineSample) -> str:
    """Return what stands out in a sample, in words."""
    if not sample.is_known:
        return NOT_KNOWN
    if sample.others < CPU.idle:
        if sample.memory_pressure is not None and sample.memory_pressure >= MEMORY.idle:
            return f"memory is short for {sample.memory_pressure:.0f} % of the time"
        if _others_disk(sample) >= DISK.idle:
            return f"others keep the disk waiting for {sample.io_pressure:.0f} % of the time"
    return others_in_words(sample.others, sample.top)
