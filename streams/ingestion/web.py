"""An ingest's side of its web port: with the figures that an ingest has anyway."""

from __future__ import annotations

from typing import Protocol

import structlog

from streams.settings import Settings
from streams.status.process import IngestState
from streams.status.reader import status_reader
from streams.ui.web.figures import IngestFigures
from streams.ui.web.port import address, elsewhere, hold_port
from streams.ui.web.server import WebServer

log = structlog.get_logger("streams.ingest")


class Counts(Protocol):
    """What an intake counts."""

    nbytes: int
    dead: int
    dead_operations: int
    text: int


class Replay(Protocol):
    """What is asked of an ingest."""

    started: bool

    @property
    def connections(self) -> int:
        """Connections to the relay so far."""

    @property
    def counts(self) -> Counts:
        """What was taken in."""

    @property
    def at_head(self) -> bool:
        """Whether the relay's head, as it was at the start, is reached."""

    @property
    def unacknowledged(self) -> int:
        """Bytes that Kafka has not acknowledged."""

    def state(self) -> IngestState:
        """The ingest now."""


class IngestWeb:
    """The web port of one ingest; ``replay`` is what it shows, once there is one. Raises SettingsError."""

    def __init__(self, settings: Settings) -> None:
        self.replay: Replay | None = None
        self._held = hold_port(settings.ingest_web_bind, settings.ingest_web_port, "INGEST_WEB_PORT")
        self._server = WebServer(self._held, self.figures, lambda: status_reader(settings))

    @property
    def address(self) -> str:
        """Where the page is."""
        return address(self._held)

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        more = elsewhere(self._held)
        log.info("live page, metrics and health", address=self.address, **({} if more is None else {"reach": more}))

    async def close(self) -> None:
        """Close the port."""
        await self._server.close()

    def figures(self) -> IngestFigures:
        """The ingest now."""
        replay = self.replay
        if replay is None:
            return IngestFigures(None, "it waits for Kafka")
        counts = replay.counts
        if not replay.started:
            return IngestFigures(None, "it makes its plan, or waits while another ingest holds the topic")
        return IngestFigures(
            state=replay.state(),
            received_bytes=counts.nbytes,
            reconnects=max(replay.connections - 1, 0),
            unacknowledged=replay.unacknowledged,
            at_head=replay.at_head,
            dead={
                "frame": counts.dead - counts.dead_operations - counts.text,
                "operation": counts.dead_operations,
                "text": counts.text,
            },
        )
