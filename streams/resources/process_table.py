"""The processes of this machine, and the CPU time of each: one look at ``/proc`` (6 ms for 700 processes).

Linux says of a process what it has used itself, and what its children had used that have ended and were waited for. So
nothing is lost of a process that comes and goes between two looks: its parent has it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import psutil

PROC: Final = Path("/proc")
#: PF_KTHREAD of the kernel's flags.
_KERNEL_THREAD: Final = 0x00200000
#: The kernel's unit of CPU time, in parts of a second.
_TICKS: Final = os.sysconf("SC_CLK_TCK")

#: A process is named by its pid and the time of its start, because a pid may be used again. Any unit of time will do.
Key = tuple[int, int]


class ProcessEntry(NamedTuple):
    """A process. ``used``: CPU seconds of its own; ``reaped``: of its children that it has waited for."""

    key: Key
    parent: int
    name: str
    used: float
    reaped: float
    is_kernel: bool


Table = Mapping[int, ProcessEntry]


class ProcessTable:
    """The processes that can be seen. One of which nothing has changed since the last look is the same object."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._lines: dict[str, tuple[bytes, ProcessEntry | None]] = {}

    def read(self) -> Table:
        """Return the processes as they are now, by pid. Raises OSError where they cannot be listed."""
        if not (self._proc / "stat").is_file():
            return _elsewhere()
        before, self._lines = self._lines, {}
        with os.scandir(self._proc) as entries:
            for entry in entries:
                if entry.name.isdigit():
                    line = _read(f"{entry.path}/stat")
                    known = before.get(entry.name)
                    self._lines[entry.name] = known if known and known[0] == line else (line, parse_stat(line))
        return {process.key[0]: process for _, process in self._lines.values() if process is not None}


def read_command(pid: int, proc: Path = PROC) -> list[str]:
    """Return a process's command line; empty where it cannot be read."""
    if not (proc / "stat").is_file():
        try:
            return psutil.Process(pid).cmdline()
        except psutil.Error:
            return []
    return [word.decode(errors="replace") for word in _read(proc / str(pid) / "cmdline").split(b"\0") if word]


def read_io_bytes(pid: int, proc: Path = PROC) -> float | None:
    """Return the bytes that a process has moved to and from disks; None where that may not be known."""
    found = dict(line.split(b": ") for line in _read(proc / str(pid) / "io").splitlines() if b": " in line)
    try:
        return float(found[b"read_bytes"]) + float(found[b"write_bytes"])
    except (KeyError, ValueError):
        return None


def read_machine(proc: Path = PROC) -> tuple[float, int]:
    """Return the CPU seconds that the machine has worked, and its cores; guests are in ``user``. Raises ValueError.

    Without ``steal``: what the hypervisor withholds is nobody's work here.
    """
    if not (proc / "stat").is_file():
        times = psutil.cpu_times()
        return float(times.user + times.system + getattr(times, "nice", 0.0)), psutil.cpu_count() or 1
    lines = _read(proc / "stat").split(b"\n")
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, lines[0].split()[1:9])
    whole = user + nice + system + idle + iowait + irq + softirq + steal
    cores = sum(line[:3] == b"cpu" and line[3:4].isdigit() for line in lines)
    return (whole - idle - iowait - steal) / _TICKS, max(1, cores)


def parse_stat(line: bytes) -> ProcessEntry | None:
    """Read a line of ``/proc/PID/stat``; return None where it is not one. The name may hold spaces and brackets."""
    begin, end = line.find(b"("), line.rfind(b")")
    fields = line[end + 2 :].split(None, 20)
    try:
        used, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        return ProcessEntry(
            (int(line[:begin]), int(fields[19])), int(fields[1]), line[begin + 1 : end].decode(errors="replace"),
            used / _TICKS, reaped / _TICKS, bool(int(fields[6]) & _KERNEL_THREAD),
        )  # fmt: skip
    except (ValueError, IndexError):
        return None


def _read(file: Path | str) -> bytes:
    """Return what one read gives: these files are small. Empty where the process is gone."""
    try:
        handle = os.open(file, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(handle, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(handle)


def _elsewhere() -> Table:
    """Return the table where there is no ``/proc``."""
    table = {}
    for process in psutil.process_iter(["pid", "ppid", "name", "create_time", "cpu_times"]):
        info, times = process.info, process.info["cpu_times"]
        if times is not None:
            reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            table[info["pid"]] = ProcessEntry(
                (info["pid"], int((info["create_time"] or 0) * 100)), info["ppid"] or 0, info["name"] or "",
                times.user + times.system, reaped, False,
            )  # fmt: skip
    return table
