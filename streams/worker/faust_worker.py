"""The worker process: checks before the start, a sentence and an exit code where it ends, a bounded shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from typing import Final, NoReturn

import faust
from faust.worker import logger as faust_logger
from mode.utils.logging import level_number

from streams.errors import EXIT_HUNG_SHUTDOWN, StreamsError
from streams.resources.niceness import step_back
from streams.runtime.logs import keep_secrets, say_neighbours, set_up_logging
from streams.worker import refusal
from streams.worker.app import pipeline_of
from streams.worker.checks import check_and_connect
from streams.worker.pipeline import Pipeline

log = logging.getLogger(__name__)

#: Seconds that a shutdown may take; afterwards the process ends where it stands. Positions are in Postgres.
SHUTDOWN_SECONDS: Final = 9.0


class Worker(faust.Worker):
    """Faust's worker with our start, faults and end."""

    _fault: StreamsError | None = None
    _stopping = False
    _asked_early = False

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that this worker runs."""
        return pipeline_of(self.app)

    def _setup_logging(self) -> None:
        """Log our lines as LOG_LEVEL and LOG_FORMAT say, Faust's errors, and below warning what ``-l`` asks for."""
        set_up_logging(self.pipeline.settings)
        level = level_number(self.loglevel or "WARN")
        asked = level < logging.WARNING
        for name in ("faust", "mode"):
            logging.getLogger(name).setLevel(level if asked else logging.ERROR)
        if asked:
            logging.getLogger("aiokafka").setLevel(level)
            keep_secrets()
        self.spinner = None

    def execute_from_commandline(self) -> NoReturn:
        """Check, run until stopped, and exit with the code that the end deserves."""
        self._setup_logging()
        say_neighbours()
        step_back(self.pipeline.settings)
        try:
            self._check()
        except StreamsError as error:
            refusal.keep(error)
            _say(error)
            sys.exit(error.exit_code)
        except asyncio.CancelledError:  # SIGTERM or Ctrl-C while waiting
            sys.exit(0)
        try:
            super().execute_from_commandline()
        except SystemExit as ending:
            sys.exit(self._fault.exit_code if self._fault is not None else ending.code)

    def _check(self) -> None:
        check = self.loop.create_task(check_and_connect(self.pipeline, self.fail))

        def asked() -> None:
            self._asked_early = True
            check.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, asked)  # until Faust puts its own in their place
        try:
            self.loop.run_until_complete(check)
        except BaseException:  # it ends with its own exit code, which a signal that comes now must not replace
            for number in (signal.SIGTERM, signal.SIGINT):
                self.loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            raise

    async def on_first_start(self) -> None:
        """Begin what runs beside the agents."""
        await super().on_first_start()
        await self.pipeline.running.start()
        if self._asked_early:
            self._schedule_shutdown(signal.SIGTERM)

    def fail(self, error: BaseException) -> None:
        """End the process: with a StreamsError's sentence and exit code; after any other error as Faust crashes."""
        if self._fault is not None or self.crash_reason is not None:
            return
        if isinstance(error, StreamsError):
            self._fault = error
            refusal.keep(error)
            _say(error)
            self._schedule_shutdown(signal.SIGTERM)
        else:
            log.critical("Unexpected: %r", error, exc_info=error)
            end_after(SHUTDOWN_SECONDS, EXIT_HUNG_SHUTDOWN)
            self.add_future(self.app.crash(error))

    def _crash(self, reason: BaseException) -> None:
        end_after(SHUTDOWN_SECONDS, EXIT_HUNG_SHUTDOWN)
        super()._crash(reason)

    async def _sentinel_task(self) -> None:
        """Wait until the tasks that mode has cancelled are over, at most a second. Its own always sleeps for that."""
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=1.0)

    async def stop(self) -> None:
        """Stop within SHUTDOWN_SECONDS, also while Kafka or Postgres is away."""
        if self._stopping:
            return
        self._stopping = True
        if self.crash_reason is None:
            end_after(SHUTDOWN_SECONDS, self._fault.exit_code if self._fault is not None else 0)
        await self.pipeline.running.wind_down()
        await super().stop()
        await self.pipeline.running.close()


Worker.logger = faust_logger  # mode would use our logger for its own lines


def end_after(seconds: float, code: int) -> None:
    """Exit with this code if the process still runs after so many seconds."""

    def end() -> None:
        sys.stderr.write(f"The shutdown took more than {seconds:.0f} s: ended. Positions are safe in Postgres.\n")
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _say(error: BaseException) -> None:
    """Print one sentence, without a traceback."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
