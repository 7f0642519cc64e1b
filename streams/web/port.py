"""A web port: on loopback unless told otherwise, the next free one where it is taken."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Final

from streams.errors import SettingsError

log = logging.getLogger(__name__)

#: Ports that are tried, from the one that was asked for.
TRIES: Final = 100


def hold_port(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens on the first free port from ``port``. Raises SettingsError where there is none.

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
    raise SettingsError(f"The web port: {port} and the {TRIES} after it are in use: set {setting}.")


def address(held: socket.socket) -> str:
    """``http://host:port`` of a socket that listens."""
    host, port = held.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(held: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    host = str(held.getsockname()[0])
    return host == "::1" or host.startswith("127.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
