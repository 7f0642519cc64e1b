"""The kernel's figures of a process: CPU seconds, peak memory, and what kind of Postgres process it is. Linux only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: In /proc/PID/stat, counted from behind the name: parent, user, system, children's user and system time, start.
_PARENT, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM, _START = 1, 11, 12, 13, 14, 19

#: Beginnings of the titles that Postgres' processes give themselves, and the kind of each. All others are backends.
_POSTGRES_TITLES: Final = (
    ("autovacuum", "autovacuum"),
    ("checkpointer", "checkpointer"),
    ("walwriter", "WAL writer"),
    ("background writer", "other"),
    ("io worker", "other"),
    ("logical replication", "other"),
    ("logger", "other"),
    ("archiver", "other"),
    ("startup", "other"),
)
#: What ``postgres_kind`` can answer, in the order of the tables.
POSTGRES_KINDS: Final = ("backend", "autovacuum", "checkpointer", "WAL writer", "other")


class Times(NamedTuple):
    """One process: its parent, its start (which tells two with one pid apart), and its CPU seconds.

    ``children`` are the seconds of those of its children that have ended and were waited for.
    """

    parent: int
    start: int
    own: float
    children: float


def parse_times(stat: str) -> Times:
    """Return what /proc/PID/stat says. The name stands in brackets, and may hold spaces and brackets itself."""
    fields = stat[stat.rindex(")") + 2 :].split()
    own = int(fields[_USER]) + int(fields[_SYSTEM])
    children = int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])
    return Times(int(fields[_PARENT]), int(fields[_START]), own / _TICKS, children / _TICKS)


def parse_memory(status: str, name: str) -> int | None:
    """Return VmRSS or VmHWM of /proc/PID/status in bytes; None of a process that has ended."""
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def postgres_kind(title: str) -> str:
    """Return the kind of a child of the postmaster by its title, such as ``postgres: checkpointer``."""
    rest = title.removeprefix("postgres: ")
    return next((kind for beginning, kind in _POSTGRES_TITLES if rest.startswith(beginning)), "backend")


def read_times(pid: int) -> Times | None:
    """Return a process' times, or None where it is gone."""
    try:
        return parse_times((PROC / str(pid) / "stat").read_text())
    except (OSError, ValueError):
        return None


def read_title(pid: int) -> str:
    """Return a process' command line, or what it calls itself instead; empty where it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def read_memory(pid: int, name: str) -> int | None:
    """Return a process' VmRSS or VmHWM in bytes, or None where it is gone."""
    try:
        return parse_memory((PROC / str(pid) / "status").read_text(), name)
    except OSError:
        return None


class Member(NamedTuple):
    """A living descendant of a family's root: its kind, and its CPU seconds with those of its ended children."""

    kind: str
    seconds: float


class FamilySample(NamedTuple):
    """A process and its living descendants at one moment. ``ended``: seconds of its children that have ended."""

    own: float
    ended: float
    #: By pid and start.
    members: dict[tuple[int, int], Member]


def sample_family(root: int, kind_of: Callable[[int], str]) -> FamilySample | None:
    """Return the state of a process and its descendants now, or None where it is gone."""
    times = read_times(root)
    if times is None:
        return None
    members = {
        (pid, found.start): Member(kind_of(pid), found.own + found.children) for pid, found in _descendants(root)
    }
    return FamilySample(times.own, times.children, members)


def _descendants(root: int) -> Iterator[tuple[int, Times]]:
    for pid in _children(root):
        found = read_times(pid)
        if found is not None:
            yield pid, found
            yield from _descendants(pid)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in (PROC / str(pid) / "task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found
