"""A worker's web port, in the place of Faust's own."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable

import faust

from streams.settings import Settings
from streams.status.reader import status_reader
from streams.ui.web.figures import WorkerFigures
from streams.ui.web.port import address, elsewhere, hold_port
from streams.ui.web.server import WebServer

log = logging.getLogger(__name__)


class WorkerWeb:
    """The web port of one worker; ``start`` it, then ``close`` it.

    It takes the port that the command line or the settings name, and keeps Faust's own server away. Raises
    SettingsError. ``ask_database`` raises where the database does not answer, or waits until it does.
    """

    def __init__(
        self,
        app: faust.App,
        settings: Settings,
        figures: Callable[[], WorkerFigures],
        ask_database: Callable[[], Awaitable[None]],
    ) -> None:
        self._held: socket.socket | None = None
        self._server: WebServer | None = None
        if app.conf.web_enabled:
            self._held = hold_port(app.conf.web_bind, app.conf.web_port, "WORKER_WEB_PORT")
            self._server = WebServer(self._held, figures, lambda: status_reader(settings), ask_database)
        app.boot_strategy.enable_web = False

    @property
    def address(self) -> str | None:
        """The page's address; None with ``--without-web``."""
        return address(self._held) if self._held is not None else None

    async def start(self) -> None:
        """Serve, and log the address."""
        if self._server is not None and self._held is not None:
            await self._server.start()
            more = elsewhere(self._held)
            log.info(
                "[BACKFILL] Live page, metrics and health: %s%s", self.address, "" if more is None else f" ({more})"
            )

    async def close(self) -> None:
        """Close the port."""
        if self._server is not None:
            await self._server.close()
