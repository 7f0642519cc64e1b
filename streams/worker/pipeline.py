"""One worker's pipeline as the module of the app makes it: the tables are declared, nothing runs.

It is made at import, for every command, so it touches neither broker nor database, and imports nothing of what runs.
``streams/worker/checks.py`` reaches both and makes the ``RunningPipeline``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import faust

from streams.settings import Settings
from streams.tables import Tables

if TYPE_CHECKING:  # a worker alone needs it: with the web port, the sink and the transport
    from streams.worker.running import RunningPipeline


class Pipeline:
    """A worker's pipeline before its checks; ``running`` after them."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.tables = Tables(app, settings.kafka_topic, settings.kafka_partitions)
        self._running: RunningPipeline | None = None

    @property
    def running(self) -> RunningPipeline:
        """The pipeline that the checks have made. Faust starts nothing that asks for it before that."""
        assert self._running is not None, "asked for before the checks were over"
        return self._running

    @running.setter
    def running(self, made: RunningPipeline) -> None:
        self._running = made
