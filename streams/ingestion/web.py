"""The ingest's web port, filled with the figures that the session has anyway."""

from __future__ import annotations

import structlog

from streams.ingestion.session import IngestSession
from streams.settings import Settings
from streams.status.reader import status_reader
from streams.ui.web.figures import IngestFigures
from streams.ui.web.port import address, elsewhere, hold_port
from streams.ui.web.server import WebServer

log = structlog.get_logger("streams.ingest")


class IngestWeb:
    """The web port of one ingest. It shows ``session`` once there is one. Raises SettingsError."""

    def __init__(self, settings: Settings) -> None:
        self.session: IngestSession | None = None
        self._held = hold_port(settings.ingest_web_bind, settings.ingest_web_port, "INGEST_WEB_PORT")
        self._server = WebServer(self._held, self.figures, lambda: status_reader(settings))

    @property
    def address(self) -> str:
        """Return the page's address."""
        return address(self._held)

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()
        more = elsewhere(self._held)
        log.info("live page, metrics and health", address=self.address, **({} if more is None else {"reach": more}))

    async def close(self) -> None:
        """Close the port."""
        await self._server.close()

    def figures(self) -> IngestFigures:
        """Return the ingest's figures of now."""
        session = self.session
        if session is None:
            return IngestFigures(None, "it waits for Kafka")
        counts = session.counts
        if not session.started:
            return IngestFigures(None, "it makes its plan, or waits while another ingest holds the topic")
        return IngestFigures(
            state=session.state(),
            received_bytes=counts.nbytes,
            reconnects=max(session.connections - 1, 0),
            unacknowledged=session.unacknowledged,
            at_head=session.at_head,
            dead={
                "frame": counts.dead - counts.dead_operations - counts.text,
                "operation": counts.dead_operations,
                "text": counts.text,
            },
        )
