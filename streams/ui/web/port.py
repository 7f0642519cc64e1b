"""A web port: on loopback unless told otherwise, the next free one where it is taken."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from typing import Final

from streams.errors import SettingsError
from streams.resources.own_processes import in_container

log = logging.getLogger(__name__)

#: Ports that are tried, from the one that was asked for.
TRIES: Final = 100


def hold_port(host: str, port: int, setting: str) -> socket.socket:
    """Return a socket that listens on the first free port from ``port``. Raises SettingsError where there is none.

    It listens at once, so that two processes that start together cannot both believe that the port is theirs.
    ``setting`` is what to change where no port can be had.
    """
    for candidate in range(port, min(port + TRIES, 65536)):
        try:
            held = socket.create_server((host, candidate), family=_family(host))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(f"The web port cannot be opened on {host}: {error.strerror}.") from None
            continue
        if candidate != port:
            log.warning("The web port %d is in use: this process has %d.", port, candidate)
        return held
    raise SettingsError(f"The web port: {port} and the {TRIES} after it are in use", f"set {setting}.")


def address(held: socket.socket) -> str:
    """Return the ``http://host:port`` to open on this machine: loopback where it listens on all addresses."""
    host, port = held.getsockname()[:2]
    if _is_all(host):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def elsewhere(held: socket.socket, *, inside: bool | None = None) -> str | None:
    """Return from where else the port can be opened; None where ``address`` says it all. ``inside``: in a container.

    At which port of its machine a container's is published, no process in it can know.
    """
    host, port = held.getsockname()[:2]
    if not _is_all(host):
        return None
    if in_container() if inside is None else inside:
        return f"inside this container; outside of it, where its port {port} is published"
    return "and at every other address of this machine"


def is_loopback(held: socket.socket) -> bool:
    """Return True if only this machine can reach it."""
    host = str(held.getsockname()[0])
    return host == "::1" or host.startswith("127.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_all(host: str) -> bool:
    """Return True if a socket's address stands for all of the machine's (0.0.0.0, ::): nobody can open that."""
    return ipaddress.ip_address(host).is_unspecified
