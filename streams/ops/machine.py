"""The machine we run on: how much of it others use, and how much memory this process has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from streams.settings import read_stack_state

#: Seconds between two searches for the embedded stack's processes.
STACK_EVERY: Final = 30.0

#: CPU seconds of processes, by pid and start time: a pid may be used again.
Usage = Mapping[tuple[int, float], float]


class Machine:
    """Samples of this machine. Our process tree and the embedded stack are not "others"."""

    def __init__(self, local_dir: Path) -> None:
        self._local_dir = local_dir
        self._self = psutil.Process()
        self._stack: list[psutil.Process] = []
        self._stack_at = float("-inf")
        self._last: tuple[float, float, Usage] | None = None

    def rss(self) -> int:
        """This process's resident memory, in bytes."""
        return int(self._self.memory_info().rss)

    def sample(self) -> float:
        """The share (0 to 1) of all cores that others have used since the last call; 1.0 at the first. Some ms."""
        now, busy, ours = time.monotonic(), _busy_seconds(), self._our_usage()
        last, self._last = self._last, (now, busy, ours)
        if last is None or now <= last[0]:
            return 1.0
        cores = psutil.cpu_count() or 1
        others = busy - last[1] - spent(last[2], ours)
        return min(1.0, max(0.0, others / ((now - last[0]) * cores)))

    def _our_usage(self) -> Usage:
        if time.monotonic() - self._stack_at > STACK_EVERY:
            self._stack_at = time.monotonic()
            self._stack = list(_listeners(self._stack_ports()))
        usage: dict[tuple[int, float], float] = {}
        for root in (self._self, *self._stack):
            for process in _tree(root):
                try:
                    times = process.cpu_times()
                    usage[process.pid, process.create_time()] = times.user + times.system
                except psutil.Error:
                    continue
        return usage

    def _stack_ports(self) -> set[int]:
        state = read_stack_state(self._local_dir) or {}
        ports = {urlsplit(f"//{state.get('kafka_bootstrap_servers', '')}").port}
        ports.add(urlsplit(state.get("database_url", "")).port)
        return {port for port in ports if port is not None}


def resident() -> int:
    """This process's resident memory, in bytes."""
    return int(psutil.Process().memory_info().rss)


def spent(before: Usage, after: Usage) -> float:
    """CPU seconds spent between two usages; a process that is new has spent all that it has."""
    return sum(max(0.0, seconds - before.get(key, 0.0)) for key, seconds in after.items())


def _busy_seconds() -> float:
    """CPU seconds of the machine that were neither idle nor waiting for a disk (guests are in ``user``)."""
    times = psutil.cpu_times()
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(float(getattr(times, kind, 0.0)) for kind in kinds)


def _tree(root: psutil.Process) -> Iterable[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _listeners(ports: set[int]) -> Iterable[psutil.Process]:
    """The processes that listen on these ports, as far as we may see them."""
    if not ports:
        return
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return
    for pid in {c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port in ports}:
        try:
            if pid is not None:
                yield psutil.Process(pid)
        except psutil.Error:
            continue
