"""The processes of this machine that work for us: every command of ours, and the Kafka and Postgres that we use here.

A Kafka or Postgres of the user's own works for us while we fill it. Were it taken for other work, we would wait for it,
it would rest, we would go on, and so on without end. All its work counts as ours, also work for somebody else.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from streams.environment.database_url import parse
from streams.errors import SettingsError
from streams.resources.process_table import PROC, Key, Table, read_command
from streams.resources.shares import with_children
from streams.settings import Settings

#: Seconds between two searches of all command lines and ports.
SEARCH_EVERY: Final = 30.0
_MODULE: Final = re.compile(r"streams(\.\w+)+")


class OwnProcesses:
    """The search for our processes. Call ``find`` with each new table; command lines and ports are read seldom."""

    def __init__(self, settings: Settings, proc: Path = PROC) -> None:
        self._settings = settings
        self._proc = proc
        self._roots: set[Key] = set()
        #: A process that was ours stays ours, also when its parent has ended.
        self._ours: set[Key] = set()
        #: Processes of the last table, and those whose command line was looked at.
        self._seen: set[Key] = set()
        self._looked_at: set[Key] = set()
        self._searched = float("-inf")
        #: True where servers of ours may run on this machine unseen, in other containers.
        self.has_unseen = False

    def find(self, table: Table) -> set[int]:
        """Return the pids of ourselves and all the others of ours, with their children."""
        now = time.monotonic()
        there = {process.key for process in table.values() if not process.is_kernel}
        if now - self._searched >= SEARCH_EVERY:
            self._searched = now
            self._roots = self._search(table)
            self._looked_at = there
        # A new process may be about to exec another command: it is looked at when it is seen for the second time.
        for key in (there & self._seen) - self._looked_at:
            if is_ours(read_command(key[0], self._proc)):
                self._roots.add(key)
        self._looked_at = (self._looked_at | self._seen) & there
        self._seen = there
        found = with_children(table, self._roots | self._ours)
        self._ours = {table[pid].key for pid in found}
        return found

    def _search(self, table: Table) -> set[Key]:
        """Return our commands, and the servers that serve us."""
        commands = {
            process.key: read_command(pid, self._proc) for pid, process in table.items() if not process.is_kernel
        }
        roots = {key for key, command in commands.items() if is_ours(command) or key[0] == os.getpid()}
        servers = self._servers()
        here = _own_addresses()
        ports = {port for host, port in servers if _resolved(host) & here}
        self.has_unseen = in_container() and any(
            ip_address(address).is_private for host, _ in servers for address in _resolved(host) - here
        )
        listeners = _listeners(ports)
        found = {key for key in commands if key[0] in set().union(*listeners.values())}
        if self.has_unseen or any(
            not any(is_server(commands[key]) for key in found if key[0] in pids) for pids in listeners.values()
        ):
            # Another user's, or what stands before a server: a pooler, a container's proxy. Or other containers', which
            # are seen from one that has the machine's processes (pid: host). Only names can tell.
            found |= {key for key, command in commands.items() if is_server(command)}
        return roots | found

    def _servers(self) -> list[tuple[str, int]]:
        """Return the addresses of our Kafka and Postgres."""
        addresses = []
        with contextlib.suppress(SettingsError, ValueError):
            addresses += server_addresses(self._settings.bootstrap_servers(), 9092)
        with contextlib.suppress(SettingsError, ValueError):
            addresses += parse(self._settings.database_dsn()).reached
        return addresses


def is_ours(command: Sequence[str]) -> bool:
    """Return True for a command line of ours: ``-m streams.something`` or ``-A streams.agents``."""
    pairs = itertools.pairwise(command)
    return any(
        (flag == "-m" and _MODULE.fullmatch(name) is not None) or (flag in ("-A", "--app") and name == "streams.agents")
        for flag, name in pairs
    )


def is_server(command: Sequence[str]) -> bool:
    """Return True for a command line of Postgres or Kafka; a Postgres backend shows ``postgres: …`` in one word."""
    program = command[0].partition(":")[0].rpartition("/")[2] if command else ""
    return program in ("postgres", "postmaster") or "kafka.Kafka" in command


def server_addresses(text: str, default_port: int) -> list[tuple[str, int]]:
    """Return the hosts and ports in ``host:port,host:port``; a host that is left out is this machine."""
    found = []
    for server in text.split(","):
        parts = urlsplit(f"//{server.strip()}")
        found.append((parts.hostname or "localhost", parts.port or default_port))
    return found


def in_container(mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Return True if our root is a container's: layers on top of one another."""
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


def _listeners(ports: set[int]) -> dict[int, set[int]]:
    """Return the processes that listen on each of these ports, as far as we may see them."""
    found: dict[int, set[int]] = {port: set() for port in ports}
    if not ports:
        return found
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:  # macOS, without rights
        return found
    for connection in connections:
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port in ports and connection.pid is not None:
            found[address.port].add(connection.pid)
    return found
