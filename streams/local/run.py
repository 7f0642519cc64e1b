"""``make run``: one command from a relay to rows; starts what is missing, shows progress, ends when all is in Postgres.

It is a supervisor: the ingest and the worker are the same commands that a deployment runs, as child processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from dataclasses import dataclass

from streams import __version__
from streams.errors import RelayError, StreamsError
from streams.kafka.topic import ensure_topic
from streams.kafka.topic_limits import check_limits
from streams.local.demo import EVERYTHING, NAMES, DemoRelay, begin_empty, verdict
from streams.local.display import Display, summary
from streams.local.processes import IngestProcess, WorkerProcess
from streams.local.stack import Stack
from streams.runtime.printing import print_anywhere
from streams.runtime.signals import on_stop_signals
from streams.settings import DEFAULT_RELAY, Settings, load_settings, names_of_neighbours
from streams.sources.firehose.handshake import NotNow
from streams.sources.firehose.probing import probe
from streams.sources.firehose.relay import relay_name
from streams.status.lag import LagReader, lag_reader
from streams.status.postgres_side import worker_page

_EXAMPLES = """examples:
  make run                                          the last day of the default relay
  make run BACKFILL_DAYS=-1 RELAY_URL=wss://...     all that another relay keeps
  make run KAFKA_BOOTSTRAP_SERVERS=host:9092 DATABASE_URL=postgresql://...    your own Kafka and Postgres
  make demo                                         the same with generated traffic

Run again, it goes on where it stopped. Ctrl-C saves the position. The embedded Kafka and Postgres stay up; `make down`
stops them."""

#: Seconds between two looks at where things stand.
LOOK_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a run: its settings, and the relay of a demo."""

    settings: Settings
    demo: DemoRelay | None


async def run(*, demo: bool) -> int:
    """Everything, from nothing to the summary. Returns the exit code; raises StreamsError."""
    given = load_settings()
    if neighbours := names_of_neighbours():
        _say(f"Not read, because they are not settings of this program: {', '.join(neighbours)}")
    if given.backfill_days == 0 and "backfill_days" in given.model_fields_set:
        _say("Nothing to do: the backfill is off (BACKFILL_DAYS=0). Set it to a number of days, or -1 for everything.")
        return 0
    theirs = given.kafka_bootstrap_servers is not None or given.database_url is not None
    if not demo and not theirs and given.relay_url == DEFAULT_RELAY and not await _reachable(given.relay_url):
        _say(f"The default relay {relay_name(DEFAULT_RELAY)} cannot be reached from here, and RELAY_URL is not set: "
             f"running the demo instead, with generated traffic.")  # fmt: skip
        demo = True
    environment = _start_stack(given)
    target = await _target(given, environment, demo=demo)
    try:
        return await _supervise(target)
    finally:
        if target.demo is not None:
            await target.demo.stop()


async def _reachable(url: str) -> bool:
    try:
        await probe(url, None, timeout=0.1)
    except NotNow:  # it answers
        return True
    except (OSError, TimeoutError, RelayError):
        return False
    return True


def _start_stack(given: Settings) -> dict[str, str]:
    """The settings of the embedded stack, started where one of the two servers is not given."""
    if given.kafka_bootstrap_servers is not None and given.database_url is not None:
        return {}
    stack = Stack(given.local_dir, say=_say)
    stack.up()
    return stack.environment()


async def _target(given: Settings, stack: dict[str, str], *, demo: bool) -> Target:
    overrides: dict[str, object] = {}
    if "backfill_profile" not in given.model_fields_set:
        overrides["backfill_profile"] = "unlimited"  # a person who types the command is waiting
    if "backfill_days" not in given.model_fields_set:
        overrides["backfill_days"] = 1
    if given.kafka_bootstrap_servers is None and stack:
        overrides["kafka_bootstrap_servers"] = stack["KAFKA_BOOTSTRAP_SERVERS"]
    if given.database_url is None and stack:
        overrides["database_url"] = stack["DATABASE_URL"]
    if not demo:
        return Target(load_settings(**overrides), None)
    relay = DemoRelay(given.local_dir)
    _say("Generating the demo's traffic ...")
    await relay.start()
    settings = load_settings(**{**overrides, **NAMES, **EVERYTHING, "relay_url": relay.url})
    await begin_empty(settings)
    return Target(settings, relay)


async def _supervise(target: Target) -> int:
    settings = target.settings
    info = await ensure_topic(settings)
    await check_limits(settings, info, quiet=True)  # before two processes say the same
    asked_to_stop = asyncio.Event()
    on_stop_signals(asked_to_stop.set)
    async with lag_reader(settings, info) as reader:
        display = Display(settings)
        ingest, worker = IngestProcess(settings), WorkerProcess(settings)
        try:
            await worker.start()
            await ingest.start(display)
            ended = await _watch(reader, ingest, worker, display, asked_to_stop)
            # Before the other is stopped: how that ends is our doing.
            failed = ingest if ingest.code else worker
        finally:
            display.close()
            await asyncio.gather(ingest.stop(), worker.stop())
        if ended:
            _say(summary(settings, await reader.lag(), await reader.holdings(), display))
    if ended:
        return 0 if target.demo is None else await _judge(settings, target.demo)
    if asked_to_stop.is_set():
        _say("Stopped. The position is saved: run again to go on.")
        return 0
    _say(f"{failed.last_words()}\nLogs: {ingest.log_file}, {worker.log_file}")
    return failed.code if failed.code is not None and failed.code > 0 else 1


async def _watch(
    reader: LagReader, ingest: IngestProcess, worker: WorkerProcess, display: Display, asked: asyncio.Event
) -> bool:
    """Until all that the ingest took is in Postgres (True), one of the two fails (False), or we are asked to stop."""
    while not asked.is_set():
        # Asked before the ends are read: once the ingest is done nothing is written behind them.
        taken = ingest.code == 0
        lag = await reader.lag()
        display.show(lag)
        if display.page is None:
            display.show_page(await worker_page(reader.database, worker.settings, worker.pid))
        if worker.code is not None or ingest.code not in {None, 0}:
            return False
        if taken and lag.pending == 0:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), LOOK_EVERY)
    return False


async def _judge(settings: Settings, relay: DemoRelay) -> int:
    exact, sentence = await verdict(settings, relay)
    _say(sentence)
    return 0 if exact else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (README: exit codes)."""
    parser = argparse.ArgumentParser(
        prog="python -m streams.local run",
        description="Take a relay's firehose through Kafka into Postgres, and end when all of it is there.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--demo", action="store_true", help="generated traffic, in its own topic and schema")
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args(argv)
    print_anywhere()
    try:
        return asyncio.run(run(demo=arguments.demo))
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
