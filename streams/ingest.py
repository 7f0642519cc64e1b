"""Relay to Kafka: ``python -m streams.ingest --days N`` replays the firehose into the topic and ends at the head.

The position is in the topic itself (its watermarks), so it is atomic with the data. Whatever is killed, the next ingest
resumes from the lowest of the last watermarks. This module is the command: arguments, signals, the lock, exit codes.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import structlog

from streams import __version__
from streams.errors import StreamsError
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
from streams.settings import Settings, load_settings
from streams.sources.firehose.plan import Request
from streams.text import EPOCH, parse_moment

log = structlog.get_logger("streams.ingest")


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


def _time(text: str) -> int:
    try:
        moment = parse_moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid time (example: 2026-11-20T12:00:00Z)") from None
    if moment < EPOCH:
        raise argparse.ArgumentTypeError(f"{text!r} is before 1970")
    if moment > dt.datetime.now(dt.UTC) + dt.timedelta(days=1):  # our clock may be wrong
        raise argparse.ArgumentTypeError(f"{text!r} lies in the future")
    return int(moment.timestamp() * 1e6)


_EXAMPLES = """examples:
  python -m streams.ingest --days 7                  the last week, then end at the head
  python -m streams.ingest --days -1 --follow        all that the relay keeps, then live
  python -m streams.ingest --days 1 --restart        again, from a day ago
  python -m streams.ingest --days 1 --from-time 2026-11-20T12:00:00Z --relay wss://other.example/xrpc/...

exit codes: 0 done or stopped, 2 settings, 3 Kafka, 4 Postgres, 5 relay, 6 topic or schema is not ours,
7 another ingest holds the topic, 8 it does not fit on the disk"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streams.ingest",
        description="Replay a relay's firehose into Kafka; resumes where the topic ends. The README has every setting.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--days", type=int, help="days to replay: -1 is all that the relay keeps, 0 is off (default: BACKFILL_DAYS)"
    )
    parser.add_argument("--relay", metavar="URL", help="the relay's subscribeRepos endpoint (default: RELAY_URL)")
    parser.add_argument(
        "--restart", action="store_true", help="begin again at the point asked for, whatever the topic holds"
    )
    parser.add_argument("--follow", action="store_true", help="go on live after the head")
    parser.add_argument(
        "--from-time", type=_time, metavar="TIME", help="go on from this time (UTC), also with another relay"
    )
    parser.add_argument(
        "--standby", action="store_true", help="wait while another ingest holds the topic, then take over"
    )
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when standard input ends (for the process that starts us)"
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Return the exit code (README: exit codes)."""
    arguments = _parser().parse_args(argv)
    tune_allocator()
    try:
        settings = load_settings(backfill_days=arguments.days, relay_url=arguments.relay)
        if settings.backfill_days == 0:
            sys.stdout.write("Nothing to do: --days 0 is off. Give a number of days, or -1 for all.\n")
            return 0
        set_up_logging(settings)
        say_neighbours()
        step_back(settings)
        if arguments.with_parent:
            _die_with_parent()
        request = Request(settings.backfill_days, arguments.restart, arguments.from_time, time.time_ns() // 1000)
        return asyncio.run(run_ingest(settings, Options(request, arguments.follow, arguments.standby)))
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
