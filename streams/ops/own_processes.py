"""Which processes of this machine work for us: every command of ours, and the Kafka and Postgres that we use here.

A Kafka or Postgres of the user's own works for us while we fill it. Were it taken for other work, we would wait for it,
it would rest, we would go on, and so on for ever. All its work counts as ours, also what it does for somebody else.
"""

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from streams.errors import SettingsError
from streams.settings import Settings

#: Seconds between two searches of all processes, and between two looks for new children.
SEARCH_EVERY: Final = 30.0
CHILDREN_EVERY: Final = 3.0
_MODULE: Final = re.compile(r"streams(\.\w+)+")


class OwnProcesses:
    """Call ``find`` as often as you like: it searches only now and then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._roots: set[int] = set()
        self._found: list[psutil.Process] = []
        #: Every process, and its parent: psutil gives the same object for the same process.
        self._parents: dict[int, tuple[psutil.Process, int]] = {}
        self._searched = self._looked = float("-inf")
        #: Whether servers of ours may run on this machine where we cannot see them: in other containers.
        self.has_unseen = False

    def find(self) -> list[psutil.Process]:
        """Ourselves and all the others, with their children."""
        now = time.monotonic()
        if now - self._searched >= SEARCH_EVERY:
            self._searched, self._looked = now, float("-inf")
            self._roots = self._search()
        if now - self._looked >= CHILDREN_EVERY:
            self._looked = now
            self._found = self._with_children()
        return self._found

    def _with_children(self) -> list[psutil.Process]:
        """The roots and all below them. Who is whose child is asked once for each process: that is what costs."""
        known, self._parents = self._parents, {}
        children: dict[int, list[int]] = {}
        for process in psutil.process_iter():
            before = known.get(process.pid)
            try:
                parent = before[1] if before is not None and before[0] is process else process.ppid()
            except psutil.Error:
                continue
            self._parents[process.pid] = process, parent
            children.setdefault(parent, []).append(process.pid)
        found: set[int] = set()
        ahead = [pid for pid in self._roots if pid in self._parents]
        while ahead:
            pid = ahead.pop()
            if pid not in found:
                found.add(pid)
                ahead += children.get(pid, ())
        return [self._parents[pid][0] for pid in found]

    def _search(self) -> set[int]:
        commands = {process.pid: _command(process) for process in psutil.process_iter()}
        roots = {pid for pid, command in commands.items() if is_ours(command)} | {psutil.Process().pid}
        servers = self._servers()
        here = _own_addresses()
        ports = {port for host, port in servers if _resolved(host) & here}
        self.has_unseen = in_container() and any(
            ip_address(address).is_private for host, _ in servers for address in _resolved(host) - here
        )
        listeners, hidden = _listeners(ports)
        if hidden:  # another user's: only their names can tell
            roots |= {pid for pid, command in commands.items() if is_server(command)}
        return roots | listeners

    def _servers(self) -> list[tuple[str, int]]:
        """Where Kafka and Postgres serve us."""
        addresses = []
        for ask, default in ((self._settings.bootstrap_servers, 9092), (self._settings.database_dsn, 5432)):
            try:
                addresses += server_addresses(ask(), default)
            except (SettingsError, ValueError):
                continue
        return addresses


def is_ours(command: Sequence[str]) -> bool:
    """Whether a command line is one of ours: ``-m streams.something`` or ``-A streams.agents``."""
    pairs = itertools.pairwise(command)
    return any(
        (flag == "-m" and _MODULE.fullmatch(name) is not None) or (flag in ("-A", "--app") and name == "streams.agents")
        for flag, name in pairs
    )


def is_server(command: Sequence[str]) -> bool:
    """Whether a command line is Postgres' or Kafka's; a Postgres backend shows ``postgres: …`` in one word."""
    program = command[0].partition(":")[0].rpartition("/")[2] if command else ""
    return program in ("postgres", "postmaster") or "kafka.Kafka" in command


def server_addresses(text: str, default_port: int) -> list[tuple[str, int]]:
    """Hosts and ports in ``host:port,host:port`` or in a URL; a host that is left out is this machine."""
    servers = urlsplit(text).netloc.rpartition("@")[2] if "://" in text else text
    found = []
    for server in servers.split(","):
        parts = urlsplit(f"//{server.strip()}")
        found.append((parts.hostname or "localhost", parts.port or default_port))
    return found


def in_container(mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether our root is a container's: layers on top of one another."""
    try:
        lines = [line.split(" - ") for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    return any(len(parts) == 2 and parts[0].split()[4:5] == ["/"] and parts[1].startswith("overlay") for parts in lines)


def _resolved(host: str) -> set[str]:
    try:
        return {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _own_addresses() -> set[str]:
    return {address.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for address in addresses}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _listeners(ports: set[int]) -> tuple[set[int], bool]:
    """The processes that listen on these ports, and whether there are some that we may not see."""
    if not ports:
        return set(), False
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:  # macOS, without rights
        return set(), True
    listening = [c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port in ports]
    return {pid for pid in listening if pid is not None}, None in listening
