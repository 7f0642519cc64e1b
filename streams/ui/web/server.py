"""The HTTP server of a process: the page, its events, metrics and health. It never ends the process, nor slows it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from streams.ui.web.deployment_metrics import DeploymentFigures
from streams.ui.web.events import EventStream
from streams.ui.web.figures import Figures, IngestFigures, WorkerFigures
from streams.ui.web.guard import add_headers, guard
from streams.ui.web.health import Check, ProgressWatch, ingest_checks, is_ready, progress_of, worker_checks
from streams.ui.web.history import EVERY, History
from streams.ui.web.metrics import ProcessFigures
from streams.ui.web.page import FILES, read_file, render
from streams.ui.web.port import address, is_loopback
from streams.ui.web.view import PageView, view
from streams.ui.web.watcher import Reader, Watcher

log = logging.getLogger(__name__)

#: Seconds that the database may take to say that it is there.
_PROBE_SECONDS: Final = 2.0
#: Seconds that a scrape or the page waits for the Status, and goes on without it: Prometheus gives up after 10 s.
_SCRAPE_SECONDS: Final = 3.0
#: Seconds that a request for the Status alone waits for it.
_STATUS_SECONDS: Final = 8.0
#: Seconds that an idle connection is kept, and that answers may take when the server ends.
_KEEP_ALIVE: Final = 15.0
_STOP_SECONDS: Final = 0.5


class WebServer:
    """The web server of one process, at a socket that listens already.

    ``figures``: what the process says of itself. ``open_reader``: where the deployment's Status comes from.
    ``probe``: raises, or takes too long, where the database does not answer; None for a process that needs none.
    """

    def __init__(
        self,
        held: socket.socket,
        figures: Callable[[], Figures],
        open_reader: Callable[[], AbstractAsyncContextManager[Reader]],
        probe: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.address = address(held)
        self._held = held
        self._figures = figures
        self._probe = probe
        self._watcher = Watcher(open_reader)
        self._events = EventStream(self._event)
        self._history = History()
        self._progress = ProgressWatch(time.monotonic())
        self._still = 0.0
        self._own = CollectorRegistry()
        self._own.register(ProcessFigures(figures))
        ProcessCollector(registry=self._own)
        self._runner: web.AppRunner | None = None
        self._sampler: asyncio.Task[None] | None = None

    @property
    def clients(self) -> int:
        """The number of pages that are kept up to date."""
        return self._events.clients

    # -- life

    async def start(self) -> None:
        """Serve until ``close``."""
        application = web.Application(middlewares=[guard(loopback=is_loopback(self._held))], client_max_size=1024)
        application.on_response_prepare.append(add_headers)
        routes = {
            "/": self._page, "/events": self._events.serve, "/status.json": self._status, "/metrics": self._metrics,
            "/healthz": self._health, "/readyz": self._ready,
            **{f"/{name}": _file(name, kind) for name, kind in FILES.items()},
        }  # fmt: skip
        for path, handler in routes.items():
            application.router.add_get(path, handler, allow_head=path != "/events")
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS,
            keepalive_timeout=_KEEP_ALIVE, max_line_size=4096, max_field_size=4096,
        )  # fmt: skip
        await self._runner.setup()
        await web.SockSite(self._runner, self._held).start()
        self._sampler = asyncio.create_task(self._sample())

    async def close(self) -> None:
        """End every answer, and close the port, within a few seconds."""
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.gather(self._sampler, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4 * _STOP_SECONDS):
                await self._events.close()
                if self._runner is not None:
                    await self._runner.cleanup()
                await self._watcher.close()
        self._held.close()

    async def _sample(self) -> None:
        """Keep the history, and measure how long nothing has moved."""
        while True:
            try:
                figures = self._figures()
                self._history.add(figures)
                self._still = self._progress.still(time.monotonic(), *progress_of(figures))
                await self._watcher.rest()
            except Exception as error:
                log.warning("The web port could not look at its process: %r", error, exc_info=error)
            await asyncio.sleep(EVERY)

    # -- the page

    async def _view(self) -> PageView:
        status = await self._watcher.latest(_SCRAPE_SECONDS)
        now = dt.datetime.now(dt.UTC)
        return view(status, self._watcher.trouble, self._figures(), self._history, now)

    async def _event(self) -> bytes:
        return msgspec.json.encode(await self._view())

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=render(await self._view()), content_type="text/html")

    async def _status(self, _: web.Request) -> web.Response:
        status = await self._watcher.latest(_STATUS_SECONDS)
        if status is None:
            body = msgspec.json.encode({"error": self._watcher.trouble})
            return web.Response(body=body, content_type="application/json", status=503)
        return web.Response(body=msgspec.json.encode(status), content_type="application/json")

    # -- for machines

    async def _metrics(self, request: web.Request) -> web.Response:
        status = await self._watcher.latest(_SCRAPE_SECONDS)
        deployment = CollectorRegistry()
        deployment.register(DeploymentFigures(status if self._watcher.trouble is None else None))
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        parts = [encode(registry) for registry in (self._own, deployment)]
        body = b"".join(part.removesuffix(b"# EOF\n") for part in parts) + (b"# EOF\n" if b"# EOF" in parts[0] else b"")
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        checks = await self._checks()
        ready = is_ready(checks)
        body = {"ready": ready, "checks": [{"name": c.name, "ok": c.ok, "why": c.why} for c in checks]}
        answer = msgspec.json.format(msgspec.json.encode(body)) + b"\n"
        return web.Response(body=answer, content_type="application/json", status=200 if ready else 503)

    async def _checks(self) -> list[Check]:
        figures = self._figures()
        if isinstance(figures, IngestFigures):
            return ingest_checks(figures, still=self._still)
        assert isinstance(figures, WorkerFigures)
        return worker_checks(figures, database=await self._database(), still=self._still)

    async def _database(self) -> str | None:
        """Return why the database does not answer; None if it does."""
        if self._probe is None:
            return None
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._probe()
        except TimeoutError:
            return f"it did not answer within {_PROBE_SECONDS:.0f} s"
        except Exception as error:
            return str(error) or type(error).__name__
        return None


def _file(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    body = read_file(name).encode()

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    return handler
