"""Samples of the machine: the use of its cores and disks by others, the wait for memory, and our own memory.

"Others" are the processes of this machine that are not ours (``own_processes.py``): what they use we could take from
them. What a hypervisor withholds (``steal``) is not theirs: it grows with our own work, and waiting frees nothing.
Where not all processes can be seen (a container), the machine's work less ours stands for them. In a container with a
CPU quota the cores are the quota, and whoever else spends it is another, too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from streams.resources.cgroups import Cgroups, find_cgroups
from streams.resources.idleness import MachineSample
from streams.resources.others import Other
from streams.resources.own_processes import OwnProcesses
from streams.resources.pressure import pressure
from streams.resources.process_table import PROC, Key, ProcessTable, Table, read_io_bytes, read_machine
from streams.resources.shares import NOT_SEEN, by_name, largest, spent
from streams.settings import Settings

log = logging.getLogger(__name__)

#: The weight of a second's disk bytes a second later: about ten seconds count, as in the kernel's pressure.
_FADE: Final = 0.9

#: Upper bound of the CPU that our servers in other containers, unseen from here, use per CPU second of ours.
UNSEEN: Final = 1.5
#: Seconds between two looks at the memory and at the machine.
SAMPLE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Counters:
    """Counters at one moment (monotonic): CPU seconds and disk bytes since their beginnings; ``own``: pids of ours."""

    at: float
    table: Table
    own: frozenset[int]
    busy: float
    cores: int
    in_quota: float | None
    disks: float | None
    io: dict[Key, float] | None


class Machine:
    """The machine. Call ``sample`` about once a second, from a thread: it takes some ms."""

    def __init__(
        self, settings: Settings, proc: Path = PROC, cgroups: Cgroups | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._proc = proc
        self._clock = clock
        self._table = ProcessTable(proc)
        self._own = OwnProcesses(settings, proc)
        self._self = psutil.Process()
        self._cgroups = cgroups if cgroups is not None else find_cgroups()
        self._quota = self._cgroups.quota()
        self._last: _Counters | None = None
        self._disk_bytes = self._our_bytes = 0.0

    def rss(self) -> int:
        """Return this process's resident memory, in bytes."""
        return int(self._self.memory_info().rss)

    @property
    def cores(self) -> float:
        """The cores that we may use."""
        usable = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1)
        return min(usable, self._quota.cores) if self._quota is not None else usable

    def sample(self) -> MachineSample:
        """Return what happened since the last call. A machine of which nothing is known, as at the first, is busy."""
        try:
            last, now = self._last, self._read()
        except (psutil.Error, OSError, ValueError) as error:
            log.debug("The machine cannot be looked at: %r", error)
            return MachineSample(1.0, self.cores, is_known=False)
        self._last = now
        memory, io = pressure("memory", self._cgroups), pressure("io", self._cgroups)
        if last is None or now.at <= last.at:
            return MachineSample(1.0, self.cores, memory, io, is_known=False)
        others, top = self._others(last, now)
        return MachineSample(others, self.cores, memory, io, self._our_io(last, now), top)

    def _others(self, last: _Counters, now: _Counters) -> tuple[float, tuple[Other, ...]]:
        """Return the share that others used, and who they are."""
        seconds, used = now.at - last.at, spent(last.table, now.table)
        ours = sum(used[pid] for pid in now.own if pid in used)
        names = by_name(now.table, used, now.own)
        seen, whole = sum(names.values()), seconds * now.cores
        share = seen / whole
        if not any(process.is_kernel for process in now.table.values()):  # a container's processes, or hidden ones
            unseen = ours * UNSEEN if self._own.has_unseen else 0.0
            share = max(share, (now.busy - last.busy - ours - unseen) / whole)
        if self._quota is not None and now.in_quota is not None and last.in_quota is not None:
            quota = seconds * self._quota.cores
            in_quota = (now.in_quota - last.in_quota - ours) / quota
            share, whole = (in_quota, quota) if in_quota > share else (share, whole)
        names[NOT_SEEN] = max(0.0, share * whole - seen)
        return min(1.0, share), largest(names, whole)

    def _our_io(self, last: _Counters, now: _Counters) -> float | None:
        if now.disks is None or last.disks is None or now.io is None or last.io is None:
            return None
        before = {process.key for process in last.table.values()}
        # A process that was there before and was not known as ours does not count: its bytes may be days old.
        ours = (moved - last.io.get(key, moved if key in before else 0.0) for key, moved in now.io.items())
        self._disk_bytes = self._disk_bytes * _FADE + now.disks - last.disks
        self._our_bytes = self._our_bytes * _FADE + sum(max(0.0, moved) for moved in ours)
        return min(1.0, self._our_bytes / self._disk_bytes) if self._disk_bytes > 0 else None

    def _read(self) -> _Counters:
        at, table = self._clock(), self._table.read()
        own = self._own.find(table)
        busy, cores = read_machine(self._proc)
        in_quota = self._quota.used() if self._quota is not None else None
        return _Counters(at, table, frozenset(own), busy, cores, in_quota, disk_bytes(), self._io(table, own))

    def _io(self, table: Table, own: set[int]) -> dict[Key, float] | None:
        """Return the bytes that each of ours has moved; None where one is another user's and may not be read."""
        found = {}
        for pid in own:
            moved = read_io_bytes(pid, self._proc)
            if moved is not None:
                found[table[pid].key] = moved
            elif (self._proc / str(pid)).exists():
                return None
        return found


def resident() -> int:
    """Return this process's resident memory, in bytes."""
    return int(psutil.Process().memory_info().rss)


def disk_bytes(block: Path = Path("/sys/block")) -> float | None:
    """Return the bytes that the disks have moved, without devices on top of others (LVM). None off Linux."""
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
