"""A deployment as Status, figures and history say it: what the page, the metrics and the health are tested with."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import msgspec

from streams.resources.others import Other
from streams.status.model import Counted, Partition, Process, Rates, RecentLetter, Status, Stretch
from streams.status.process import IngestState, Machine, Memory, WorkerState
from streams.ui.web.figures import Durations, Held, IngestFigures, WorkerFigures
from streams.ui.web.history import SLOTS, History, Sample

NOW = dt.datetime(2026, 11, 25, 14, 3, 20, tzinfo=dt.UTC)
MB = 1 << 20
POST = "app.bsky.feed.post"
#: What a stranger may have written: markup, direction marks, control characters, length.
HOSTILE = (
    "<script>document.title='pwned'</script>", '"><img src=x onerror=alert(1)>', "\u202egnirts desrever", "x" * 10_000,
    "{{ 7 * 7 }}", "a\x00b\x1b[31m\nc", "]]></style><svg onload=alert(1)>",
)  # fmt: skip


def before(**how_long: float) -> dt.datetime:
    return NOW - dt.timedelta(**how_long)


TOP = (Other("chrome", 0.4), Other("java", 0.12))
WORKER = WorkerState(
    mode="paced", why="others use 62 % of the machine", memory=Memory(182 * MB, 512 * MB, 14 * MB, 64 * MB),
    machine=Machine(others=0.62, idle=False, cores=8.0, memory_pressure=0.0, io_pressure=1.5, top=TOP),
    partitions=tuple(range(8)), received=4_182_334, processed=4_170_020, skipped=12_300, dead=14, rate=2_450.0,
    transactions=2, transactions_max=2, web="http://127.0.0.1:6066",
)  # fmt: skip
INGEST = IngestState(
    mode="full speed", why="the machine is idle", memory=Memory(121 * MB, 512 * MB, 3 * MB, 32 * MB),
    machine=WORKER.machine, relay="bsky.network", run=1_764_070_000_000_000, plan="start", seq=23_884_112_004,
    time=before(hours=5),
    head=before(seconds=2), oldest=before(hours=72), covered_from=before(hours=24), frames=4_900_112, events=5_120_840,
    dead=14, gaps=1, rate=8_120.0, bytes_rate=42e6, speed=14.2, left=1_270.0, window_left=172_800.0,
)  # fmt: skip


def process(kind: str, host: str, pid: int, **changes: Any) -> Process:
    given: dict[str, Any] = {
        "version": "0.1.0", "alive": True, "started_at": before(hours=1, minutes=12), "seen_at": before(seconds=1),
        "ended_at": None,
    }  # fmt: skip
    return Process(kind=kind, host=host, pid=pid, **{**given, **changes})  # type: ignore[arg-type]


def status(**changes: Any) -> Status:
    """A day's backfill in the middle, with a gap and some dead letters."""
    partitions = tuple(
        Partition(
            p,
            0,
            520_000 + 211 * p,
            520_000 + 211 * p + lag,
            lag,
            23_884_000_000,
            before(hours=6, minutes=p),
            "host-a:4021",
        )
        for p, lag in enumerate((118_204, 121_889, 96_411, 131_020, 120_777, 64_008, 119_342, 125_650))
    )
    made = Status(
        at=NOW, version="0.1.0", topic="firehose.events", schema="firehose", group="backfill", relay="bsky.network",
        run=INGEST.run, plan="start", asked_days=1, asked_from=before(hours=24), covered_from=before(hours=24),
        covered_to=before(hours=6, minutes=7), head=before(seconds=2), cursor="23884000000", partitions=partitions,
        lag=sum(p.lag for p in partitions), received=4_182_334, applied=4_170_020, skipped=12_300, dead=14,
        dead_letters=14, gaps=1, rates=Rates(8_120.0, 8_120.0, 2_450.0), seconds_left=6_240.0, paused=None,
        processes=(
            process("worker", "host-a", 4021, worker=WORKER),
            process("ingest", "host-a", 4040, ingest=INGEST),
            process("worker", "host-b", 977, alive=False, seen_at=before(minutes=4)),
        ),
        coverage=(
            Stretch("not kept", before(hours=26), before(hours=24), "the relay keeps no older events"),
            Stretch("covered", before(hours=24), before(hours=14)),
            Stretch("gap", before(hours=14), before(hours=13, minutes=48), "the relay left out 41,022 seqs"),
            Stretch("covered", before(hours=13, minutes=48), before(hours=6, minutes=7)),
            Stretch("pending", before(hours=6, minutes=7), before(hours=5)),
            Stretch("to come", before(hours=5), NOW),
        ),
        collections=tuple(
            Counted(name, count) for name, count in (
                ("app.bsky.feed.like", 2_310_554), (POST, 901_226), ("app.bsky.graph.follow", 604_118),
                ("app.bsky.feed.repost", 310_400), ("app.bsky.actor.profile", 21_010), ("app.bsky.graph.block", 19_882),
                ("app.bsky.graph.listitem", 2_210), ("fm.teal.alpha.feed.play", 620),
            )
        ),
        last_letters=tuple(
            RecentLetter(p, 500_000 + p, before(minutes=4 + 9 * p), "did:plc:6fbqm2oftzwkrdhsm5fvi7dp", POST, reason)
            for p, reason in enumerate((
                "the block has another hash than its CID", "Postgres refuses it: nested deeper than 6,000 levels",
                "the rev is more than an hour ahead",
            ))
        ),
        troubles=("The worker host-b:977 is down: it was last seen 4 min ago.",),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def caught_up() -> Status:
    """The same, when all is done and follows live."""
    live = msgspec.structs.replace(INGEST, time=before(seconds=1), left=0.0, rate=412.0, bytes_rate=3.1e6, speed=1.0)
    full = msgspec.structs.replace(WORKER, mode="whole slices", why="the machine is idle", rate=411.0)
    now = status()
    worker, ingest, _ = now.processes
    second_ago = before(seconds=1)
    return msgspec.structs.replace(
        now, lag=3, covered_to=second_ago, dead_letters=0, dead=0, gaps=0, last_letters=(), troubles=(),
        seconds_left=0.0, rates=Rates(412.0, 412.0, 411.0),
        partitions=tuple(
            msgspec.structs.replace(p, lag=3 if p.partition == 4 else 0, watermark_time=second_ago)
            for p in now.partitions
        ),
        processes=(msgspec.structs.replace(worker, worker=full), msgspec.structs.replace(ingest, ingest=live)),
        coverage=(Stretch("covered", before(hours=24), second_ago),),
    )  # fmt: skip


def hostile() -> Status:
    """Everything that a stranger may have written is hostile."""
    return status(
        relay=HOSTILE[1],
        collections=tuple(Counted(text, 10_000 - n) for n, text in enumerate(HOSTILE)),
        last_letters=tuple(RecentLetter(n, n, NOW, text, text, text) for n, text in enumerate(HOSTILE)),
        troubles=HOSTILE,
        coverage=(
            Stretch("gap", before(hours=2), before(hours=1), HOSTILE[0]),
            Stretch("covered", before(hours=1), NOW),
        ),
    )


def worker_figures(**changes: Any) -> WorkerFigures:
    durations = Durations()
    for seconds in (0.004, 0.03, 0.03, 0.2, 45.0):
        durations.begin()
        durations.end(seconds)
    given: dict[str, Any] = {
        "state": WORKER, "assigned": True, "rebalances": 3, "durations": durations,
        "held": tuple(Held(p.partition, p.next_offset, p.end, p.watermark_time) for p in status().partitions),
    }  # fmt: skip
    return WorkerFigures(**{**given, **changes})


def ingest_figures(**changes: Any) -> IngestFigures:
    given: dict[str, Any] = {
        "state": INGEST, "received_bytes": 30_000_000_000, "reconnects": 2, "unacknowledged": 3 * MB,
        "dead": {"frame": 4, "operation": 10, "text": 0},
    }  # fmt: skip
    return IngestFigures(**{**given, **changes})


def history() -> History:
    """Ten minutes: idle and fast, then busy and paced, with a short wait for the database."""
    made = History()
    for n in range(SLOTS):
        busy = n > 70
        mode = "no database" if 40 <= n < 44 else "paced" if busy else "whole slices"
        rate = (
            0.0 if mode == "no database" else 2_450.0 + 120 * math.sin(n) if busy else 9_300.0 + 900 * math.sin(n / 3)
        )
        others = 0.6 + 0.08 * math.sin(n / 2) if busy else 0.05 + 0.03 * math.sin(n / 2)
        made.samples.append(
            Sample(rate, 900_000 + n * 0 - 300 * n, int((150 + 30 * math.sin(n / 9)) * MB), others, mode)
        )
    return made
