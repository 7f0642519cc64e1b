"""The development relay's command: ``python -m streams.simulator``.

It serves recorded or generated frames on the loopback, knows what must come of the generated ones (``--oracle``), and
does wrong what is asked of it (``--fault``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Final

from streams import __version__
from streams.errors import SettingsError, StreamsError
from streams.simulator.arrangement import arranged
from streams.simulator.dialects import as_jetstream, as_labels
from streams.simulator.faults import CLAIM_KINDS, CONNECTION_KINDS, FRAME_KINDS, ORDER_KINDS, Fault, parse_fault
from streams.simulator.manner import Beyond, Manner, Order, Speech
from streams.simulator.oracle import Oracle
from streams.simulator.rates import DENSE, PLAIN
from streams.simulator.recording import Frame, iso_time, microseconds, placed, read_frames, write_frames
from streams.simulator.relay import DevRelay
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import BAD_KINDS, OPERATION_KINDS, BadFrame, Plan, Reset, Traffic

_EXAMPLES: Final = """\
examples:
  python -m streams.simulator --frames tests/fixtures/pds/frames.bin.gz
  python -m streams.simulator --generate 200000 --seed 1 --oracle oracle.json.gz
  python -m streams.simulator --generate 50000 --days-span 7 --retain-seconds 432000     keeps 5 days of 7
  python -m streams.simulator --generate 50000 --then-live 200 --live-events 10000
  python -m streams.simulator --generate 50000 --fault drop:after=1000 --fault missing_block:scatter=5
  python -m streams.simulator --generate 50000 --fault refuse:status=429,times=3 --fault stall:after=5000,pongs=1
  python -m streams.simulator --generate 50000 --fault overtake:scatter=20 --fault ahead:scatter=3 --order place
  python -m streams.simulator --generate 50000 --reset-at 40000 --cut-at-reset --beyond live
  python -m streams.simulator --generate 50000 --fault limit:count=2,seconds=30,retry=date

faults: KIND[:name=value,...]. When: after=N frames into a connection, or seq=S. How often: times=N (1; 0 is every time)
over all connections, or connection=K only. settle=0.1: seconds that a client must have stayed before it is done.
What the order and the claims of frames can suffer happens on a connection by after= or seq=; in the stream itself, for
every client alike, by scatter=N places, every=N frames, or for the accounts of one PDS of pds=N.
"""


def _parser() -> argparse.ArgumentParser:
    every = (CONNECTION_KINDS, ORDER_KINDS, CLAIM_KINDS, FRAME_KINDS)
    kinds = [f"  {kind:<14} {what}" for group in every for kind, what in group.items()]
    bad = ", ".join(BAD_KINDS)
    epilog = f"{_EXAMPLES}\n" + "\n".join(kinds) + f"\nin the generated traffic itself (scatter=N of them): {bad}"
    parser = argparse.ArgumentParser(
        prog="python -m streams.simulator",
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
    add("--reset-at", type=int, default=0, metavar="N", help="begin the relay's sequence anew after N events (frames)")
    add("--reset-to", type=int, default=1, metavar="SEQ", help="with this seq, of generated traffic (1)")
    add("--plain", action="store_true", help="generate what is rare at the network's rates, not far more often")
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
    _add_manner(add)
    add("--live-buffer", type=int, default=10_000, metavar="N", help="frames a live client may lag (10000)")
    add("--fault", action="append", default=[], metavar="SPEC", help="do something wrong; may be repeated (see below)")
    add("--log", action="store_true", help="print a JSON line for each connection too")
    return parser


def _add_manner(add: Callable[..., object]) -> None:
    """Add the options for what differs from relay to relay."""

    def choice(name: str, of: type[Enum], help: str) -> None:
        add(name, choices=[each.value for each in of], default=next(iter(of)).value, help=help)

    choice(
        "--order", Order, "how a cursor is looked up where seqs are out of order: by the seq of each frame, or by place"
    )
    choice(
        "--beyond", Beyond, "what a cursor beyond the head gets: an error frame, an HTTP answer, live frames, nothing"
    )
    choice("--speak", Speech, "serve the same events as a stream of another kind")
    add("--keep-old", action="store_true", help="keep what was before a reset")
    add("--cut-at-reset", action="store_true", help="end all connections at a reset")
    add("--sent-times", action="store_true", help="write into a frame's time when it is sent")
    add("--negative-cursors", action="store_true", help="take a negative cursor as 0")


def _manner(options: argparse.Namespace) -> Manner:
    return Manner(
        Order(options.order), Beyond(options.beyond), Speech(options.speak), options.keep_old, options.cut_at_reset,
        options.sent_times, options.negative_cursors,
    )  # fmt: skip


def _generated(options: argparse.Namespace, bad_traffic: list[Fault]) -> tuple[Iterator[Frame], Oracle, list[int]]:
    """Return the generated frames, the oracle, and how many frames are out at once: complete once all are taken."""
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
        for fault in bad_traffic
        for n in range(max(1, fault.scatter))
    )
    plan = Plan(
        options.generate, options.seed, options.days_span, end_us, options.accounts, live_events=live,
        live_rate=options.then_live or 1.0, large_every=options.large_every, bad=bad,
        resets=(Reset(options.reset_at, options.reset_to),) if options.reset_at else (),
        rates=PLAIN if options.plain else DENSE,
    )  # fmt: skip
    from_us = end_us - int(options.retain_seconds * 1e6) if options.retain_seconds is not None else 0
    oracle = Oracle(options.retain_from, from_us, keep_records=options.oracle is not None)
    live_frames = [0]

    def frames() -> Iterator[Frame]:
        traffic = Traffic(plan, oracle)
        for frame in traffic.frames():
            if oracle.open:
                live_frames[0] += traffic.emitted > plan.events - live
                yield frame

    return frames(), oracle, live_frames


def _recorded(options: argparse.Namespace) -> tuple[list[Frame], int]:
    """Return the recording's retained frames, and how many of them are live."""
    frames = list(placed(read_frames(options.frames)))
    if 0 < options.reset_at < len(frames):
        frames[options.reset_at] = frames[options.reset_at]._replace(anew=True)
    from_us = (
        frames[-1].time_us - int(options.retain_seconds * 1e6) if frames and options.retain_seconds is not None else 0
    )
    kept = [f for f in frames if f.seq >= options.retain_from and f.time_us >= from_us]
    if not options.then_live:
        return kept, 0
    return kept, min(len(kept), len(kept) // 10 if options.live_events is None else options.live_events)


def _stored(frames: Iterable[Frame], faults: list[Fault], speech: Speech, oracle: Oracle | None) -> FrameStore:
    """Return the stream as it is served: put in its order, and written as it is spoken."""
    if faults:
        counted = oracle.arranged if oracle is not None else Counter[str]()
        frames = arranged(frames, faults, lambda kind: counted.update((kind,)))
    if speech is Speech.JETSTREAM:
        frames = as_jetstream(frames)
    elif speech is Speech.LABELS:
        frames = as_labels(frames)
    return FrameStore(frames)


def _prepare(options: argparse.Namespace) -> tuple[DevRelay, int | None]:
    """Make the relay that the options describe, with its events. Write the files asked for. Raises SettingsError."""
    faults = [parse_fault(spec) for spec in options.fault]
    bad = [f for f in faults if f.kind in (*OPERATION_KINDS, "too_big") or (f.kind in FRAME_KINDS and f.scatter)]
    in_stream = [f for f in faults if f.kind in (*ORDER_KINDS, *CLAIM_KINDS) and f.in_stream]
    on_connections = [fault for fault in faults if fault not in bad and fault not in in_stream]
    manner, oracle = _manner(options), None
    if options.frames is None:
        frames, oracle, live = _generated(options, bad)
        store = _stored(frames, in_stream, manner.speech, oracle)
        published = len(store) - live[0]
    elif options.oracle or bad or options.large_every or options.plain:
        raise SettingsError("--oracle, --plain, --large-every and bad frames in the traffic itself need --generate.")
    else:
        recorded, number = _recorded(options)
        store = _stored(recorded, in_stream, manner.speech, None)
        published = len(store) - number
    relay = DevRelay(
        store, options.port, host=options.host, published=published, cursor_inclusive=options.cursor_inclusive,
        outdated_info=options.outdated_info, live_buffer=options.live_buffer, faults=on_connections, manner=manner,
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
    """Run ``python -m streams.simulator``. Return the exit code."""
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
