"""One ingest process: its web port, the lock on the topic, sessions one after another, and the stop signals."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace

import structlog

from streams.ingestion.session import IngestSession, Options
from streams.ingestion.web import IngestWeb
from streams.kafka.ingest_lock import ingest_lock
from streams.kafka.topic import ensure_topic
from streams.kafka.topic_limits import check_limits
from streams.resources.machine import resident
from streams.resources.memory_budgets import check_limit, memory_limit
from streams.resources.memory_watch import tune_allocator
from streams.resources.niceness import step_back
from streams.runtime.logs import say_neighbours, set_up_logging
from streams.runtime.signals import on_stop_signals
from streams.settings import Settings

log = structlog.get_logger("streams.ingest")


def run_process(settings: Settings, options: Options, *, with_parent: bool) -> int:
    """Ingest until the head, or until stopped. Return the exit code. Raises StreamsError.

    ``with_parent``: stop when standard input ends.
    """
    tune_allocator()
    set_up_logging(settings)
    say_neighbours()
    step_back(settings)
    if with_parent:
        _die_with_parent()
    return asyncio.run(run_ingest(settings, options))


async def run_ingest(settings: Settings, options: Options) -> int:
    """Create the topic, take the lock and ingest. Return the exit code. Raises StreamsError."""
    stopping = _Stopping()
    web = IngestWeb(settings)
    try:
        await web.start()
        await _run_ingest(settings, replace(options, web=web.address), stopping, web)
    except asyncio.CancelledError:
        if not stopping.asked:
            raise
    finally:
        stopping.over()
        await web.close()
    return 0


async def _run_ingest(settings: Settings, options: Options, stopping: _Stopping, web: IngestWeb) -> None:
    while True:
        info = await ensure_topic(settings)
        takes = await check_limits(settings, info)
        check_limit(memory_limit(settings), resident(), "ingest")
        session = stopping.session = web.session = IngestSession(settings, options, info, takes=takes)
        async with ingest_lock(settings, standby=options.standby, on_lost=session.lose_lock):
            await session.run()
        if not session.lost_lock or stopping.asked:
            return
        stopping.session = None
        log.warning("the lock on the topic was lost, because this process was frozen or cut off: asking for it again")
        if session.has_begun:  # the topic has its first messages: from here it is resumed
            options = replace(options, request=replace(options.request, restart=False, from_time=None))


class _Stopping:
    """The handler of SIGTERM and SIGINT. It stops the session, or cancels the task if the session has not begun yet."""

    def __init__(self) -> None:
        self.asked = False
        self._over = False
        self.session: IngestSession | None = None
        self._task = asyncio.current_task()
        on_stop_signals(self._stop)

    def over(self) -> None:
        """Ignore signals from now on: the ingest is ending by itself."""
        self._over = True

    def _stop(self) -> None:
        if self.asked or self._over:
            return
        self.asked = True
        log.info("stopping: saving the position")
        if self.session is not None and self.session.started:
            self.session.stop()
        elif self._task is not None:
            self._task.cancel()


def _die_with_parent() -> None:
    """Stop when standard input ends. It is a pipe from the parent, so it ends also when the parent is killed."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(8)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="parent").start()
