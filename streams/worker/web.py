"""A worker's side of its web port: in Faust's place, with the figures that a worker has anyway."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import faust
from faust.types import TP

from streams.settings import Settings
from streams.status.process import WorkerState
from streams.status.reader import status_reader
from streams.ui.web.figures import Durations, Held, WorkerFigures
from streams.ui.web.port import address, elsewhere, hold_port
from streams.ui.web.server import WebServer

log = logging.getLogger(__name__)

R_contra = TypeVar("R_contra", contravariant=True)
W_co = TypeVar("W_co", covariant=True)


class Sink(Protocol[R_contra, W_co]):
    """Where the transactions go: ``PostgresSink``, as the lanes see it."""

    async def write(
        self, partition: int, base: int, next_offset: int, records: Sequence[R_contra], still_ours: Callable[[], bool]
    ) -> W_co:
        """Apply the records."""


class Pipeline(Protocol):
    """What is asked of a worker's pipeline."""

    settings: Settings

    def state(self) -> WorkerState:
        """The worker now."""

    def reached(self) -> Mapping[int, int]:
        """The offsets that are written, of the partitions that are or were ours."""

    @property
    def is_broker_away(self) -> bool:
        """Whether Kafka does not answer."""

    async def ask_database(self) -> None:
        """Raises where the database does not answer, or waits until it does."""


class WorkerWeb:
    """The web port of one worker; ``hold`` it, then ``start``, then ``close``."""

    def __init__(self, app: faust.App, pipeline: Pipeline) -> None:
        self._app = app
        self._pipeline = pipeline
        self._held: socket.socket | None = None
        self._server: WebServer | None = None
        self._durations = Durations()
        self._rebalances = 0
        self._watermarks: dict[int, dt.datetime] = {}
        app.on_rebalance_complete.connect(self._on_rebalance)

    def hold(self) -> None:
        """Take the port that the command line or the settings name, in the place of Faust's own server.

        Raises SettingsError.
        """
        if self._app.conf.web_enabled:
            self._held = hold_port(self._app.conf.web_bind, self._app.conf.web_port, "WORKER_WEB_PORT")
        self._app.boot_strategy.enable_web = False

    @property
    def address(self) -> str | None:
        """Where the page is; None with ``--without-web``."""
        return address(self._held) if self._held is not None else None

    async def start(self) -> None:
        """Serve."""
        if self._held is not None:
            settings = self._pipeline.settings
            self._server = WebServer(
                self._held, self.figures, lambda: status_reader(settings), self._pipeline.ask_database
            )
            await self._server.start()
            more = elsewhere(self._held)
            log.info(
                "[BACKFILL] Live page, metrics and health: %s%s", self.address, "" if more is None else f" ({more})"
            )

    async def close(self) -> None:
        """Close the port."""
        if self._server is not None:
            await self._server.close()

    # -- figures

    async def _on_rebalance(self, *_: object, **__: object) -> None:
        self._rebalances += 1

    def note(self, partition: int, watermark: dt.datetime | None) -> None:
        """A transaction has brought a partition up to there."""
        if watermark is not None:
            self._watermarks[partition] = watermark

    def timed(self, sink: Sink[R_contra, W_co]) -> Sink[R_contra, W_co]:
        """A sink whose transactions are timed and counted."""
        return _Timed(sink, self._durations)

    def figures(self) -> WorkerFigures:
        """The worker now."""
        state = self._pipeline.state()
        reached = self._pipeline.reached()
        return WorkerFigures(
            state=state,
            assigned=self._rebalances > 0 and not self._app.rebalancing,
            rebalances=self._rebalances,
            broker_away=self._pipeline.is_broker_away,
            held=tuple(
                Held(partition, reached[partition], self._end(partition), self._watermarks.get(partition))
                for partition in state.partitions
                if partition in reached
            ),
            durations=self._durations,
        )

    def _end(self, partition: int) -> int | None:
        """The partition's end, as far as the last fetch told."""
        tp = TP(self._pipeline.settings.kafka_topic, partition)
        try:
            end: int | None = self._app.consumer.highwater(tp)
        except Exception:
            return None  # it was just taken from us
        return end


class _Timed(Generic[R_contra, W_co]):
    def __init__(self, sink: Sink[R_contra, W_co], durations: Durations) -> None:
        self._sink = sink
        self._durations = durations

    async def write(
        self, partition: int, base: int, next_offset: int, records: Sequence[R_contra], still_ours: Callable[[], bool]
    ) -> W_co:
        began = time.monotonic()
        self._durations.begin()
        try:
            return await self._sink.write(partition, base, next_offset, records, still_ours)
        finally:
            self._durations.end(time.monotonic() - began)
