"""Samples of the machine: what others use of its cores and disks, what waits for memory, and our own memory.

"Others" are all processes but ours (``own_processes.py``). In a container with a CPU quota the cores are the quota, and
whoever else spends it is another, too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from streams.ops.cgroups import find_cgroups
from streams.ops.idleness import Sample
from streams.ops.own_processes import OwnProcesses
from streams.ops.pressure import pressure
from streams.settings import Settings

log = logging.getLogger(__name__)

#: What is left of a second's disk bytes a second later: about ten seconds count, as in the kernel's pressure.
_FADE: Final = 0.9

#: What servers of ours we cannot see (in other containers) use for each of our CPU seconds, at most (README: Speed).
UNSEEN: Final = 1.5

#: What processes have used, by pid and start time: a pid may be used again.
Usage = Mapping[tuple[int, float], float]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Counters at one moment: CPU seconds and disk bytes since their beginnings; ``at`` monotonic, ``wall`` not."""

    at: float
    wall: float
    busy: float
    cpu: Usage
    in_quota: float | None
    disks: float | None
    io: Usage | None


class Machine:
    """Call ``sample`` about once a second, from a thread: it takes some ms."""

    def __init__(self, settings: Settings) -> None:
        self._own = OwnProcesses(settings)
        self._self = psutil.Process()
        self._cgroups = find_cgroups()
        self._quota = self._cgroups.quota()
        self._last: _Reading | None = None
        self._disk_bytes = self._our_bytes = 0.0

    def rss(self) -> int:
        """This process's resident memory, in bytes."""
        return int(self._self.memory_info().rss)

    @property
    def cores(self) -> float:
        """The cores that we may use."""
        usable = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1)
        return min(usable, self._quota.cores) if self._quota is not None else usable

    def sample(self) -> Sample:
        """What happened since the last call. A machine of which nothing is known, as at the first, counts as busy."""
        try:
            last, now = self._last, self._read()
        except (psutil.Error, OSError, ValueError) as error:
            log.debug("The machine cannot be looked at: %r", error)
            return Sample(1.0, self.cores)
        self._last = now
        memory, io = pressure("memory", self._cgroups), pressure("io", self._cgroups)
        if last is None or now.at <= last.at:
            return Sample(1.0, self.cores, memory, io)
        return Sample(self._others(last, now), self.cores, memory, io, self._our_io(last, now))

    def _others(self, last: _Reading, now: _Reading) -> float:
        seconds, ours = now.at - last.at, spent(last.cpu, now.cpu, last.wall)
        unseen = ours * UNSEEN if self._own.has_unseen else 0.0
        shares = [(now.busy - last.busy - ours - unseen) / (seconds * (psutil.cpu_count() or 1))]
        if self._quota is not None and now.in_quota is not None and last.in_quota is not None:
            shares.append((now.in_quota - last.in_quota - ours) / (seconds * self._quota.cores))
        return min(1.0, max(0.0, *shares))

    def _our_io(self, last: _Reading, now: _Reading) -> float | None:
        if now.disks is None or last.disks is None or now.io is None or last.io is None:
            return None
        self._disk_bytes = self._disk_bytes * _FADE + now.disks - last.disks
        self._our_bytes = self._our_bytes * _FADE + spent(last.io, now.io, last.wall)
        return min(1.0, self._our_bytes / self._disk_bytes) if self._disk_bytes > 0 else None

    def _read(self) -> _Reading:
        cpu: dict[tuple[int, float], float] = {}
        io: dict[tuple[int, float], float] | None = {}
        for process in self._own.find():
            try:
                key = process.pid, process.create_time()
                times = process.cpu_times()
                cpu[key] = times.user + times.system
                if io is not None:
                    counters = process.io_counters()
                    io[key] = float(counters.read_bytes + counters.write_bytes)
            except psutil.NoSuchProcess:
                continue
            except (psutil.Error, OSError, AttributeError):  # another user's server, or no such counters here
                io = None
        in_quota = self._quota.used() if self._quota is not None else None
        return _Reading(time.monotonic(), time.time(), _busy_seconds(), cpu, in_quota, disk_bytes(), io)


def resident() -> int:
    """This process's resident memory, in bytes."""
    return int(psutil.Process().memory_info().rss)


def spent(before: Usage, after: Usage, since: float) -> float:
    """What was used between two readings, the first of which was at ``since`` (wall clock).

    A process that began after it has used all that it has meanwhile; one that is older and was not known then: nothing.
    """
    return sum(max(0.0, used - before.get(key, 0.0 if key[1] >= since - 1.0 else used)) for key, used in after.items())


def _busy_seconds() -> float:
    """CPU seconds of the machine that were neither idle nor waiting for a disk (guests are in ``user``)."""
    times = psutil.cpu_times()
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(float(getattr(times, kind, 0.0)) for kind in kinds)


def disk_bytes(block: Path = Path("/sys/block")) -> float | None:
    """Bytes that the disks have moved, each once: not those of devices on top of others (LVM). None off Linux."""
    try:
        devices = [device for device in block.iterdir() if not device.name.startswith(("loop", "ram", "zram"))]
        sectors = 0
        for device in devices:
            slaves = device / "slaves"
            if not (slaves.is_dir() and any(slaves.iterdir())):
                fields = (device / "stat").read_text().split()
                sectors += int(fields[2]) + int(fields[6])
    except (OSError, ValueError, IndexError):
        return None
    return sectors * 512.0
