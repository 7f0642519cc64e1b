"""The worker's web port: on loopback unless told otherwise, the next free one where it is taken."""

from __future__ import annotations

import errno
import logging
import socket
import warnings
from typing import Any, Final

import faust
from aiohttp.web import SockSite
from faust.exceptions import AlreadyConfiguredWarning

from streams.errors import SettingsError

log = logging.getLogger(__name__)

#: Ports that are tried, from the one that was asked for.
TRIES: Final = 100


def hold_port(host: str, port: int) -> socket.socket:
    """A socket that listens on the first free port from ``port``. Raises SettingsError where there is none.

    It listens at once, so that two workers that start together cannot both believe that the port is theirs.
    """
    for candidate in range(port, min(port + TRIES, 65536)):
        try:
            return socket.create_server((host, candidate), family=_family(host))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(f"The worker's web port cannot be opened on {host}: {error.strerror}.") from None
    raise SettingsError(f"The worker's web port: {port} and the {TRIES} after it are in use: set WORKER_WEB_PORT.")


def serve_on_free_port(app: faust.App) -> None:
    """Give the app's web server the first free port, and say so where it is another than asked for."""
    if not app.conf.web_enabled:
        return
    wanted = app.conf.web_port
    held = hold_port(app.conf.web_bind, wanted)
    port = held.getsockname()[1]
    if port != wanted:
        log.warning("The web port %d is in use: this worker's is %d.", wanted, port)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AlreadyConfiguredWarning)  # the banner has shown the other one
            app.conf.web_port = port
    web: Any = app.web
    web._transport_handlers = {"tcp": lambda: SockSite(web._runner, held)}


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
