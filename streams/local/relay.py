"""The development relay: a websocket server that speaks subscribeRepos as real relays do, on 127.0.0.1.

It serves recorded or generated frames, knows what must come of the generated ones (``--oracle``), and does wrong what
is asked of it (``--fault``). It shares no code with the pipeline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self, TypeVar

from streams import __version__
from streams.errors import RelayError, SettingsError, StreamsError
from streams.local.faults import CONNECTION_KINDS, FRAME_KINDS, Fault, Faults, parse_fault
from streams.local.generator import BAD_KINDS, OPERATION_KINDS, BadFrame, Plan, Traffic
from streams.local.oracle import Oracle
from streams.local.recording import Frame, iso_time, microseconds, placed, read_frames, write_frames
from streams.local.retained import FrameStore
from streams.local.subscription import PATH, Connection, Subscription

Source = FrameStore | Path | Iterable[bytes]
T = TypeVar("T")

_LIVE_TICK: Final = 0.05


def store_of(source: Source) -> FrameStore:
    """The frames of a recording's file, of raw frames in order, or a store as it is."""
    if isinstance(source, FrameStore):
        return source
    return FrameStore(placed(read_frames(source) if isinstance(source, Path) else source))


class DevRelay:
    """A relay over ``source``; serving inside ``async with``.

    ``published``: how many of the frames are out at the start (all, if None); ``publish`` lets out more, ``append``
    adds new ones. ``first_index``: the oldest that is retained. ``cursor_inclusive``: a cursor's own frame is sent
    again. ``outdated_info``: a cursor below the window gets an #info frame first. ``live_buffer``: how many frames a
    client that had caught up may lag before it is closed as ConsumerTooSlow.
    """

    def __init__(
        self,
        source: Source = (),
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        published: int | None = None,
        first_index: int = 0,
        cursor_inclusive: bool = False,
        outdated_info: bool = False,
        live_buffer: int = 10_000,
        faults: Iterable[Fault | str] = (),
    ) -> None:
        self.store = store_of(source)
        self.host, self.port = host, port
        self.head_index = len(self.store) if published is None else min(published, len(self.store))
        self.first_index = first_index
        self.cursor_inclusive, self.outdated_info, self.live_buffer = cursor_inclusive, outdated_info, live_buffer
        self.faults = Faults(faults)
        self.connections: list[Connection] = []
        self.subscriptions: set[Subscription] = set()
        self.on_end: Callable[[Connection], None] | None = None
        self.loop: asyncio.AbstractEventLoop
        self.caught_up: asyncio.Event
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen. Raises RelayError if the port is taken."""
        self.loop, self.caught_up = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._server = await self.loop.create_server(lambda: Subscription(self), self.host, self.port, backlog=1024)
        except OSError as error:
            raise RelayError(
                f"The development relay cannot listen on {self.host}:{self.port}: {error.strerror}."
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections with 1001, and the port."""
        assert self._server is not None
        self._server.close()
        for subscription in list(self.subscriptions):
            subscription.close(1001, "going away")
        deadline = self.loop.time() + 1.0
        while self.subscriptions and self.loop.time() < deadline:  # noqa: ASYNC110 (once, at the end)
            await asyncio.sleep(0.01)
        for subscription in list(self.subscriptions):
            subscription.abort()

    # -- what a test or the command asks

    @property
    def url(self) -> str:
        """The address for a client."""
        return f"ws://{self.host}:{self.port}{PATH}"

    @property
    def head(self) -> int | None:
        """The seq of the last frame that is out, or None."""
        return self.store.seqs[self.head_index - 1] if self.head_index else None

    @property
    def oldest(self) -> int | None:
        """The seq of the oldest frame that is retained, or None."""
        return self.store.seqs[self.first_index] if self.first_index < self.head_index else None

    def append(self, frames: Iterable[bytes | Frame]) -> None:
        """New frames, live. A seq below the last one resets the relay's sequence."""
        for frame in frames:
            self.store.add(frame if isinstance(frame, Frame) else next(placed([frame], self.store.last())))
        self.publish(len(self.store) - self.head_index)

    def publish(self, count: int) -> None:
        """Let out ``count`` more of the frames that the store already has."""
        self.head_index = min(len(self.store), self.head_index + count)
        for subscription in list(self.subscriptions):
            if subscription.backlog() > self.live_buffer:
                subscription.end_with_error("ConsumerTooSlow", "Stream consumer too slow")
            subscription.wake()

    def retain_from(self, seq: int) -> None:
        """Forget the frames below ``seq``."""
        self.first_index = self.store.index_from(seq, *self.window())

    def disconnect_all(self, code: int = 1012, reason: str = "restart") -> None:
        """Close every connection."""
        for subscription in list(self.subscriptions):
            subscription.close(code, reason)

    async def publish_live(self, rate: float) -> None:
        """Let out what is not out yet at ``rate`` frames a second, once a client has caught up."""
        await self.caught_up.wait()
        begun, done = self.loop.time(), 0
        while self.head_index < len(self.store):
            due = int((self.loop.time() - begun) * rate)
            self.publish(due - done)
            done = due
            await asyncio.sleep(_LIVE_TICK)

    # -- what a subscription asks

    def window(self) -> tuple[int, int]:
        """The indexes of what is retained and out, in the current sequence."""
        for reset in self.store.resets:
            if reset > self.first_index:
                return self.first_index, min(reset, self.head_index)
        return self.first_index, self.head_index

    def passed(self, index: int) -> None:
        """A client was sent all before ``index``: where the sequence was reset on the way, the old one is forgotten."""
        for reset in self.store.resets:
            if self.first_index < reset < index:
                self.first_index = reset

    def new_connection(self) -> Connection:
        """Count a connection."""
        self.connections.append(Connection(len(self.connections) + 1, None))
        return self.connections[-1]


class RelayThread:
    """A relay in a thread of its own, for tests and commands that are not asyncio's: ``with RelayThread(relay): …``.

    Attributes of ``relay`` may be read from any thread; ``call`` runs what changes it.
    """

    def __init__(self, relay: DevRelay) -> None:
        self.relay = relay
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="relay", daemon=True)

    def __enter__(self) -> DevRelay:
        """Wait until it listens. Raises RelayError."""
        self._thread.start()
        self._started.result()
        return self.relay

    def __exit__(self, *_: object) -> None:
        """Stop it, and wait for that."""
        self.relay.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def call(self, action: Callable[[], T]) -> T:
        """Run ``action`` in the relay's thread: ``thread.call(lambda: relay.append(frames))``."""

        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self.relay.loop).result()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        try:
            async with self.relay:
                self._started.set_result(None)
                await self._stop.wait()
        except RelayError as error:
            self._started.set_exception(error)


# -- the command

_EXAMPLES: Final = """\
examples:
  python -m streams.local.relay --frames tests/fixtures/pds/frames.bin.gz
  python -m streams.local.relay --generate 200000 --seed 1 --oracle oracle.json.gz
  python -m streams.local.relay --generate 50000 --days-span 7 --retain-seconds 432000     keeps 5 days of 7
  python -m streams.local.relay --generate 50000 --then-live 200 --live-events 10000
  python -m streams.local.relay --generate 50000 --fault drop:after=1000 --fault missing_block:scatter=5
  python -m streams.local.relay --generate 50000 --fault refuse:status=429,times=3 --fault stall:after=5000,pongs=1

faults: KIND[:name=value,...]. When: after=N frames into a connection, or seq=S. How often: times=N (1; 0 is every time)
over all connections, or connection=K only. settle=0.1: seconds that a client must have stayed before it is done.
"""


def _parser() -> argparse.ArgumentParser:
    kinds = [f"  {kind:<14} {what}" for kind, what in (*CONNECTION_KINDS.items(), *FRAME_KINDS.items())]
    bad = ", ".join(BAD_KINDS)
    epilog = f"{_EXAMPLES}\n" + "\n".join(kinds) + f"\nin the generated traffic itself (scatter=N of them): {bad}"
    parser = argparse.ArgumentParser(
        prog="python -m streams.local.relay",
        description="A relay for development: serves com.atproto.sync.subscribeRepos on the loopback.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--frames", type=Path, metavar="FILE", help="serve a recording")
    source.add_argument("--generate", type=int, metavar="N", help="generate exactly N events")
    add = parser.add_argument
    add("--seed", type=int, default=0, help="of the generator (0)")
    add("--accounts", type=int, default=0, help="accounts to generate (N/50)")
    add("--days-span", type=float, default=1.0, metavar="D", help="days over which the generated frames are spread (1)")
    add("--until", metavar="TIME", help="time of the last of them, ISO 8601 (now)")
    add("--reset-at", type=int, default=0, metavar="N", help="begin the relay's sequence again at 1 after N events")
    add("--large-every", type=int, default=0, metavar="N", help="after each N events a commit of the largest (never)")
    add("--oracle", type=Path, metavar="FILE", help="write what must be true afterwards (.json.gz)")
    add("--save", type=Path, metavar="FILE", help="write the frames that are served, for --frames")
    add("--retain-from", type=int, default=0, metavar="SEQ", help="keep only the frames from this seq on")
    add("--retain-seconds", type=float, metavar="S", help="keep only the last S seconds")
    add(
        "--then-live",
        type=float,
        metavar="RATE",
        help="send the last frames live, RATE a second, once a client is at the head",
    )
    add("--live-events", type=int, metavar="N", help="how many that are (a tenth of all)")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=int, default=0, help="port to listen on (a free one)")
    add("--cursor-inclusive", action="store_true", help="send the cursor's own frame again")
    add("--outdated-info", action="store_true", help="send #info OutdatedCursor for a cursor below the window")
    add("--live-buffer", type=int, default=10_000, metavar="N", help="frames a live client may lag (10000)")
    add("--fault", action="append", default=[], metavar="SPEC", help="do something wrong; may be repeated (see below)")
    add("--log", action="store_true", help="print a JSON line for each connection too")
    return parser


def _generated(options: argparse.Namespace, faults: list[Fault]) -> tuple[FrameStore, int, Oracle]:
    """The generated frames, how many of them are out at once, and the oracle."""
    if options.generate < 1:
        raise SettingsError("--generate needs at least one event.")
    try:
        end_us = microseconds(options.until) if options.until else time.time_ns() // 1000
    except ValueError:
        raise SettingsError(f"--until {options.until}: not a time like 2026-01-31T12:00:00Z.") from None
    live = 0
    if options.then_live:
        live = options.generate // 10 if options.live_events is None else min(options.live_events, options.generate - 1)
    bad = tuple(
        BadFrame(fault.kind, options.generate * (n + 1) // (max(1, fault.scatter) + 1))
        for fault in faults
        for n in range(max(1, fault.scatter))
    )
    plan = Plan(
        options.generate, options.seed, options.days_span, end_us, options.accounts, live_events=live,
        live_rate=options.then_live or 1.0, reset_at=options.reset_at, bad=bad, large_every=options.large_every,
    )  # fmt: skip
    from_us = end_us - int(options.retain_seconds * 1e6) if options.retain_seconds is not None else 0
    oracle = Oracle(options.retain_from, from_us, keep_records=options.oracle is not None)
    traffic, store, published = Traffic(plan, oracle), FrameStore(), 0
    for frame in traffic.frames():
        if oracle.open:
            store.add(frame)
            published = len(store) if traffic.emitted <= plan.events - live else published
    return store, published, oracle


def _recorded(options: argparse.Namespace) -> tuple[FrameStore, int]:
    """The recording's retained frames, and how many of them are out at once."""
    frames = list(placed(read_frames(options.frames)))
    from_us = (
        frames[-1].time_us - int(options.retain_seconds * 1e6) if frames and options.retain_seconds is not None else 0
    )
    store = FrameStore(f for f in frames if f.seq >= options.retain_from and f.time_us >= from_us)
    live = 0
    if options.then_live:
        live = len(store) // 10 if options.live_events is None else options.live_events
    return store, max(0, len(store) - live)


def _prepare(options: argparse.Namespace) -> tuple[DevRelay, int | None]:
    """The relay that the options describe, and its events; writes the files asked for. Raises SettingsError."""
    faults = [parse_fault(spec) for spec in options.fault]
    in_traffic = [f for f in faults if f.kind in (*OPERATION_KINDS, "too_big") or (f.kind in FRAME_KINDS and f.scatter)]
    on_connections = [fault for fault in faults if fault not in in_traffic]
    oracle: Oracle | None = None
    if options.frames is None:
        store, published, oracle = _generated(options, in_traffic)
    elif options.oracle or in_traffic or options.reset_at or options.large_every:
        raise SettingsError("--oracle, --reset-at, --large-every and faults in the traffic itself need --generate.")
    else:
        store, published = _recorded(options)
    relay = DevRelay(
        store, options.port, host=options.host, published=published, cursor_inclusive=options.cursor_inclusive,
        outdated_info=options.outdated_info, live_buffer=options.live_buffer, faults=on_connections,
    )  # fmt: skip
    if oracle is not None and options.oracle:
        for fault in on_connections:
            if fault.kind in FRAME_KINDS and fault.times:
                oracle.bad(fault.kind, None, None, skipped=fault.times)
        oracle.write_to(options.oracle)
    if options.save:
        write_frames(options.save, store.frames())
    return relay, oracle.events.total() if oracle else None


def _say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _serve(relay: DevRelay, events: int | None, rate: float | None, *, log: bool) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    async with relay:
        for number in (signal.SIGTERM, signal.SIGINT):
            relay.loop.add_signal_handler(number, stop.set)
        if log:
            relay.on_end = lambda connection: _say(event="connection", **asdict(connection))
        low, high = relay.window()
        _say(
            event="ready", url=relay.url, first_seq=relay.oldest, last_seq=relay.head,
            frames=high - low, live_frames=len(relay.store) - high, events=events,
            first_time=iso_time(relay.store.times[low]) if high > low else None,
            last_time=iso_time(relay.store.times[high - 1]) if high > low else None,
        )  # fmt: skip
        live = asyncio.create_task(relay.publish_live(rate)) if rate else None
        await stop.wait()
        if live is not None:
            live.cancel()


def main(arguments: list[str] | None = None) -> int:
    """``python -m streams.local.relay``; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        relay, events = _prepare(options)
        asyncio.run(_serve(relay, events, options.then_live, log=options.log))
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
